// A stand-in for the API server, of plain http or https: the test answers each request itself. WebSocket upgrades go to `onUpgrade`.
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { createServer } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import type { Clock } from "#base/clock.ts";
import { WebSocketServer } from "ws";
import { certificatePem, privateKeyPem } from "./certificate.fake.ts";
import type { WebSocket } from "ws";
import type { RunCommand } from "./auth.ts";
import type { Kube } from "./client.ts";
import { openKube } from "./client.ts";
import { planTarget } from "./config.ts";
import { mergeConfigs } from "./kubeconfig.ts";
import type { KubeTarget } from "./target.ts";

export interface FakeRequest {
  readonly method: string;
  /** Path without the query. */
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
}

export type Answer = (request: FakeRequest, response: ServerResponse) => void;

export class FakeApiServer implements AsyncDisposable {
  readonly requests: FakeRequest[] = [];
  readonly sockets = new Set<Socket>();
  /** How many connections there have been. */
  connections = 0;
  readonly #server: Server;
  readonly #webSockets = new WebSocketServer({
    noServer: true,
  });
  readonly #kubes: Kube[] = [];
  answer: Answer = (_request, response) => sendStatus(response, 404, "NotFound", "not found");
  onUpgrade: (socket: WebSocket, request: IncomingMessage) => void = () => undefined;
  /** Upgrades to SPDY, the answer to them included. */
  onSpdy: (socket: Socket, request: IncomingMessage) => void = (socket) => void socket.destroy();
  /** Refuses upgrades with this Status instead. */
  refuseUpgrade: (request: IncomingMessage) => { readonly code: number; readonly message: string } | undefined = () =>
    undefined;
  /** Those that the node knows itself, as before Kubernetes 1.31. */
  acceptProtocol: (offered: readonly string[]) => string | false = (offered) =>
    offered.find((name) => name.endsWith(".channel.k8s.io")) ?? offered[0] ?? false;

  readonly #scheme: string;

  constructor({ secure = false }: { readonly secure?: boolean } = {}) {
    const handle = (request: IncomingMessage, response: ServerResponse): void => void this.#handle(request, response);
    this.#server = secure
      ? createHttpsServer({ key: privateKeyPem, cert: certificatePem }, handle)
      : createServer(handle);
    this.#scheme = secure ? "https" : "http";
    this.#server.on("connection", (socket: Socket) => {
      this.sockets.add(socket);
      this.connections += 1;
      socket.on("close", () => this.sockets.delete(socket));
    });
    this.#server.on("upgrade", (request: IncomingMessage, socket: Socket, head: Buffer) => {
      const refusal = this.refuseUpgrade(request);
      if (refusal !== undefined) {
        const { code, message } = refusal;
        const body = JSON.stringify({ kind: "Status", message });
        socket.end(`HTTP/1.1 ${code} No\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`);
        return;
      }
      if (request.headers.upgrade === "SPDY/3.1") {
        this.onSpdy(socket, request);
        return;
      }
      this.#agree(request);
      this.#webSockets.handleUpgrade(request, socket, head, (webSocket) => this.onUpgrade(webSocket, request));
    });
  }

  /** `ws` takes no names with a slash, which Kubernetes has, so the answer's header is written here. */
  #agree({ headers }: IncomingMessage): void {
    const offered = (headers["sec-websocket-protocol"] ?? "").split(/, */);
    delete headers["sec-websocket-protocol"];
    const accepted = this.acceptProtocol(offered);
    const answer = (lines: string[]): void => void (accepted && lines.push(`Sec-WebSocket-Protocol: ${accepted}`));
    this.#webSockets.once("headers", answer);
  }

  async listen(): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    return this;
  }
  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }
  target(change: Partial<KubeTarget> = {}): KubeTarget {
    return { ...plainTarget(`${this.#scheme}://127.0.0.1:${this.port}`), ...change };
  }
  /** A client that is closed with the server. */
  open(
    change: Partial<KubeTarget> = {},
    more: { readonly clock?: Clock; readonly runCommand?: RunCommand } = {},
  ): Kube {
    const kube = openKube(this.target(change), more);
    this.#kubes.push(kube);
    return kube;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    for (const kube of this.#kubes) kube.close();
    this.#webSockets.close();
    this.#server.closeAllConnections();
    for (const socket of this.sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const url = new URL(request.url ?? "/", "http://fake");
    const seen = {
      method: request.method ?? "",
      path: url.pathname,
      query: url.searchParams,
      headers: request.headers,
      body: Buffer.concat(chunks).toString("utf8"),
    };
    this.requests.push(seen);
    this.answer(seen, response);
  }
}

export function plainTarget(server: string): KubeTarget {
  const config = JSON.stringify({
    "current-context": "test",
    contexts: [{ name: "test", context: { cluster: "c", user: "alice" } }],
    clusters: [{ name: "c", cluster: { server } }],
    users: [{ name: "alice", user: { token: "secret" } }],
  });
  return planTarget(
    mergeConfigs([{ path: "/home/alice/.kube/config", text: config }]),
    { flags: {}, cwd: "/", env: {} },
    [],
  );
}

export function sendJson(response: ServerResponse, object: unknown, code = 200): void {
  response.writeHead(code, { "Content-Type": "application/json" }).end(JSON.stringify(object));
}

export function sendStatus(response: ServerResponse, code: number, reason: string, message: string): void {
  sendJson(response, { kind: "Status", status: "Failure", code, reason, message }, code);
}
