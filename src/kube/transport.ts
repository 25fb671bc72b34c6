// HTTP/1.1 to the API server over kept connections: authentication, deadlines, one retry for a connection that the
// server had already closed or credentials it no longer takes. Everything above speaks through `KubeTransport`.
import type { Duplex } from "node:stream";
import type { ClientRequest, IncomingMessage, OutgoingHttpHeaders } from "node:http";
import { Agent, request as requestHttp } from "node:http";
import { deadline, linkSignals } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import { softwareVersion } from "#base/version.ts";
import type { Credentials, RunCommand } from "./auth.ts";
import { Authenticator } from "./auth.ts";
import { openSocket, parseProxy, proxyHint, proxyName } from "./proxy.ts";
import { networkError } from "./status.ts";
import type { KubeTarget } from "./target.ts";

export interface RawRequest {
  readonly method: "GET" | "POST" | "PATCH" | "PUT" | "DELETE";
  /** Below the server's URL, query included. */
  readonly path: string;
  readonly body?: { readonly type: string; readonly text: string };
}

/** What a WebSocket needs to open by the same way as requests. */
export interface UpgradeWay {
  readonly url: string;
  readonly agent: Agent;
  readonly headers: OutgoingHttpHeaders;
  /** TLS below: WebSocket masking protects nothing and may be skipped. */
  readonly encrypted: boolean;
}

/** A server that does not answer a SYN within this is called unreachable. Chosen; clusters behind VPNs answer in < 2 s. */
const connectMs = 10_000;
/** Each watch keeps one; far above what a session of many namespaces needs. Chosen. */
const maxSockets = 256;
const maxFreeSockets = 8;
/** Chosen: a list of 10,000 pods is about 60 MB. Lists are paged, so this is far above need. */
const maxBodyBytes = 64 * 1024 * 1024;

export interface TransportOptions {
  readonly clock: Clock;
  readonly runCommand: RunCommand | undefined;
}

export class KubeTransport {
  readonly target: KubeTarget;
  readonly clock: Clock;
  readonly #authenticator: Authenticator;
  readonly #closing = new AbortController();
  #renewing = new AbortController();
  #agent: { readonly identity: string; readonly agent: Agent } | undefined;

  constructor(target: KubeTarget, options: TransportOptions) {
    this.target = target;
    this.clock = options.clock;
    this.#authenticator = new Authenticator(target, options.clock, options.runCommand);
  }

