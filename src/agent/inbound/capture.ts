// A caller's connection to a taken-over TCP port. It goes to the laptop when the port has an active intercept, else to
// the application; whatever fails before a byte was relayed, the application gets it (DESIGN §5).
//
//   connection ──no intercept──────────────────────────────► pass
//        └──intercept──► open-stream ──refused, lost, 5 s──► pass ──application refuses──► reset
//                             └──accepted──► first byte of either side ──► joined
//
// Invariants: the caller's bytes stay in its socket's buffer until the decision, so none is lost; an intercepted
// connection goes on after a detach until one of its ends closes.
// @to agent/inbound/open-stream.ts, agent/inbound/pass.ts
import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import type { Clock } from "#base/clock.ts";
import { AppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { joinDuplex } from "#tunnel/pipe.ts";
import type { AgentPort } from "#wire/agent-api.ts";
import type { Endpoint } from "#wire/open.ts";
import type { PassedConnections } from "#agent/passed-connections.ts";
import type { Redirect } from "#agent/redirect.ts";
import type { ServedIntercepts, Taken } from "#agent/served.ts";
import { firstMove, openInbound } from "./open-stream.ts";
import { AppDialer, plainAddress } from "./pass.ts";
import type { Impersonated } from "./pass.ts";

/** chosen: finds callers that vanished without a word. */
const keepAliveMs = 60_000;

export interface CaptureOptions {
  readonly port: AgentPort;
  readonly served: ServedIntercepts;
  readonly redirect: Redirect;
  readonly passed: PassedConnections;
  readonly podName: string;
  readonly podIps: readonly string[];
  readonly clock: Clock;
  readonly log: Logger;
}

export class TcpCapture implements AsyncDisposable {
  readonly #options: CaptureOptions;
  readonly #server: Server;
  readonly #dialer: AppDialer;
  readonly #open = new Set<Socket>();

  private constructor(options: CaptureOptions) {
    this.#options = options;
    this.#dialer = new AppDialer({ ...options, containerPort: options.port.containerPort });
    this.#server = createServer(
      { allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: keepAliveMs },
      (caller) => void this.#accept(caller),
    );
  }

  static async listen(options: CaptureOptions): Promise<TcpCapture> {
    const capture = new TcpCapture(options);
    await listenAnywhere(capture.#server, options.port.agentPort);
    return capture;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }
  get openConnections(): number {
    return this.#open.size;
  }

  /** Whether the application takes connections on this port now. */
  async applicationListens(signal: AbortSignal): Promise<boolean> {
    try {
      const socket = await this.#dialer.dial(undefined, signal);
      socket.resetAndDestroy();
      return true;
    } catch {
      return false;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#open) socket.resetAndDestroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #accept(caller: Socket): Promise<void> {
    const { port, served, redirect, log } = this.#options;
    const gone = new AbortController();
    const held = port.takeover === "redirect" ? redirect.hold() : undefined;
    this.#open.add(caller);
    caller.on("error", () => undefined); // 'close' follows; a join hears it as well
    caller.once("close", () => {
      this.#open.delete(caller);
      held?.[Symbol.dispose]();
      gone.abort(new AppError("cancelled", "the caller is gone"));
    });
    try {
      const taken = served.find(port.containerPort, port.protocol);
      if (taken !== undefined && (await this.#toLaptop(caller, taken, gone.signal))) return;
      await this.#toApplication(caller, gone.signal);
    } catch (error) {
      // The application refuses, or the caller left: the caller sees what it would see without us.
      log.debug("connection not passed", { port: port.containerPort, reason: toAppError(error).message });
      caller.resetAndDestroy();
    }
  }

  /** False when the application must answer instead. */
  async #toLaptop(caller: Socket, taken: Taken, signal: AbortSignal): Promise<boolean> {
    const { port, podName, clock, log } = this.#options;
    const source = sourceOf(caller);
    const { containerPort } = port;
    try {
      const request = { protocol: "tcp", containerPort, source, podName } as const;
      const stream = await openInbound({ taken, request, clock, signal });
      if (caller.destroyed) {
        stream.destroy(new AppError("cancelled", "the caller is gone"));
        return true;
      }
      try {
        await firstMove(caller, stream);
      } catch (error) {
        stream.destroy(toAppError(error));
        throw error;
      }
      joinDuplex(caller, stream);
      return true;
    } catch (error) {
      if (signal.aborted) return true;
      const reason = toAppError(error);
      log.info("connection left to the application", { interceptId: taken.interceptId, reason: reason.message });
      return false;
    }
  }

  async #toApplication(caller: Socket, signal: AbortSignal): Promise<void> {
    const reached = caller.localAddress;
    const application = await this.#dialer.dial(reached, signal, this.#impersonate(caller));
    if (caller.destroyed) return void application.resetAndDestroy();
    this.#options.passed.track(this.#options.port, { caller, application });
    joinDuplex(caller, application);
  }

  #impersonate(caller: Socket): Impersonated | undefined {
    const { port, redirect } = this.#options;
    const { callers } = redirect;
    if (port.takeover !== "redirect" || callers === undefined) return undefined;
    return { caller: sourceOf(caller), dialer: callers };
  }
}

function sourceOf(caller: Socket): Endpoint {
  return { address: plainAddress(caller.remoteAddress ?? ""), port: caller.remotePort ?? 0 };
}

/** Both families where the pod has IPv6, else IPv4. */
async function listenAnywhere(server: Server, port: number): Promise<void> {
  for (const host of ["::", "0.0.0.0"]) {
    try {
      server.listen({ port, host, backlog: 4096 });
      await once(server, "listening");
      return;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (host === "::" && (code === "EAFNOSUPPORT" || code === "EADDRNOTAVAIL" || code === "EINVAL")) continue;
      const kind = code === "EADDRINUSE" ? "port_in_use" : "internal";
      throw new AppError(kind, `cannot listen on port ${port}: ${code}`, { cause: error });
    }
  }
}
