// Dials a pod, a service or anything else the guard lets through, for a laptop's stream. Every dial stands alone: no
// queue, so a black-holed target never delays another one; what is bounded is the number of dials in the air.
// @from egress/accept.ts
import type { Socket } from "node:net";
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { ErrorCode } from "#base/error.ts";
import { dial } from "#tunnel/dial.ts";
import { formatEndpoint } from "#wire/open.ts";
import type { Endpoint } from "#wire/open.ts";
import type { DialGuard } from "./guard.ts";

/** chosen: shorter than the opener's patience (openTimeoutMs), so that the reason arrives before it gives up. */
const connectTimeoutMs = 20_000;
/** chosen: dials in the air, in all and to one address. The second keeps a black hole from using up the first. */
const maxPending = 8192;
const maxPendingPerAddress = 1024;

export interface DialerOptions {
  readonly guard: DialGuard;
  readonly clock: Clock;
}

export class Dialer {
  readonly #guard: DialGuard;
  readonly #clock: Clock;
  readonly #pendingByAddress = new Map<string, number>();
  #pending = 0;

  constructor(options: DialerOptions) {
    this.#guard = options.guard;
    this.#clock = options.clock;
  }

  /** Throws `denied` when the guard refuses the address. */
  admit(target: Endpoint): void {
    const why = this.#guard.check(target.address, target.port);
    if (why !== undefined) throw new AppError("denied", `${formatEndpoint(target)} is not dialled: the address ${why}`);
  }

  /** A connected socket that allows half-close and that nobody reads yet. */
  async dialTcp(target: Endpoint, signal: AbortSignal): Promise<Socket> {
    this.admit(target);
    const here = this.#pendingByAddress.get(target.address) ?? 0;
    if (this.#pending >= maxPending || here >= maxPendingPerAddress) {
      throw new AppError("busy", `${formatEndpoint(target)} is not dialled: ${here} dials to it are waiting already`);
    }
    this.#pending += 1;
    this.#pendingByAddress.set(target.address, here + 1);
    using limit = deadline(this.#clock, connectTimeoutMs, `connecting to ${formatEndpoint(target)}`, signal);
    try {
      return await dial(target, limit.signal);
    } catch (error) {
      limit.signal.throwIfAborted();
      throw translateSocketError(error as NodeJS.ErrnoException, formatEndpoint(target));
    } finally {
      this.#pending -= 1;
      const left = (this.#pendingByAddress.get(target.address) ?? 1) - 1;
      if (left === 0) this.#pendingByAddress.delete(target.address);
      else this.#pendingByAddress.set(target.address, left);
    }
  }
}

const codesByErrno: Readonly<Record<string, ErrorCode>> = {
  ECONNREFUSED: "refused",
  EHOSTUNREACH: "unreachable",
  ENETUNREACH: "unreachable",
  EHOSTDOWN: "unreachable",
  EADDRNOTAVAIL: "unreachable",
  EAFNOSUPPORT: "unreachable",
  ETIMEDOUT: "timeout",
  ECONNRESET: "peer_reset",
  EPIPE: "peer_reset",
  EACCES: "denied",
  EPERM: "denied",
  EMFILE: "busy",
  ENFILE: "busy",
  ENOBUFS: "busy",
};

/** The socket's errno as one of the codes that travel on the wire. */
export function translateSocketError(error: NodeJS.ErrnoException, target: string): AppError {
  const code = codesByErrno[error.code ?? ""] ?? "internal";
  return new AppError(code, `connection to ${target} failed: ${error.code ?? error.message}`, { cause: error });
}
