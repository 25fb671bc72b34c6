// Previews as the proxy needs them: by host, held for a moment, with their connections; and what their managers tell.
import type { Clock } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import type { LiveClusters } from "#cloud/clusters/live-clusters.ts";
import type { CloudConfig } from "#cloud/config.ts";
import { audit } from "#cloud/audit.ts";
import type { Database } from "#cloud/storage/database.ts";
import { IngressConnections } from "./ingress-connections.ts";
import type { Preview } from "./previews.ts";
import { findPreview, findPreviewByHost, noteLive, ownersOf, removePreview, tidyPreviews } from "./previews.ts";
import { Recent } from "./recent.ts";
import type { Visitor } from "./visitors.ts";
import type { Visits } from "./visits.ts";

/** chosen: how long an answer of the database holds, where another server may have changed it. */
const [previewHoldsMs, visitorHoldsMs] = [1000, 3000];
/** chosen: how often it is written down that a preview is in use. */
const liveStepMs = 3600_000;

export interface LivePreviewsOptions {
  readonly config: CloudConfig;
  readonly database: Database;
  readonly live: LiveClusters;
  readonly visits: Visits;
  readonly clock: Clock;
  readonly log: Logger;
}

export class LivePreviews implements Disposable {
  readonly visits: Visits;
  readonly #options: LivePreviewsOptions;
  readonly #byHost: Recent<Preview | undefined>;
  readonly #visitors: Recent<Visitor | undefined>;
  readonly #connections = new Map<string, { readonly of: Preview; readonly agent: IngressConnections }>();
  readonly #notedMs = new Map<string, number>();

  constructor(options: LivePreviewsOptions) {
    this.#options = options;
    this.visits = options.visits;
    this.#byHost = new Recent(previewHoldsMs, options.clock);
    this.#visitors = new Recent(visitorHoldsMs, options.clock);
    options.live.onPreviews({
      ownersOf: (clusterId) => ownersOf(options.database, clusterId),
      live: (clusterId, ids) => this.#logged(this.#noteLive(clusterId, ids)),
      gone: (clusterId, id) => this.#logged(this.#gone(clusterId, id)),
    });
  }

  /** `brave-otter-7k2mq.preview.example.com`. */
  byHost(name: string): Promise<Preview | undefined> {
    const { previewDomain } = this.#options.config;
    const label = name.slice(0, -(previewDomain?.length ?? 0) - 1);
    if (previewDomain === undefined || name !== `${label}.${previewDomain}` || !/^[a-z0-9-]{1,63}$/.test(label)) {
      return Promise.resolve(undefined);
    }
    return this.#byHost.get(label, () => findPreviewByHost(this.#options.database, label));
  }

  visitor({ id }: Preview, tokenHash: string, ask: () => Promise<Visitor | undefined>): Promise<Visitor | undefined> {
    return this.#visitors.get(`${id} ${tokenHash}`, ask);
  }

  originOf(host: string): URL {
    const { url, previewDomain } = this.#options.config;
    const origin = new URL(url);
    origin.hostname = `${host}.${previewDomain ?? ""}`;
    return origin;
  }

  /** Whether its manager is here and its intercept served; what is not told yet is not held against it. */
  isAwake({ clusterId, id }: Preview): boolean {
    const { live } = this.#options;
    const state = live.interceptOf(clusterId, id)?.state;
    return live.isLive(clusterId) && state !== "suspended" && state !== "removed";
  }
  /** For lists: known to be there. */
  isServed(preview: Preview): boolean {
    return this.isAwake(preview) && this.#options.live.interceptOf(preview.clusterId, preview.id) !== undefined;
  }

  connections(preview: Preview): IngressConnections {
    const known = this.#connections.get(preview.id);
    if (known !== undefined && isSameWay(known.of, preview)) return known.agent;
    known?.agent.cut();
    const agent = new IngressConnections(preview, this.#options.live, this.#options.clock);
    this.#connections.set(preview.id, { of: preview, agent });
    return agent;
  }

  /** It is not what it was: whoever is in it comes in anew, or not at all. */
  changed({ id, host }: Pick<Preview, "id" | "host">): void {
    this.#byHost.forget((key) => key === host);
    this.#visitors.forget((key) => key.startsWith(`${id} `));
    this.#connections.get(id)?.agent.cut();
    this.#connections.delete(id);
  }

  async tidy(): Promise<void> {
    await tidyPreviews(this.#options.database, this.#options.clock.wallMs());
  }

  [Symbol.dispose](): void {
    for (const { agent } of this.#connections.values()) agent.cut();
    this.#connections.clear();
  }

  async #noteLive(clusterId: string, ids: readonly string[]): Promise<void> {
    const { clock, database } = this.#options;
    const nowMs = clock.wallMs();
    const due = ids.filter((id) => nowMs - (this.#notedMs.get(id) ?? 0) > liveStepMs);
    if (this.#notedMs.size > 10_000) this.#notedMs.clear();
    for (const id of due) this.#notedMs.set(id, nowMs);
    await noteLive(database, clusterId, due, nowMs);
  }

  async #gone(clusterId: string, id: string): Promise<void> {
    const { clock, database } = this.#options;
    const preview = await findPreview(database, id);
    if (preview === undefined || preview.clusterId !== clusterId) return; // a manager speaks for its own cluster
    if (!(await removePreview(database, id, "ended", clock.wallMs()))) return;
    this.changed(preview);
    const { teamId, personId, personName, intercept } = preview;
    const person = { id: personId, name: personName };
    await audit(database, { action: "preview.removed", teamId, person, subject: intercept }, clock.wallMs());
  }

  #logged(work: Promise<void>): void {
    work.catch((error: unknown) => {
      this.#options.log.warn("what a manager told of previews was not kept", { error: String(error) });
    });
  }
}

/** Whether connections that were made for one are good for the other. Asked for each request. */
function isSameWay(one: Preview, other: Preview): boolean {
  if (one === other) return true;
  return (
    one.ingress.host === other.ingress.host &&
    one.ingress.port === other.ingress.port &&
    one.ingress.tls === other.ingress.tls &&
    one.ingress.l5host === other.ingress.l5host &&
    one.insecure === other.insecure &&
    one.ingressCa === other.ingressCa &&
    one.clusterId === other.clusterId
  );
}
