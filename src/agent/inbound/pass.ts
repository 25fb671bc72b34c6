// The application's end of a connection that no laptop takes. Where the kernel was set up for it, the application even
// sees its caller's address.
// @from agent/inbound/capture.ts, agent/inbound/http/http-ends.ts, agent/inbound/http2/http2-ends.ts
import type { Socket } from "node:net";
import type { Clock } from "#base/clock.ts";
import { deadline } from "#base/abort.ts";
import { AppError } from "#base/error.ts";
import { dial, keepAliveMs } from "#tunnel/dial.ts";
import type { Endpoint } from "#wire/open.ts";
import type { CallerDialer } from "#agent/kept-callers.ts";
import { AppAddresses, isLoopback } from "./app-addresses.ts";

/** chosen: the application's backlog may be full; its callers would wait as well. */
const connectMs = 30_000;
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
  readonly #addresses: AppAddresses;

  constructor(options: AppDialerOptions) {
    this.#options = options;
    this.#addresses = new AppAddresses(options.podIps, options.clock);
  }

  /**
   * `reached` is the pod's address that the caller used; `as` makes the application see the caller, not us. Rejects with
   * `refused` when the application listens nowhere.
   */
  async dial(reached: string | undefined, signal: AbortSignal, as?: Impersonated): Promise<Socket> {
    const { containerPort, clock } = this.#options;
    using limit = deadline(clock, connectMs, `the application on port ${containerPort}`, signal);
    let failure: Error | undefined;
    for (const address of this.#addresses.candidates(reached)) {
      try {
        const socket = await this.#connect(address, limit.signal, as);
        this.#addresses.answered(address);
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
}
