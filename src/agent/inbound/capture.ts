// A caller's connection to a taken-over TCP port. HTTP is decided request by request; of anything else the whole
// connection goes to the laptop when the port has an intercept without a filter, else to the application. Whatever fails
// before a byte was relayed, the application gets it (DESIGN §5).
//
//   connection ──no intercept──────────────────────────────► pass ──┐
//        └──intercept──► open-stream ──refused, lost, 5 s──► pass ──┤──application refuses──► reset
//                             └──accepted───────────────────────────┴──first byte of either side──► http | http2 | joined
//
// TLS is one of the others, unless the port has a filter and the pod a certificate: then what is inside is decided.
// Invariants: the caller's bytes are held until the decision, so none is lost; an intercepted connection that is not
// HTTP goes on after a detach until one of its ends closes.
// @to agent/inbound/canary-caller.ts, agent/inbound/http/http-connection.ts, agent/inbound/http2/http2-connection.ts, agent/inbound/open-stream.ts, agent/inbound/pass.ts, agent/inbound/taps/port-taps.ts, agent/inbound/taps/tap-http.ts, agent/inbound/tls/tls-port.ts
import { once } from "node:events";
import { Socket, createServer } from "node:net";
import type { AddressInfo, Server } from "node:net";
import type { Clock } from "#base/clock.ts";
import { AppError, isAppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { joinDuplex } from "#tunnel/pipe.ts";
import type { TunnelStream } from "#tunnel/tunnel.ts";
import type { AgentPort, PodProbe } from "#wire/agent-api.ts";
import type { Endpoint } from "#wire/open.ts";
import type { Canary } from "#agent/canary.ts";
import type { Decisions, Outcome } from "#agent/decisions.ts";
import type { PassedConnections } from "#agent/passed-connections.ts";
import type { Redirect } from "#agent/redirect.ts";
import type { ServedIntercepts, Taken } from "#agent/served.ts";
import type { UnreadConnections } from "#agent/unread-connections.ts";
import { plainAddress } from "./app-addresses.ts";
import { answerCanary, takeCanary } from "./canary-caller.ts";
import { FirstMove } from "./first-move.ts";
import type { Protocol } from "./first-move.ts";
import { HttpConnection } from "./http/http-connection.ts";
import type { HttpConnectionOptions } from "./http/http-connection.ts";
import { routesOf } from "./http/http-decision.ts";
import type { HttpRoutes } from "./http/http-decision.ts";
import type { ReadyEnd } from "./http/http-ends.ts";
import { Http2Connection } from "./http2/http2-connection.ts";
import { openInbound } from "./open-stream.ts";
import { AppDialer } from "./pass.ts";
import type { Impersonated } from "./pass.ts";
import { PortTaps } from "./taps/port-taps.ts";
import { PortProbes } from "./probes.ts";
import type { IdleSessions } from "./http2/idle-sessions.ts";
import { copyHttp } from "./taps/tap-http.ts";
import type { TapPace } from "./taps/tap-pace.ts";
import type { TapRoom } from "./taps/tap-room.ts";
import type { TlsCertificates } from "./tls/tls-certificates.ts";
import type { ClientHello } from "./tls/tls-hello.ts";
import { TlsPort } from "./tls/tls-port.ts";
import type { Ways } from "./tls/tls-port.ts";

/** chosen: finds callers that vanished without a word. */
const keepAliveMs = 60_000;
/** chosen: how long a caller may be silent before a refusal is told by a reset, not by an answer of HTTP. */
const refusedMs = 1000;
/**
 * chosen: the kubelet closes as soon as it is connected, and is on the same node. Who speaks does not wait, only callers
 * who wait for the server's first word do.
 */
const silentProbeMs = 20;

/** chosen: by then most requests are answered, and what their copies cost the agent delays nobody. */
const copyLaterMs = 5;
/** A copy goes on without its caller, who may have been answered and left. */
const whoeverLeaves = new AbortController().signal;

export interface CaptureOptions {
  readonly port: AgentPort;
  /** Those that the pod declares, of all its ports. */
  readonly podProbes: readonly PodProbe[];
  readonly served: ServedIntercepts;
  readonly redirect: Redirect;
  readonly passed: PassedConnections;
  readonly decisions: Decisions;
  readonly canary: Canary;
  readonly certificates: TlsCertificates;
  readonly unread: UnreadConnections;
  /** Of all ports' copies. */
  readonly room: TapRoom;
  readonly pace: TapPace;
  readonly idle: IdleSessions;
  readonly podName: string;
  readonly podIps: readonly string[];
  readonly clock: Clock;
  readonly log: Logger;
}

/** A caller as far as it is known, and what was opened for it meanwhile. */
interface Met {
  readonly caller: Socket;
  readonly first: FirstMove;
  readonly ready: ReadyEnd | undefined;
  readonly ways: Ways;
}

export class TcpCapture implements AsyncDisposable {
  readonly #options: CaptureOptions;
  readonly #server: Server;
  readonly #dialer: AppDialer;
  readonly #probes: PortProbes;
  readonly #routes: HttpRoutes;
  readonly #taps: PortTaps;
  readonly #tls: TlsPort;
  readonly #open = new Set<Socket>();
  readonly #http = new Set<HttpConnection | Http2Connection>();

  private constructor(options: CaptureOptions) {
    this.#options = options;
    this.#dialer = new AppDialer({ ...options, containerPort: options.port.containerPort });
    this.#probes = new PortProbes(options.port, options.podProbes, options.served);
    this.#routes = routesOf({ ...options, probes: this.#probes });
    this.#taps = new PortTaps(options);
    this.#tls = new TlsPort(options);
    options.served.onChange(() => {
      for (const connection of this.#http) connection.routesChanged();
    });
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

  /** The pod is ending; said again and again until no connection is left. */
  retire(): void {
    for (const connection of this.#http) connection.retire();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#open) socket.resetAndDestroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #accept(caller: Socket): Promise<void> {
    const { port, redirect, log } = this.#options;
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
      await this.#serve(caller, gone.signal);
    } catch (error) {
      // The application refuses, or the caller left: the caller sees what it would see without us.
      log.debug("connection not passed", { port: port.containerPort, reason: toAppError(error).message });
      caller.resetAndDestroy();
    }
  }

  async #serve(caller: Socket, signal: AbortSignal): Promise<void> {
    const { port, served, canary, clock } = this.#options;
    const readsTls = (): boolean => served.isRead(port) || this.#looksForProbes();
    const first = new FirstMove(caller, { mayBeHttp: port.http !== false, readsTls, clock });
    if (await takeCanary(caller, first, port, canary)) return;
    const ways = this.#waysOf(caller, signal);
    const taken = this.#find();
    const open = !this.#speaksFirst(readsTls);
    if (open && (await this.#leavesSilently(caller, first))) {
      await this.#serveSilent(caller, ways, signal);
      return;
    }
    const opened = open ? await this.#openEnd(ways, taken, signal) : undefined;
    const limitMs = open && opened === undefined ? refusedMs : undefined;
    const { protocol, ready } = await this.#protocolOf(first, opened, limitMs, () =>
      this.#openEnd(ways, undefined, signal),
    );
    // One whose address was changed on its way.
    if (protocol === "http1" && answerCanary(caller, first.bytes, canary)) {
      ready?.duplex.destroy();
      return;
    }
    if (protocol === "tls") await this.#serveTls({ caller, first, ready, ways }, signal);
    else await this.#serveAs(protocol, { caller, first, ready, ways }, signal);
  }

  /** What is inside is decided; where it cannot be read, the bytes go on as they are. */
  async #serveTls(met: Met, signal: AbortSignal): Promise<void> {
    const { caller: socket, first, ready, ways } = met;
    const application = ready?.duplex instanceof Socket ? ready.duplex : undefined;
    const { hello } = first;
    if (hello === undefined) throw new AppError("internal", "TLS without a ClientHello");
    if (!this.#mayRead(hello)) {
      await this.#serveAs("other", met, signal);
      return;
    }
    const read = await this.#tls.read({ socket, hello, first: first.bytes, ready: application, ...ways, signal });
    if (read.caller === undefined) {
      await this.#serveAs("other", { ...met, ready: await this.#leftOf(met, read.ready) }, signal);
      return;
    }
    if (application === undefined) ready?.duplex.destroy();
    const { caller, protocol } = read;
    const inside = new FirstMove(caller, { mayBeHttp: true, readsTls: () => false, clock: this.#options.clock });
    const duplex = read.application;
    const next = { caller, first: inside, ready: duplex && { duplex }, ways: read };
    await this.#serveAs(protocol === "h2" ? "http2" : await inside.protocol(duplex), next, signal);
  }

  async #serveAs(protocol: Protocol, { caller, first, ready, ways }: Met, signal: AbortSignal): Promise<void> {
    if (protocol === "http1" || protocol === "http2") {
      const connection = this.#httpConnection(protocol, caller, ready, ways);
      this.#http.add(connection);
      caller.once("close", () => this.#http.delete(connection));
      connection.start(first.bytes);
      return;
    }
    const { port, unread } = this.#options;
    if (ready === undefined && this.#isSilentProbe(caller, first)) {
      await this.#serveSilent(caller, ways, signal);
      return;
    }
    // Where nobody has said anything, somebody wanted to know whether the port is open.
    const spoken = first.bytes.length > 0 || (ready?.duplex.readableLength ?? 0) > 0;
    if (spoken && first.hello === undefined) unread.count(port, "other");
    const end = ready ?? (await this.#openEnd(ways, this.#find(), signal));
    if (end === undefined) {
      const refusal = new AppError("refused", "the laptop's process did not take the connection");
      this.#began(caller, this.#find()).cut(refusal.message);
      throw refusal;
    }
    this.#join(caller, first.bytes, end).copiedTo(this.#taps.copyConnection(caller, first.bytes, ways.openTap));
  }

  /** A caller known to speak first is asked: kubelet's probes, for one, are nothing for the laptop. */
  #speaksFirst(readsTls: () => boolean): boolean {
    const { http, tls } = this.#options.port;
    return http === true ? this.#find() !== undefined : tls === true && readsTls();
  }

  /** Kubelet dials an address, and names no server. */
  #mayRead({ serverName }: ClientHello): boolean {
    const { port, served } = this.#options;
    return served.isRead(port) || (serverName === undefined && this.#looksForProbes());
  }

  /** What is left of the end that was open, for a caller in TLS that cannot be read. */
  async #leftOf({ ready, ways }: Met, application: Socket | undefined): Promise<ReadyEnd | undefined> {
    const { port, served } = this.#options;
    // Nobody can tell whether it is a probe: better one caller of the laptop's less than a pod that is restarted.
    if (!served.isRead(port)) return { duplex: application ?? (await ways.dialApplication()) };
    return ready?.duplex instanceof Socket ? application && { duplex: application } : ready;
  }

  /** Where such probes are declared, a caller gets the time to show that it is one. */
  async #leavesSilently(caller: Socket, first: FirstMove): Promise<boolean> {
    if (!this.#probes.comesSilently || this.#find() === undefined) return false;
    await first.protocol(undefined, silentProbeMs);
    return this.#isSilentProbe(caller, first);
  }

  /** It opened a connection to an intercepted port and closed it without a word. */
  #isSilentProbe(caller: Socket, first: FirstMove): boolean {
    const hasLeft = caller.readableEnded || caller.destroyed;
    return hasLeft && first.bytes.length === 0 && this.#find() !== undefined;
  }

  /** A TCP probe, which the laptop's process need not hear of. */
  async #serveSilent(caller: Socket, ways: Ways, signal: AbortSignal): Promise<void> {
    const { mode } = this.#probes;
    const taken = mode === "laptop" ? this.#find() : undefined;
    if (mode === "agent") {
      this.#began(caller, undefined, true).answeredByAgent(undefined);
      caller.destroySoon();
      return;
    }
    const end = await this.#openEnd(ways, taken, signal);
    if (end === undefined) caller.resetAndDestroy();
    else this.#join(caller, Buffer.alloc(0), end, true);
  }

  /** Whether probes are looked for among callers of TLS that no filter asks to be read. */
  #looksForProbes(): boolean {
    return this.#probes.comesInTls && this.#probes.mode !== "laptop" && this.#find() !== undefined;
  }

  /** Where the laptop's stream fails before anybody spoke, the application is opened instead. */
  async #protocolOf(
    first: FirstMove,
    opened: ReadyEnd | undefined,
    limitMs: number | undefined,
    openInstead: () => Promise<ReadyEnd | undefined>,
  ): Promise<{ readonly protocol: Protocol; readonly ready: ReadyEnd | undefined }> {
    try {
      return { protocol: await first.protocol(opened?.duplex, limitMs), ready: opened };
    } catch (error) {
      opened?.duplex.destroy();
      if (opened?.taken === undefined) throw error;
      const ready = await openInstead();
      return { protocol: await first.protocol(ready?.duplex), ready };
    }
  }

  #find(): Taken | undefined {
    const { port, served } = this.#options;
    return served.whole(port);
  }

  /** Undefined when the laptop's process refused and the application is not to answer instead. */
  async #openEnd(ways: Ways, taken: Taken | undefined, signal: AbortSignal): Promise<ReadyEnd | undefined> {
    if (taken !== undefined) {
      try {
        return { duplex: await ways.openLaptop(taken), taken };
      } catch (error) {
        signal.throwIfAborted();
        const reason = toAppError(error);
        if (taken.onRefused === "fail" && isAppError(reason, "refused")) return undefined;
        const { interceptId } = taken;
        this.#options.log.info("connection left to the application", { interceptId, reason: reason.message });
        return { duplex: await ways.dialApplication(), refused: taken, reason: reason.message };
      }
    }
    return { duplex: await ways.dialApplication() };
  }

  #waysOf(caller: Socket, signal: AbortSignal): Ways {
    const source = sourceOf(caller);
    return {
      dialApplication: () => this.#dial(caller, signal),
      openLaptop: (taken) => this.#openLaptop(source, taken, signal),
      openTap: async (tap) => {
        await this.#options.clock.sleep(copyLaterMs, whoeverLeaves);
        return await this.#openLaptop(source, tap, whoeverLeaves);
      },
    };
  }

  async #openLaptop(source: Endpoint, taken: Taken, signal: AbortSignal): Promise<TunnelStream> {
    const { port, podName, clock } = this.#options;
    const request = { protocol: "tcp", containerPort: port.containerPort, source, podName } as const;
    return await openInbound({ taken, request, clock, signal });
  }

  async #dial(caller: Socket, signal: AbortSignal): Promise<Socket> {
    const application = await this.#dialer.dial(caller.localAddress, signal, this.#impersonate(caller));
    return application.on("error", () => undefined); // 'close' follows; it may come before anybody listens
  }

  #httpConnection(
    protocol: "http1" | "http2",
    caller: Socket,
    ready: ReadyEnd | undefined,
    ways: Ways,
  ): HttpConnection | Http2Connection {
    const { port, passed, idle, clock, log } = this.#options;
    const taps = this.#taps;
    const parts = { caller, ready, routes: this.#routes, ...ways, clock, log };
    if (protocol === "http2") return new Http2Connection({ ...parts, taps, idle });
    const copy: HttpConnectionOptions["copy"] = (request) => copyHttp(taps, request, ways.openTap);
    const onPassed = (application: Socket): void => passed.track(port, { caller, application });
    return new HttpConnection({ ...parts, copy, onPassed });
  }

  #began(caller: Socket, taken: Taken | undefined, isProbe = false): Outcome {
    const { port, served, decisions } = this.#options;
    const source = plainAddress(caller.remoteAddress ?? "");
    return decisions.add({ containerPort: port.containerPort, source, asked: served.of(port), taken, isProbe });
  }

  #join(caller: Socket, bytes: Buffer, { duplex, taken, refused, reason }: ReadyEnd, isProbe = false): Outcome {
    const outcome = this.#began(caller, taken ?? refused, isProbe);
    if (caller.destroyed) {
      duplex.destroy();
      outcome.cut("the caller left");
      return outcome;
    }
    if (reason !== undefined) outcome.leftToApplication(reason);
    caller.once("close", () => outcome.answered(undefined));
    if (taken === undefined && duplex instanceof Socket)
      this.#options.passed.track(this.#options.port, { caller, application: duplex });
    if (bytes.length > 0) duplex.write(bytes);
    taken?.opener.hold(duplex);
    joinDuplex(caller, duplex);
    return outcome;
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