  /** The answer's head, whatever its status; the body is the caller's to read or destroy. */
  async send(request: RawRequest, signal: AbortSignal): Promise<IncomingMessage> {
    using linked = linkSignals(signal, this.#closing.signal);
    let response = await this.#sendOnce(request, linked.signal);
    if (response.statusCode === 401 && this.#authenticator.invalidate()) {
      response.destroy();
      response = await this.#sendOnce(request, linked.signal);
    }
    const refusal = response.statusCode === 401 ? this.#authenticator.explainRefusal() : undefined;
    if (refusal === undefined) return response;
    response.destroy();
    throw refusal;
  }

  /** Status and whole body. */
  async fetchText(
    request: RawRequest,
    signal: AbortSignal,
  ): Promise<{ readonly status: number; readonly body: string }> {
    const response = await this.send(request, signal);
    using linked = linkSignals(signal, this.#closing.signal);
    return { status: response.statusCode ?? 0, body: await this.#readBody(response, linked.signal) };
  }

  /** For WebSockets: fresh credentials and the pool's way of connecting. */
  async upgradeWay(path: string, signal: AbortSignal): Promise<UpgradeWay> {
    const credentials = await this.#authenticator.credentials(signal);
    const base = new URL(this.target.server);
    return {
      url: `ws://${base.host}${base.pathname.replace(/\/$/, "")}${path}`,
      agent: this.#agentFor(credentials),
      headers: { ...this.#headersOf(credentials), Host: base.host },
      encrypted: credentials.tls !== undefined,
    };
  }

  /** The server refused a WebSocket's credentials: true when others can be had. */
  invalidateCredentials(): boolean {
    return this.#authenticator.invalidate();
  }

  /**
   * After a sleep or a change of network kept connections are dead: each would take a request's whole time, and a watch
   * would be silent for minutes.
   */
  renew(): void {
    closeIdle(this.#agent?.agent);
    const before = this.#renewing;
    this.#renewing = new AbortController();
    before.abort(new AppError("link_lost", "connections to the cluster are made anew"));
  }
  /** Aborts at the next `renew`: for answers that go on. */
  get renewed(): AbortSignal {
    return this.#renewing.signal;
  }

  close(): void {
    this.#closing.abort(new AppError("cancelled", "the connection to the cluster was closed"));
    this.#agent?.agent.destroy();
    this.#agent = undefined;
  }

  async #sendOnce(request: RawRequest, signal: AbortSignal): Promise<IncomingMessage> {
    signal.throwIfAborted();
    const credentials = await this.#authenticator.credentials(signal);
    for (let attempt = 0; ; attempt++) {
      const { outgoing, answered } = this.#start(request, credentials, signal);
      try {
        return await answered;
      } catch (error) {
        if (signal.aborted) throw signal.reason;
        // A kept connection that the server closed meanwhile; every write of ours may be sent twice (installer/ checks).
        if (outgoing.reusedSocket && attempt < maxFreeSockets) continue;
        throw networkError(this.target, error);
      }
    }
  }

  #start(
    request: RawRequest,
    credentials: Credentials,
    signal: AbortSignal,
  ): { readonly outgoing: ClientRequest; readonly answered: Promise<IncomingMessage> } {
    const base = new URL(this.target.server);
    const headers: OutgoingHttpHeaders = {
      ...this.#headersOf(credentials),
      Accept: "application/json",
      Host: base.host,
    };
    if (request.body !== undefined) {
      headers["Content-Type"] = request.body.type;
      headers["Content-Length"] = Buffer.byteLength(request.body.text);
    }
    const outgoing = requestHttp({
      agent: this.#agentFor(credentials),
      host: base.hostname.replace(/^\[|\]$/g, ""),
      port: portOf(base),
      path: `${base.pathname.replace(/\/$/, "")}${request.path}`,
      method: request.method,
      headers,
      signal,
    });
    const answered = new Promise<IncomingMessage>((resolve, reject) => {
      outgoing.once("response", resolve);
      outgoing.on("error", reject);
    });
    outgoing.end(request.body?.text);
    return { outgoing, answered };
  }

  #headersOf(credentials: Credentials): OutgoingHttpHeaders {
    const headers: OutgoingHttpHeaders = { "User-Agent": `telepresence/${softwareVersion}` };
    for (const [name, value] of Object.entries(credentials.headers)) {
      headers[name] = typeof value === "string" ? value : [...value];
    }
    return headers;
  }

  #agentFor(credentials: Credentials): Agent {
    if (this.#agent?.identity === credentials.identity) return this.#agent.agent;
    closeIdle(this.#agent?.agent);
    const agent = new RoutedAgent(this.target, credentials, this.clock);
    this.#agent = { identity: credentials.identity, agent };
    return agent;
  }

  async #readBody(response: IncomingMessage, signal: AbortSignal): Promise<string> {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const onAbort = (): void => void response.destroy(signal.reason as Error);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      for await (const chunk of response as AsyncIterable<Buffer>) {
        bytes += chunk.length;
        if (bytes > maxBodyBytes) {
          throw new AppError("protocol", `the API server's answer is longer than ${maxBodyBytes} bytes`);
        }
        chunks.push(chunk);
      }
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      throw networkError(this.target, error);
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
    return Buffer.concat(chunks).toString("utf8");
  }
}

/** A pool whose sockets are made by `openSocket`: TLS and proxies are its matter, not node:http's. */
class RoutedAgent extends Agent {
  readonly #target: KubeTarget;
  readonly #credentials: Credentials;
  readonly #clock: Clock;

  constructor(target: KubeTarget, credentials: Credentials, clock: Clock) {
    super({ keepAlive: true, maxSockets, maxFreeSockets, scheduling: "lifo" });
    this.#target = target;
    this.#credentials = credentials;
    this.#clock = clock;
  }

  override createConnection(
    _options: unknown,
    onSocket?: (error: Error | null, socket: Duplex) => void,
  ): Duplex | null | undefined {
    void this.#open().then(
      (socket) => onSocket?.(null, socket),
      (error: unknown) => (onSocket as ((error: unknown) => void) | undefined)?.(error),
    );
    return undefined;
  }

  async #open(): Promise<Duplex> {
    const { server, contextName, proxyUrl } = this.#target;
    const base = new URL(server);
    const proxy = proxyUrl === undefined ? "" : ` through proxy ${proxyName(parseProxy(proxyUrl))}`;
    const what = `connecting to cluster ${server}${contextName === "" ? "" : ` (context ${contextName})`}${proxy}`;
    using limit = deadline(this.#clock, connectMs, what);
    try {
      const { tls } = this.#credentials;
      const host = base.hostname.replace(/^\[|\]$/g, "");
      return await openSocket({ host, port: portOf(base), tls, proxyUrl }, limit.signal);
    } catch (error) {
      if (!limit.signal.aborted) throw error;
      throw new AppError("cluster_unreachable", `${(limit.signal.reason as Error).message}: no answer`, {
        cause: limit.signal.reason,
        hint: proxyUrl === undefined ? "check that the cluster runs, the network (a VPN?), and the context" : proxyHint,
      });
    }
  }
}

function portOf(url: URL): number {
  if (url.port !== "") return Number(url.port);
  return url.protocol === "https:" ? 443 : 80;
}

function closeIdle(agent: Agent | undefined): void {
  for (const sockets of Object.values(agent?.freeSockets ?? {})) {
    for (const socket of sockets ?? []) socket.destroy();
  }
}
