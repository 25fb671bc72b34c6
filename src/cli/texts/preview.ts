// Previews for people and for scripts.
import type { PreviewView, ShareView } from "#wire/cloud-api.ts";
import type { InterceptInfo } from "#wire/manager-api.ts";
import { printable } from "./filter.ts";
import type { KeyValue } from "./key-values.ts";
import { formatKeyValues } from "./key-values.ts";

/** Of the block of an intercept, in the words of the original. */
export function previewPairs({ preview }: InterceptInfo): readonly KeyValue[] {
  if (preview === undefined) return [];
  const { url, l5host, problem } = preview;
  return [
    { key: "Preview URL", value: printable(url), ...(problem === undefined ? {} : { below: [printable(problem)] }) },
    ...(l5host === undefined ? [] : [{ key: "Layer 5 Hostname", value: printable(l5host) }]),
  ];
}

/** In the keys of the original, and the whole URL. */
export function previewToJson({ preview }: InterceptInfo): Readonly<Record<string, unknown>> {
  if (preview === undefined) return {};
  return { preview_domain: URL.parse(preview.url)?.host, preview_url: preview.url, preview_problem: preview.problem };
}

const accessTexts = { team: "people of the team", public: "anybody who has the address" } as const;

export function formatPreviews(views: readonly PreviewView[]): readonly string[] {
  if (views.length === 0) return ["No previews"];
  return views.flatMap((view) => {
    const { kind, name, namespace } = view.workload;
    const requests = view.visitors.reduce((sum, visitor) => sum + visitor.requests, 0);
    const visitors = `${requests} requests of ${view.visitors.map(({ who }) => printable(who)).join(", ")}`;
    const pairs = [
      { key: "Preview URL", value: printable(view.url) },
      { key: "Intercept", value: printable(`${view.intercept}, ${kind} ${name} in namespace ${namespace}`) },
      { key: "Cluster", value: printable(view.cluster) },
      { key: "Owner", value: `${printable(view.owner.name)}, team ${printable(view.team.name)}` },
      { key: "Open to", value: accessTexts[view.access] },
      ...(view.visitors.length === 0 ? [] : [{ key: "Visitors", value: visitors }]),
    ];
    return [`${printable(view.intercept)}: ${view.state}`, ...formatKeyValues(pairs, 3)];
  });
}

export function viewToJson(view: PreviewView): Readonly<Record<string, unknown>> {
  return {
    id: view.id,
    intercept: view.intercept,
    preview_url: view.url,
    preview_domain: view.host,
    state: view.state,
    access: view.access,
    cluster: view.cluster,
    team: view.team.name,
    owner: view.owner.name,
    workload: view.workload,
    ingress: view.ingress,
    created_at: new Date(view.createdMs).toISOString(),
    visitors: view.visitors.map(({ who, requests, lastMs }) => ({
      who,
      requests,
      last: new Date(lastMs).toISOString(),
    })),
  };
}

export function shareToJson({ id, url, by, expiresMs }: ShareView): Readonly<Record<string, unknown>> {
  return { id, url, by, expires_at: new Date(expiresMs).toISOString() };
}

export function formatShare({ id, by, expiresMs }: ShareView): string {
  return `${printable(id)}: by ${printable(by)}, until ${new Date(expiresMs).toISOString()}`;
}
