// `list` for people: active intercepts first, then the other workloads, `name: state` with the names padded.
import type { ListedWorkload } from "#wire/control-api.ts";
import type { IngestInfo } from "#wire/ingest.ts";
import { formatIngest } from "./ingest.ts";
import { formatIntercept } from "./intercept.ts";
import { describeReplaced, isReplacement } from "./replacement.ts";
import { isWiretap } from "./wiretap.ts";

export interface ListFilter {
  readonly interceptsOnly: boolean;
  readonly ingestsOnly?: boolean;
  readonly wiretapsOnly?: boolean;
  readonly replacementsOnly?: boolean;
  readonly agentsOnly: boolean;
  readonly interceptableOnly: boolean;
}

/** The text of 2.20 for an empty list, which scripts look for. */
export const emptyListText = "No Workloads (Deployments, StatefulSets, ReplicaSets, or Rollouts)";

/** Filtered and in the order of the text and of the JSON. */
export function selectWorkloads(all: readonly ListedWorkload[], filter: ListFilter): readonly ListedWorkload[] {
  return all
    .filter((item) => !filter.interceptsOnly || item.intercepts.some((info) => !isWiretap(info)))
    .filter((item) => !filter.wiretapsOnly || item.intercepts.some(isWiretap))
    .filter((item) => !filter.replacementsOnly || item.replaced !== undefined || item.intercepts.some(isReplacement))
    .filter((item) => !filter.ingestsOnly || ingestsOf(item).length > 0)
    .filter((item) => !filter.agentsOnly || item.agentVersion !== undefined)
    .filter((item) => !filter.interceptableOnly || isInterceptable(item))
    .toSorted((a, b) => rank(a) - rank(b) || compare(a.name, b.name) || compare(a.kind, b.kind));
}

export interface ListShown {
  readonly debug: boolean;
  /** Only workloads with an intercept were asked for. */
  readonly interceptsOnly: boolean;
  /** Only workloads with an ingest. */
  readonly ingestsOnly?: boolean;
  /** Only workloads with a wiretap. */
  readonly wiretapsOnly?: boolean;
  /** Only workloads with a replaced container. */
  readonly replacementsOnly?: boolean;
}

export function formatList(workloads: readonly ListedWorkload[], shown: ListShown): readonly string[] {
  if (workloads.length === 0) return [emptyText(shown)];
  const { debug } = shown;
  const labels = labelWorkloads(workloads);
  const width = Math.max(...labels.map((label) => label.length));
  return workloads.flatMap((item, index) => {
    const label = (labels[index] ?? item.name).padEnd(width);
    const ingests = ingestsOf(item).flatMap((info) => formatIngest(info));
    return [`${label}: ${formatWorkloadState(item)}`, ...interceptLines(item, debug), ...ingests];
  });
}

function emptyText({ interceptsOnly, ingestsOnly, wiretapsOnly, replacementsOnly }: ListShown): string {
  if (replacementsOnly) return "No replacements";
  if (wiretapsOnly) return "No wiretaps";
  return ingestsOnly ? "No ingests" : interceptsOnly ? "No intercepts" : emptyListText;
}

function isInterceptable(item: ListedWorkload): boolean {
  return item.notInterceptableReason === undefined || item.intercepts.length > 0 || ingestsOf(item).length > 0;
}

const ingestsOf = ({ ingests = [] }: ListedWorkload): readonly IngestInfo[] => ingests;

/** One's own intercepts and ingests, then others' intercepts, then the rest. */
function rank(item: ListedWorkload): number {
  if (item.intercepts.some((intercept) => intercept.mine) || ingestsOf(item).length > 0) return 0;
  return item.intercepts.length > 0 ? 1 : 2;
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/** The name alone, as 2.20 has it; where two kinds share a name, the kind too. */
function labelWorkloads(workloads: readonly ListedWorkload[]): readonly string[] {
  const seen = new Map<string, number>();
  for (const { name } of workloads) seen.set(name, (seen.get(name) ?? 0) + 1);
  return workloads.map(({ name, kind }) => ((seen.get(name) ?? 0) > 1 ? `${kind.toLowerCase()} ${name}` : name));
}

function formatWorkloadState(item: ListedWorkload): string {
  const replaced = describeReplaced(item);
  const states = [
    ...(replaced === undefined ? [] : [replaced]),
    ...(item.intercepts.some((info) => !isWiretap(info) && !isReplacement(info)) ? ["intercepted"] : []),
    ...(item.intercepts.some(isWiretap) ? ["wiretapped"] : []),
    ...(ingestsOf(item).length > 0 ? ["ingested"] : []),
  ];
  if (states.length > 0) return states.join(", ");
  const agent = item.agentVersion === undefined ? "not yet installed" : "already installed";
  if (item.notInterceptableReason === undefined) return `ready to intercept (traffic-agent ${agent})`;
  const installed = item.agentVersion === undefined ? "not installed" : "already installed";
  return `not interceptable (traffic-agent ${installed}): ${item.notInterceptableReason}`;
}

function interceptLines(item: ListedWorkload, debug: boolean): readonly string[] {
  const mineFirst = item.intercepts.toSorted((a, b) => Number(b.mine) - Number(a.mine));
  return mineFirst.flatMap((info) => formatIntercept(info, { debug, foreign: !info.mine }));
}
