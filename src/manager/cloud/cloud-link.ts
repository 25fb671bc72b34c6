// One tunnel to a cloud server, for one team: opened again with back-off for as long as a laptop that has joined lives.
// Invariants: what comes in by it concerns only intercepts of those laptops, and dials only what they have registered;
// a token that was refused is not tried again.
import { createHash } from "node:crypto";
import type { Duplex } from "node:stream";
import { deadline, linkSignals } from "#base/abort.ts";
import type { Clock, Timer } from "#base/clock.ts";
import { AppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { softwareVersion } from "#base/version.ts";
import type { SessionRecord } from "#manager/registry/sessions.ts";
import { openRpc } from "#tunnel/rpc.ts";
import type { Rpc } from "#tunnel/rpc.ts";
import { openSession } from "#tunnel/session.ts";
import type { IncomingStream, TunnelSession } from "#tunnel/tunnel.ts";
import type { ReportedIntercept } from "#wire/cloud-api.ts";
import { cloudTunnelApi, cloudTunnelNotifications, managerTunnelApi } from "#wire/cloud-tunnel-api.ts";
import { helloOf } from "#wire/hello.ts";
import { managerBudgetBytes, maxStreams } from "#wire/limits.ts";
import type { CloudLinkState } from "#wire/manager-api.ts";
import { openCloudSocket } from "./cloud-socket.ts";

/** chosen: between attempts. */
const [firstPauseMs, longestPauseMs] = [500, 30_000];
/** chosen: one attempt in all; one call. */
const [attemptMs, callMs] = [20_000, 10_000];
/** chosen: a report after another. */
const reportPauseMs = 1000;

type TunnelRpc = Rpc<typeof cloudTunnelApi, Record<never, never>, typeof cloudTunnelNotifications>;

export interface Report {
  readonly intercepts: ReportedIntercept[];
  readonly more: number;
}

export interface Member {
  readonly session: SessionRecord;
  readonly token: string;
  /** PEM; what its laptop trusts beside the system's. */
  readonly caCertificates: readonly string[];
  tell(state: CloudLinkState, message: string): void;
}

export interface CloudLinkOptions {
  readonly url: URL;
  /** One for each start of this program. */
  readonly instance: string;
  readonly clock: Clock;
  readonly log: Logger;
  /** To the server's port; the member whose token is tried may be the way. */
  readonly dial: (member: Member, signal: AbortSignal) => Promise<Duplex>;
  readonly report: (link: CloudLink) => Report;
  readonly onIncoming: (incoming: IncomingStream, link: CloudLink) => void;
  readonly endIntercept: (link: CloudLink, id: string, by: string, signal: AbortSignal) => Promise<void>;
}

export class CloudLink {
  readonly #options: CloudLinkOptions;
  readonly #members = new Map<SessionRecord, Member>();
  readonly #refused = new Set<string>();
  readonly #over = new AbortController();
  #state: CloudLinkState = "connecting";
  #message = "";
  #rpc: TunnelRpc | undefined;
  /** Ends a pause. */
  #wake: (() => void) | undefined;
  #lastReport = "";
  #lastReportMs = -reportPauseMs;
  #reportTimer: Timer | undefined;
  readonly #running: Promise<void>;

  constructor(options: CloudLinkOptions, first: Member) {
    this.#options = options;
    this.#members.set(first.session, first);
    this.#running = this.#run();
  }

  get state(): { readonly state: CloudLinkState; readonly message: string } {
    return { state: this.#state, message: this.#message };
  }
  get members(): Iterable<Member> {
    return this.#members.values();
  }
  get size(): number {
    return this.#members.size;
  }
  has(session: SessionRecord): boolean {
    return this.#members.has(session);
  }

  join(member: Member): void {
    this.#members.delete(member.session); // the newest token is tried first
    this.#members.set(member.session, member);
    if (this.#rpc !== undefined) return;
    if (this.#state === "refused") this.#become("connecting", "");
    this.#wake?.();
  }
  leave(session: SessionRecord): void {
    const token = this.#members.get(session)?.token;
    this.#members.delete(session);
    if (token !== undefined) this.#refused.delete(token);
  }

  previewGone(previewId: string): void {
    this.#rpc?.notify("preview.gone", { previewId });
  }

  /** Resolves when the server has what is true now, or cannot be told. */
  reported(): Promise<void> {
    return this.#sendReport();
  }
  /** At once, or a second after the last. */
  reportSoon(): void {
    if (this.#rpc === undefined || this.#reportTimer !== undefined) return;
    const { clock } = this.#options;
    const waitMs = Math.max(0, this.#lastReportMs + reportPauseMs - clock.now());
    this.#reportTimer = clock.after(waitMs, () => void this.#sendReport()).unref();
  }

  async close(): Promise<void> {
    this.#over.abort(new AppError("cancelled", "the tunnel is not wanted any more"));
    this.#wake?.();
    this.#reportTimer?.[Symbol.dispose]();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { log, url } = this.#options;
    const { signal } = this.#over;
    let pauseMs = firstPauseMs;
    let failures = 0;
    while (!signal.aborted) {
      // the newest first; then another, because a laptop may stand in the way, or not know the server's authority
      const usable = [...this.#members.values()].filter(({ token }) => !this.#refused.has(token)).toReversed();
      const member = usable[failures % usable.length];
      if (member === undefined) {
        this.#become("refused", "the cloud server does not take this login any more");
        await this.#pause(undefined);
        continue;
      }
      try {
        const reason = await this.#serveOnce(member, () => {
          pauseMs = firstPauseMs;
          failures = 0;
        });
        if (signal.aborted) return;
        this.#become("connecting", reason?.message ?? "the cloud server has ended the tunnel");
      } catch (error) {
        if (signal.aborted) return;
        const { code, message } = toAppError(error);
        if (code === "unauthorized") {
          this.#refused.add(member.token);
          continue;
        }
        failures++;
        this.#become("connecting", message);
        log.info("no tunnel to the cloud server", { url: url.origin, reason: message });
      }
      await this.#pause(pauseMs * (0.75 + Math.random() / 2));
      pauseMs = Math.min(pauseMs * 2, longestPauseMs);
    }
  }

  async #serveOnce(member: Member, onStands: () => void): Promise<AppError | undefined> {
    const session = await this.#connect(member);
    using over = linkSignals(this.#over.signal);
    const cut = (): void => session.destroy(toAppError(over.signal.reason));
    over.signal.addEventListener("abort", cut, { once: true });
    const rpc = await this.#openRpc(session);
    this.#rpc = rpc;
    this.#lastReport = "";
    onStands();
    this.#become("connected", "");
    this.#options.log.info("tunnel to a cloud server", { url: this.#options.url.origin });
    this.reportSoon();
    const reason = await session.closed;
    this.#rpc = undefined;
    return reason;
  }

  /** As this laptop would go there: with its token, by its authorities, through itself where the server is on it. */
  async #connect(member: Member): Promise<TunnelSession> {
    const { url, clock, log, dial } = this.#options;
    const { token, caCertificates } = member;
    using limit = deadline(clock, attemptMs, `the way to ${url.host}`, this.#over.signal);
    const way = { url, caCertificates };
    const transport = await openCloudSocket(way, token, () => dial(member, limit.signal), limit.signal);
    const limits = { maxStreams, budgetBytes: managerBudgetBytes };
    const ends = { role: "opener", expectRole: "cloud", hello: helloOf("manager") } as const;
    const session = await openSession({ transport, ...ends, limits, clock, log, signal: limit.signal });
    session.onIncoming((incoming) => this.#options.onIncoming(incoming, this));
    return session;
  }

  async #openRpc(session: TunnelSession): Promise<TunnelRpc> {
    const { clock, log, instance, endIntercept } = this.#options;
    using limit = deadline(clock, callMs, "the cloud server's answer", this.#over.signal);
    try {
      const rpc = openRpc({
        stream: await session.open({ kind: "rpc", api: "cloud" }, limit.signal),
        calls: cloudTunnelApi,
        serves: {
          api: managerTunnelApi,
          handlers: {
            "intercept.end": async ({ id, by }, signal) => {
              await endIntercept(this, id, by, signal);
              return {};
            },
          },
        },
        sends: cloudTunnelNotifications,
        log,
      });
      void rpc.closed.then((reason) => session.destroy(reason));
      await rpc.call("arrive", { instance, version: softwareVersion }, limit.signal);
      return rpc;
    } catch (error) {
      session.destroy(toAppError(error));
      throw error;
    }
  }

  async #sendReport(): Promise<void> {
    this.#reportTimer?.[Symbol.dispose]();
    this.#reportTimer = undefined;
    const rpc = this.#rpc;
    if (rpc === undefined) return;
    const report = this.#options.report(this);
    const text = JSON.stringify(report);
    if (text === this.#lastReport) return;
    this.#lastReportMs = this.#options.clock.now();
    this.#lastReport = text;
    try {
      using limit = deadline(this.#options.clock, callMs, "the cloud server's answer", this.#over.signal);
      await rpc.call("report", report, limit.signal);
    } catch (error) {
      this.#options.log.info("report not taken", { reason: toAppError(error).message });
      if (this.#lastReport === text) this.#lastReport = "";
      this.reportSoon();
    }
  }

  #become(state: CloudLinkState, message: string): void {
    if (this.#state === state && this.#message === message) return;
    this.#state = state;
    this.#message = message;
    for (const member of this.#members.values()) member.tell(state, message);
  }

  /** Until somebody joins, when there is no time. */
  async #pause(ms: number | undefined): Promise<void> {
    if (this.#over.signal.aborted) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    using _timer = ms === undefined ? undefined : this.#options.clock.after(ms, resolve);
    await promise;
    this.#wake = undefined;
  }
}

export function hashOfToken(token: string): string {
  return createHash("sha256").update(token).digest("hex");
}
