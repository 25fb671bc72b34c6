// One manager's tunnel (PROTOCOL §8.11), seen from the server. What it tells counts for the cluster of its token and for
// nothing else; what it is told of is bounded, and lives no longer than the tunnel.
import type { Duplex } from "node:stream";
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { RateLimit } from "#cloud/web/rate-limits.ts";
import { openRpc } from "#tunnel/rpc.ts";
import type { Rpc } from "#tunnel/rpc.ts";
import { openSession } from "#tunnel/session.ts";
import type { IncomingStream, TunnelSession } from "#tunnel/tunnel.ts";
import type { ReportedIntercept } from "#wire/cloud-api.ts";
import { cloudTunnelApi, cloudTunnelNotifications, managerTunnelApi } from "#wire/cloud-tunnel-api.ts";
import { helloOf } from "#wire/hello.ts";
import { managerBudgetBytes, maxStreams } from "#wire/limits.ts";
import type { Cluster } from "./clusters.ts";

/** chosen: a tunnel that has not arrived by then is closed; how long a drained one may take. */
const [arriveMs, drainMs] = [10_000, 60_000];
/** chosen: of a report. */
const maxMessageBytes = 1024 * 1024;
/** chosen: a manager sends one a second at most. */
const reportRate = { burst: 20, perSecond: 2 };
/** chosen: how long a stream may take to be opened: the manager's dial is shorter. */
const openMs = 22_000;

export interface TunnelOptions {
  readonly cluster: Cluster;
  /** Of its token. */
  readonly tokenHash: string;
  readonly clock: Clock;
  readonly log: Logger;
  /** It is known which manager it is. */
  readonly onArrived: (tunnel: ClusterTunnel) => void;
  readonly onReport: (tunnel: ClusterTunnel) => void;
  /** Leaves of what was told what counts. */
  readonly vet: (intercepts: readonly ReportedIntercept[]) => Promise<readonly ReportedIntercept[]>;
  /** Of one that has counted. */
  readonly onPreviewGone: (tunnel: ClusterTunnel, previewId: string) => void;
}

type TunnelRpc = Rpc<typeof managerTunnelApi, typeof cloudTunnelNotifications>;

/** Says HELLO; resolves once the session stands. */
export async function acceptTunnel(
  transport: Duplex,
  options: TunnelOptions,
  signal: AbortSignal,
): Promise<ClusterTunnel> {
  const { clock, log } = options;
  const limits = { maxStreams, budgetBytes: managerBudgetBytes };
  const ends = { role: "accepter", expectRole: "manager", hello: helloOf("cloud") } as const;
  return new ClusterTunnel(await openSession({ transport, ...ends, limits, clock, log, signal }), options);
}

interface Told {
  /** Counts reports. */
  readonly turn: number;
  readonly intercepts: readonly ReportedIntercept[];
  readonly more: number;
}

export class ClusterTunnel {
  readonly cluster: Cluster;
  readonly tokenHash: string;
  readonly closed: Promise<AppError | undefined>;
  readonly #session: TunnelSession;
  readonly #options: TunnelOptions;
  readonly #reports: RateLimit;
  #rpc: TunnelRpc | undefined;
  #instance: string | undefined;
  #version: string | undefined;
  #told: Told = { turn: 0, intercepts: [], more: 0 };
  /** Of what was told, what counts. */
  #counted: Told = this.#told;
  /** Previews that have counted at some time. */
  readonly #previewIds = new Set<string>();

  constructor(session: TunnelSession, options: TunnelOptions) {
    const { cluster, tokenHash, clock } = options;
    this.cluster = cluster;
    this.tokenHash = tokenHash;
    this.closed = session.closed;
    this.#session = session;
    this.#options = options;
    this.#reports = new RateLimit(reportRate, clock);
    const patience = clock.after(arriveMs, () => {
      if (this.#instance === undefined) this.destroy(new AppError("timeout", "the manager did not arrive in time"));
    });
    void session.closed.then(() => patience[Symbol.dispose]());
    session.onIncoming((incoming) => this.#accept(incoming));
  }

  get instance(): string | undefined {
    return this.#instance;
  }
  get version(): string | undefined {
    return this.#version;
  }
  get intercepts(): readonly ReportedIntercept[] {
    return this.#counted.intercepts;
  }
  /** Intercepts that a report left out. */
  get more(): number {
    return this.#counted.more;
  }

  /** Judges what was told last, again: tokens and previews may have changed. */
  async vet(): Promise<void> {
    const told = this.#told;
    const intercepts = await this.#options.vet(told.intercepts);
    if (told.turn < this.#counted.turn) return; // a later one was quicker
    this.#counted = { ...told, intercepts };
    for (const id of intercepts.flatMap(({ previewIds }) => previewIds)) this.#previewIds.add(id);
  }

  /** A connection to the ingress of a preview, or to the inspector of whose intercept it is. */
  async open(
    request:
      | { readonly kind: "preview"; readonly previewId: string }
      | { readonly kind: "inspect"; readonly interceptId: string },
    signal?: AbortSignal,
  ): Promise<Duplex> {
    using limit = deadline(this.#options.clock, openMs, "the manager's answer", signal);
    return await this.#session.open(request, limit.signal);
  }

  async endIntercept(id: string, by: string, signal: AbortSignal): Promise<void> {
    if (this.#rpc === undefined) throw new AppError("link_lost", "the manager is away");
    await this.#rpc.call("intercept.end", { id, by }, signal);
  }

  /** No new streams; those that are open have a minute. */
  async drain(): Promise<void> {
    using limit = deadline(this.#options.clock, drainMs, "the end of the tunnel");
    await this.#session.close(limit.signal);
  }
  destroy(error: AppError): void {
    this.#session.destroy(error);
  }

  #accept(incoming: IncomingStream): void {
    const { request } = incoming;
    if (this.#rpc !== undefined || request.kind !== "rpc" || request.api !== "cloud") {
      incoming.reject("denied", 'expected one rpc stream of the api "cloud"');
      return;
    }
    const rpc: TunnelRpc = openRpc({
      stream: incoming.accept(),
      calls: managerTunnelApi,
      serves: {
        api: cloudTunnelApi,
        handlers: {
          arrive: ({ instance, version }) => {
            if (this.#instance !== undefined) throw new AppError("protocol", "this manager has arrived already");
            this.#instance = instance;
            this.#version = version;
            this.#options.onArrived(this);
            return {};
          },
          report: async ({ intercepts, more }) => {
            if (this.#instance === undefined) throw new AppError("denied", "this manager has not arrived");
            this.#reports.take("");
            this.#told = { turn: this.#told.turn + 1, intercepts, more };
            await this.vet();
            this.#options.onReport(this);
            return {};
          },
        },
      },
      receives: cloudTunnelNotifications,
      log: this.#options.log,
      maxMessageBytes,
    });
    this.#rpc = rpc;
    rpc.onNotification("preview.gone", ({ previewId }) => {
      if (this.#previewIds.delete(previewId)) this.#options.onPreviewGone(this, previewId);
    });
    void rpc.closed.then((reason) => {
      if (reason === undefined) void this.drain();
      else this.#session.destroy(reason);
    });
  }
}
