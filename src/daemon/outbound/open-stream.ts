// Last hop in the daemon: asks the far end for a stream. While there is no session (the link is away) requests wait a
// little for the next one, so that a blip costs a program time and not an error (DESIGN §5).
// @from daemon/outbound/tcp-redirect.ts, daemon/outbound/udp-flow.ts, daemon/outbound/echo-flow.ts,
// @from daemon/proxy/reach.ts
// @to egress/accept.ts
import { deadline, linkSignals, raceSignal } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, isAppError } from "#base/error.ts";
import type { TunnelSession, TunnelStream } from "#tunnel/tunnel.ts";
import { openTimeoutMs } from "#wire/limits.ts";
import type { OpenRequest } from "#wire/open.ts";

/** chosen: how long a new flow waits for a session (DESIGN §5). */
export const sessionHoldMs = 5000;

/** Other sessions for some addresses. */
export interface Detour {
  readonly covers: (address: string) => boolean;
  /** Each session that comes, and undefined while there is none. */
  readonly follow: (onSession: (session: TunnelSession | undefined) => void) => void;
}

export class StreamOpener {
  readonly #clock: Clock;
  readonly #detours: readonly { readonly covers: Detour["covers"]; readonly opener: StreamOpener }[];
  #session: TunnelSession | undefined;
  #arrival = Promise.withResolvers<void>();

  constructor(clock: Clock, detours: readonly Detour[] = []) {
    this.#clock = clock;
    this.#detours = detours.map(({ covers, follow }) => {
      const opener = new StreamOpener(clock);
      follow((session) => opener.setSession(session));
      return { covers, opener };
    });
  }

  get connected(): boolean {
    return this.#session !== undefined;
  }

  /** The session that new streams go through; undefined while there is none. One that ends is forgotten by itself. */
  setSession(session: TunnelSession | undefined): void {
    this.#session = session;
    if (session === undefined) return;
    this.#arrival.resolve();
    this.#arrival = Promise.withResolvers<void>();
    void session.closed.then(() => {
      if (this.#session === session) this.#session = undefined;
    });
  }

  /** Rejects with the far end's reason; with `link_lost` when no session came in time. */
  async open(request: OpenRequest, signal: AbortSignal): Promise<TunnelStream> {
    const detour = this.#detourFor(request);
    if (detour !== undefined) return detour.open(request, signal);
    using limit = deadline(this.#clock, openTimeoutMs, "opening a connection in the cluster", signal);
    const holdUntilMs = this.#clock.now() + sessionHoldMs;
    for (;;) {
      const session = this.#session ?? (await this.#waitForSession(holdUntilMs, limit.signal));
      try {
        return await session.open(request, limit.signal);
      } catch (error) {
        // Lost before the answer: nothing was sent yet, so asking the next session is safe.
        if (limit.signal.aborted || this.#clock.now() >= holdUntilMs || !(await this.#isOver(session, error)))
          throw error;
      }
    }
  }

  #detourFor(request: OpenRequest): StreamOpener | undefined {
    if (request.kind !== "tcp" && request.kind !== "udp" && request.kind !== "echo") return undefined;
    const { address } = request.target;
    return this.#detours.find(({ covers }) => covers(address))?.opener;
  }

  /** Whether the session's end, and not the far end's answer, is why an open failed. */
  async #isOver(session: TunnelSession, error: unknown): Promise<boolean> {
    if (isAppError(error, "link_lost") && this.#session === session) this.#session = undefined;
    // `closed` and the failed open settle in the same turn, in either order.
    for (let turn = 0; turn < 4 && this.#session === session; turn++) await Promise.resolve();
    return this.#session !== session;
  }

  async #waitForSession(holdUntilMs: number, signal: AbortSignal): Promise<TunnelSession> {
    using hold = holdSignal(this.#clock, holdUntilMs - this.#clock.now(), signal);
    while (this.#session === undefined) await raceSignal(this.#arrival.promise, hold.signal);
    return this.#session;
  }
}

/** Like deadline(), but the error says that the link is away, which callers tell apart from a slow target. */
function holdSignal(clock: Clock, ms: number, parent: AbortSignal): Disposable & { readonly signal: AbortSignal } {
  const controller = new AbortController();
  const timer = clock.after(Math.max(0, ms), () => {
    controller.abort(new AppError("link_lost", "the cluster's traffic manager is not connected"));
  });
  const linked = linkSignals(parent, controller.signal);
  return {
    signal: linked.signal,
    [Symbol.dispose]: () => {
      timer[Symbol.dispose]();
      linked[Symbol.dispose]();
    },
  };
}
