// The tunnels that stand, by cluster, and what they tell. Nothing of it is kept: it is true as long as they stand.
// Invariants: a tunnel serves its token's cluster only, and previews of people who have joined by it; of one manager the newest serves and older ones drain; a token
// that does not count any more ends its tunnel within seconds.
import type { Duplex } from "node:stream";
import type { Clock, Timer } from "#base/clock.ts";
import { AppError, isAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { Queries } from "#cloud/storage/database.ts";
import type { ReportedIntercept } from "#wire/cloud-api.ts";
import { acceptTunnel } from "./cluster-tunnel.ts";
import type { ClusterTunnel } from "./cluster-tunnel.ts";
import type { Cluster } from "./clusters.ts";
import { clusterOfToken, joinedPeople } from "./clusters.ts";

/** chosen: managers of one cluster, tunnels of one team, tunnels in all. */
const [maxOfCluster, maxOfTeam, maxInAll] = [4, 32, 2000];
/** chosen: how often tokens of tunnels that stand are looked at. */
const checkMs = 10_000;

export interface LiveOptions {
  readonly database: Queries;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Hears what managers tell of previews, and knows whose they are. */
export interface PreviewNews {
  /** Person by preview. */
  ownersOf(clusterId: string): Promise<ReadonlyMap<string, string>>;
  /** Their manager has them, now. */
  live(clusterId: string, previewIds: readonly string[]): void;
  gone(clusterId: string, previewId: string): void;
}

export interface FoundIntercept {
  readonly intercept: ReportedIntercept;
  readonly tunnel: ClusterTunnel;
}

export class LiveClusters implements AsyncDisposable {
  readonly #options: LiveOptions;
  /** By cluster; the newest last. */
  readonly #tunnels = new Map<string, ClusterTunnel[]>();
  readonly #over = new AbortController();
  #checking: Timer | undefined;
  #news: PreviewNews | undefined;
  #count = 0;

  constructor(options: LiveOptions) {
    this.#options = options;
  }

  /** One listener. */
  onPreviews(news: PreviewNews): void {
    this.#news = news;
  }
  get count(): number {
    return this.#count;
  }

  /** The connection is a manager's, with the token of this cluster. */
  async accept(transport: Duplex, cluster: Cluster, tokenHash: string): Promise<void> {
    const { clock, log } = this.#options;
    const ofTeam = [...this.#tunnels.values()].flat().filter((tunnel) => tunnel.cluster.teamId === cluster.teamId);
    if (ofTeam.length >= maxOfTeam || this.#count >= maxInAll) {
      transport.destroy();
      throw new AppError("busy", "too many managers have tunnels here");
    }
    const tunnel = await acceptTunnel(
      transport,
      {
        cluster,
        tokenHash,
        clock,
        log,
        onArrived: (one) => this.#add(one),
        onReport: (one) =>
          this.#news?.live(
            cluster.id,
            one.intercepts.flatMap(({ previewIds }) => previewIds),
          ),
        vet: (intercepts) => this.#vet(cluster.id, intercepts),
        onPreviewGone: (_one, previewId) => this.#news?.gone(cluster.id, previewId),
      },
      this.#over.signal,
    );
    if (this.#over.signal.aborted) tunnel.destroy(new AppError("cancelled", "the server ends"));
  }

  isLive(clusterId: string): boolean {
    return this.#tunnels.has(clusterId);
  }
  version(clusterId: string): string | undefined {
    return this.#tunnels.get(clusterId)?.at(-1)?.version;
  }
  intercepts(clusterId: string): readonly ReportedIntercept[] {
    return (this.#tunnels.get(clusterId) ?? []).flatMap((tunnel) => tunnel.intercepts);
  }
  /** Intercepts that reports left out. */
  more(clusterId: string): number {
    return (this.#tunnels.get(clusterId) ?? []).reduce((sum, tunnel) => sum + tunnel.more, 0);
  }
  /** The intercept of a preview. */
  interceptOf(clusterId: string, previewId: string): ReportedIntercept | undefined {
    return this.intercepts(clusterId).findLast(({ previewIds }) => previewIds.includes(previewId));
  }

  /** A connection to the preview's ingress; `not_found` when no manager that is here has it from its owner's laptop. */
  async openPreview(clusterId: string, previewId: string, signal?: AbortSignal): Promise<Duplex> {
    const knows = ({ intercepts }: ClusterTunnel): boolean =>
      intercepts.some(({ previewIds }) => previewIds.includes(previewId));
    for (const tunnel of (this.#tunnels.get(clusterId) ?? []).filter(knows).toReversed()) {
      try {
        return await tunnel.open({ kind: "preview", previewId }, signal);
      } catch (error) {
        if (!isAppError(error, "not_found")) throw error;
      }
    }
    throw new AppError("not_found", "no manager that is connected has this preview");
  }

  /**
   * An intercept with the tunnel that tells of it, by which alone it is asked for: several managers may tell of one id.
   * The caller's own counts first, then what the newest tunnel tells.
   */
  find(clusterId: string, interceptId: string, isOwn: (joinedBy: string) => boolean): FoundIntercept | undefined {
    const found = (this.#tunnels.get(clusterId) ?? []).flatMap((tunnel) =>
      tunnel.intercepts.filter(({ id }) => id === interceptId).map((intercept) => ({ intercept, tunnel })),
    );
    return found.findLast(({ intercept }) => isOwn(intercept.joinedBy)) ?? found.at(-1);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#checking?.[Symbol.dispose]();
    this.#over.abort(new AppError("cancelled", "the server ends"));
    const all = [...this.#tunnels.values()].flat();
    for (const tunnel of all) tunnel.destroy(new AppError("cancelled", "the server ends"));
    await Promise.all(all.map((tunnel) => tunnel.closed));
  }

  /** A preview counts where its owner's laptop has joined: of others who name it a visitor would know nothing. */
  async #vet(clusterId: string, intercepts: readonly ReportedIntercept[]): Promise<readonly ReportedIntercept[]> {
    if (intercepts.every(({ previewIds }) => previewIds.length === 0)) return intercepts;
    const people = await joinedPeople(this.#options.database, clusterId);
    const owners = await this.#news?.ownersOf(clusterId);
    return intercepts.map((intercept) => {
      const person = people.get(intercept.joinedBy)?.id;
      const counts = (id: string): boolean => person !== undefined && owners?.get(id) === person;
      return { ...intercept, previewIds: intercept.previewIds.filter(counts) };
    });
  }

  #add(tunnel: ClusterTunnel): void {
    const { cluster, instance } = tunnel;
    const before = this.#tunnels.get(cluster.id) ?? [];
    const older = before.filter((one) => one.instance === instance);
    const others = before.filter((one) => one.instance !== instance);
    const tooMany = others.splice(0, Math.max(0, others.length - (maxOfCluster - 1)));
    this.#tunnels.set(cluster.id, [...others, tunnel]);
    this.#count++;
    for (const one of [...older, ...tooMany]) void one.drain();
    this.#options.log.info("manager connected", { cluster: cluster.id, version: tunnel.version });
    this.#checking ??= this.#options.clock.every(checkMs, () => void this.#check()).unref();
    void tunnel.closed.then((reason) => {
      this.#count--;
      this.#remove(tunnel);
      this.#options.log.info("manager gone", { cluster: cluster.id, reason: reason?.message ?? "in order" });
    });
  }

  #remove(tunnel: ClusterTunnel): void {
    const left = (this.#tunnels.get(tunnel.cluster.id) ?? []).filter((one) => one !== tunnel);
    if (left.length === 0) this.#tunnels.delete(tunnel.cluster.id);
    else this.#tunnels.set(tunnel.cluster.id, left);
  }

  /** Logins end while their tunnels stand. */
  async #check(): Promise<void> {
    const { database, clock, log } = this.#options;
    try {
      for (const tunnel of [...this.#tunnels.values()].flat()) {
        const cluster = await clusterOfToken(database, tunnel.tokenHash, clock.wallMs());
        if (cluster === undefined) tunnel.destroy(new AppError("unauthorized", "the login of this tunnel is over"));
        else await tunnel.vet();
      }
    } catch (error) {
      log.warn("tokens of tunnels not checked", { error: String(error) });
    }
  }
}
