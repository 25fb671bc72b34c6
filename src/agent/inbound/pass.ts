// The application's end of a connection that no laptop takes. The pod's own address is dialled, as a caller in the
// cluster would: an application that trusts what comes from loopback must not trust the whole cluster because of us
// (DESIGN 15). Only an application that listens on nothing but loopback is dialled there. Where the kernel was set up for
// it, the application even sees its caller's address.
// @from agent/inbound/capture.ts, agent/inbound/http-ends.ts, agent/inbound/http2-ends.ts
import type { Socket } from "node:net";
import type { Clock } from "#base/clock.ts";
import { deadline } from "#base/abort.ts";
import { AppError } from "#base/error.ts";
import { dial, keepAliveMs } from "#tunnel/dial.ts";
import type { Endpoint } from "#wire/open.ts";
import type { CallerDialer } from "#agent/kept-callers.ts";

/** chosen: the application's backlog may be full; its callers would wait as well. */
const connectMs = 30_000;
/** chosen: an application that listened only on loopback may have been restarted to listen everywhere. */
const knownMs = 5000;

export interface AppDialerOptions {
  readonly podIps: readonly string[];
  readonly containerPort: number;
  readonly clock: Clock;
}

/** The caller in whose name the application is dialled. */
export interface Impersonated {
  readonly caller: Endpoint;
  readonly dialer: CallerDialer;
}

export class AppDialer {
  readonly #options: AppDialerOptions;
  /** Where the application answered last, and until when that is believed. */
  #known: { readonly address: string; readonly untilMs: number } | undefined;

  constructor(options: AppDialerOptions) {
    this.#options = options;
  }

  /**
   * `reached` is the pod's address that the caller used; `as` makes the application see the caller, not us. Rejects with
   * `refused` when the application listens nowhere.
   */
  async dial(reached: string | undefined, signal: AbortSignal, as?: Impersonated): Promise<Socket> {
    const { containerPort, clock } = this.#options;
    using limit = deadline(clock, connectMs, `the application on port ${containerPort}`, signal);
    let failure: Error | undefined;
    for (const address of this.candidates(reached)) {
      try {
        const socket = await this.#connect(address, limit.signal, as);
        this.#known = { address, untilMs: clock.now() + knownMs };
        return socket;
      } catch (error) {
        limit.signal.throwIfAborted();
        failure = error as Error;
      }
    }
    throw new AppError("refused", `the application does not listen on port ${containerPort}`, { cause: failure });
  }

  async #connect(address: string, signal: AbortSignal, as: Impersonated | undefined): Promise<Socket> {
    const port = this.#options.containerPort;
    if (as !== undefined && !isLoopback(address)) {
      const socket = await as.dialer.connect(as.caller, { address, port }, signal);
      if (socket !== undefined) return socket.setNoDelay(true).setKeepAlive(true, keepAliveMs);
    }
    return await dial({ address, port }, signal);
  }

  /**
   * The pod's own addresses, the caller's first, then loopback; before all of them loopback where it worked lately, or
   * whatever did when there is no caller.
   */
  candidates(reached: string | undefined): readonly string[] {
    const { podIps, clock } = this.#options;
    const lately = this.#known !== undefined && clock.now() < this.#known.untilMs ? [this.#known.address] : [];
    const known = lately.filter((address) => reached === undefined || isLoopback(address));
    const own = [...(reached === undefined ? [] : [plainAddress(reached)]), ...podIps].filter((ip) => !isLoopback(ip));
    return [...new Set([...known, ...own, "127.0.0.1", "::1"])];
  }
}

function isLoopback(address: string): boolean {
  return address === "::1" || address === "127.0.0.1";
}

/** `::ffff:10.0.0.1`, as a dual-stack listener sees IPv4, is 10.0.0.1. */
export function plainAddress(address: string): string {
  return address.toLowerCase().startsWith("::ffff:") && address.includes(".")
    ? address.slice("::ffff:".length)
    : address;
}
