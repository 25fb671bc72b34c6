// The two ends of HTTP in these tests, both Node's own: servers that say who they are and what they got, and callers
// that keep one connection each.
import { createHash } from "node:crypto";
import { once } from "node:events";
import { Agent as HttpAgent, createServer, request } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";

export interface HttpServer extends AsyncDisposable {
  readonly port: number;
  readonly server: Server;
  /** Method and path of each request, in order. */
  readonly seen: string[];
}

export type Answer = (request: IncomingMessage, response: ServerResponse, body: Buffer) => void;

/** Answers `<name> <method> <path> <bytes> <hash>` to everything, and echoes upgraded bytes after `<name>:`. */
export async function httpServer(name: string, answer: Answer = answerAs(name)): Promise<HttpServer> {
  const seen: string[] = [];
  const server = createServer({ noDelay: true }, (incoming, response) => {
    const chunks: Buffer[] = [];
    incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
    incoming.on("error", () => undefined);
    incoming.on("end", () => {
      seen.push(`${incoming.method} ${incoming.url}`);
      answer(incoming, response, Buffer.concat(chunks));
    });
  });
  server.on("upgrade", (incoming: IncomingMessage, socket: Duplex) => {
    seen.push(`${incoming.method} ${incoming.url}`);
    socket.on("error", () => undefined);
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n${name}:`);
    socket.on("data", (chunk: Buffer) => socket.write(chunk));
    socket.on("end", () => socket.end());
  });
  const sockets = new Set<Socket>();
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  server.keepAliveTimeout = 60_000;
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    server,
    seen,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      if (server.listening) await new Promise((resolve) => server.close(resolve));
    },
  };
}

export function answerAs(name: string): Answer {
  return (incoming, response, body) => response.end(describe(name, incoming.method ?? "", incoming.url ?? "", body));
}

export function describe(name: string, method: string, path: string, body: Buffer): string {
  return `${name} ${method} ${path} ${body.length} ${createHash("sha1").update(body).digest("hex").slice(0, 8)}`;
}

export interface Got {
  readonly status: number;
  readonly body: string;
  readonly headers: IncomingMessage["headers"];
  readonly trailers: IncomingMessage["trailers"];
  /** What came before the answer: 100, 103. */
  readonly interim: readonly number[];
  readonly localPort: number | undefined;
}

export interface Asked {
  readonly method?: string;
  readonly path?: string;
  readonly body?: Buffer;
  readonly chunked?: boolean;
  readonly headers?: Record<string, string>;
  /** The answer has begun. */
  readonly onHead?: () => unknown;
}

/** One connection, kept as long as the server keeps it. */
export class KeptCaller implements Disposable {
  readonly #port: number;
  readonly #agent = new HttpAgent({ keepAlive: true, maxSockets: 1 });

  constructor(port: number) {
    this.#port = port;
  }

  async ask(asked: Asked = {}): Promise<Got> {
    const { method = "GET", path = "/", body, chunked = false, headers = {} } = asked;
    const length: Record<string, string> = body === undefined || chunked ? {} : { "content-length": `${body.length}` };
    const outgoing = request({
      host: "127.0.0.1",
      port: this.#port,
      method,
      path,
      agent: this.#agent,
      headers: { ...length, ...headers },
    });
    const interim: number[] = [];
    let localPort: number | undefined;
    outgoing.on("socket", (socket) => {
      const know = (): void => void (localPort = socket.localPort);
      if (socket.connecting) socket.once("connect", know);
      else know();
    });
    outgoing.on("information", ({ statusCode }) => interim.push(statusCode));
    const { promise, resolve, reject } = Promise.withResolvers<Got>();
    outgoing.on("error", reject);
    outgoing.on("response", (response) => {
      asked.onHead?.();
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => {
        const { statusCode = 0, headers: got, trailers } = response;
        resolve({
          status: statusCode,
          body: Buffer.concat(chunks).toString(),
          headers: got,
          trailers,
          interim,
          localPort,
        });
      });
    });
    outgoing.on("upgrade", (_response, socket, first) => {
      let text = first.toString();
      socket.on("error", reject);
      socket.on("close", () => reject(new Error("the upgraded connection was closed")));
      socket.on("data", (chunk: Buffer) => {
        text += chunk.toString();
        if (text.endsWith("ping")) resolve({ status: 101, body: text, headers: {}, trailers: {}, interim, localPort });
      });
      socket.write("ping");
      if (text.endsWith("ping")) resolve({ status: 101, body: text, headers: {}, trailers: {}, interim, localPort });
    });
    if (headers["expect"] !== undefined) {
      outgoing.flushHeaders();
      outgoing.once("continue", () => outgoing.end(body));
    } else {
      outgoing.end(body);
    }
    return await promise;
  }

  [Symbol.dispose](): void {
    this.#agent.destroy();
  }
}
