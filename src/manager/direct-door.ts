// Laptops that come straight to this pod, by TLS, instead of through the API server (PROTOCOL §2.4). Nothing begins here: a
// session that was made through a port-forward names, through a port-forward, the key that may go on with it for an hour.
// Invariants: a key that no session has named gets nothing; when the hour is over without another proof, or the session
// has ended, its connections are cut, and the session goes on through a port-forward or not at all.
import type { TLSSocket } from "node:tls";
import type { Clock, Timer } from "#base/clock.ts";

/** chosen: who loses the right to port-forward loses the direct way so much later, at the latest. */
const admissionMs = 60 * 60_000;
/** chosen: a laptop has one, and another while it moves. */
const maxConnections = 4;

interface Admission {
  readonly fingerprint: string;
  readonly sessionId: string;
  readonly timer: Timer;
  readonly sockets: Set<TLSSocket>;
}

export class DirectAdmissions implements Disposable {
  readonly #clock: Clock;
  readonly #bySession = new Map<string, Admission>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** How long it holds, milliseconds. An earlier key of the session is forgotten, with its connections. */
  admit(sessionId: string, fingerprint: string): number {
    this.end(sessionId);
    const timer = this.#clock.after(admissionMs, () => this.end(sessionId)).unref();
    this.#bySession.set(sessionId, { fingerprint, sessionId, timer, sockets: new Set() });
    return admissionMs;
  }

  end(sessionId: string): void {
    const admission = this.#bySession.get(sessionId);
    this.#bySession.delete(sessionId);
    admission?.timer[Symbol.dispose]();
    for (const socket of admission?.sockets ?? []) socket.destroy();
  }

  isAdmitted(fingerprint: string): boolean {
    return this.#find(fingerprint) !== undefined;
  }

  /** The only session that may go on over this connection; undefined when the key is admitted no more. */
  take(socket: TLSSocket, fingerprint: string): string | undefined {
    const admission = this.#find(fingerprint);
    if (admission === undefined) return undefined;
    const { sockets, sessionId } = admission;
    const [oldest] = sockets;
    if (sockets.size >= maxConnections) oldest?.destroy();
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    return sessionId;
  }

  [Symbol.dispose](): void {
    for (const sessionId of this.#bySession.keys()) this.end(sessionId);
  }

  #find(fingerprint: string): Admission | undefined {
    return this.#bySession.values().find((admission) => admission.fingerprint === fingerprint);
  }
}
