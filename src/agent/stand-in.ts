// The stand-in: runs in the place of an application's container that a laptop's process replaces. The kubelet's probes
// are answered with success, so that the pod goes on; everybody else, who comes only when no laptop takes the traffic,
// is told at once who replaced the application. It is no application: nothing is served here, and nothing hangs. UDP ports
// stay closed: no datagram would say it in every protocol, while of a closed port the agent can tell in `why`.
// Invariants: whatever a caller sends ends its own connection only; every wait has its deadline.
import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import { performServerHandshake } from "node:http2";
import type { IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import { createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import type { Clock } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import { recogniseHttp } from "#http/recognise.ts";
import { createIdentity } from "#tunnel/identity.ts";
import type { StandIn } from "#wire/stand-in.ts";
import { Fields, answerProbe, askedOf, ownAnswer, sendOn } from "./inbound/http2/http2-messages.ts";
import { isProbe } from "./inbound/probes.ts";

/** chosen: callers of HTTP speak at once; any other protocol is none that could be answered. */
const silenceMs = 1000;
/** chosen: nobody asks for more than an answer of a few lines. */
const connectionMs = 10_000;
/** chosen: more is only a queue. */
const maxConnections = 1024;
/** protocol: of the record that begins a TLS handshake (RFC 8446 §5.1). */
const handshakeRecord = 22;

export interface StandInServer extends AsyncDisposable {
  readonly ports: readonly number[];
}

export interface StandInOptions {
  readonly standIn: StandIn;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Listens on all of the ports that it can have; one that it cannot is logged. */
export async function startStandIn({ standIn, clock, log }: StandInOptions): Promise<StandInServer> {
  const { container, workload, by } = standIn;
  const text = `telepresence: container ${container} of ${workload} is replaced by ${by}, whose process does not answer now`;
  const answers = new Answers(text);
  const servers: Server[] = [];
  const open = new Set<Socket>();
  const accept = (socket: Socket): void => {
    open.add(socket);
    const limit = clock.after(connectionMs, () => socket.destroy()).unref();
    socket.on("error", () => undefined); // 'close' follows
    socket.once("close", () => {
      open.delete(socket);
      limit[Symbol.dispose]();
    });
    answers.take(socket, clock);
  };
  for (const port of standIn.ports) {
    const server = await listen(port, accept).catch((error: unknown) => {
      log.warn("stand-in does not listen", { port, reason: String(error) });
      return undefined;
    });
    if (server !== undefined) servers.push(server);
  }
  log.info("stand-in started", { container, workload, by, ports: servers.length });
  return {
    ports: servers.map((server) => (server.address() as AddressInfo).port),
    [Symbol.asyncDispose]: async () => {
      for (const socket of open) socket.destroy();
      await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
    },
  };
}

async function listen(port: number, accept: (socket: Socket) => void): Promise<Server> {
  const server = createServer({ noDelay: true }, accept);
  server.maxConnections = maxConnections;
  server.listen(port);
  await once(server, "listening");
  return server;
}

/** What a connection is told, by the protocol of its first bytes. */
class Answers {
  readonly #text: string;
  readonly #http = createHttpServer({ keepAlive: false }, (request, response) => this.#answer(request, response));
  readonly #tls;

  constructor(text: string) {
    this.#text = text;
    // The kubelet does not ask whose certificate it is, and nobody else is to believe it.
    const { certificatePem: cert, privateKeyPem: key } = createIdentity("stand-in");
    this.#tls = createTlsServer(
      { cert, key, ALPNProtocols: ["http/1.1"], handshakeTimeout: connectionMs },
      (socket) => {
        socket.on("error", () => undefined);
        this.#http.emit("connection", socket);
      },
    );
    this.#tls.on("tlsClientError", (_error, socket) => socket.destroy());
  }

  take(socket: Socket, clock: Clock): void {
    const silence = clock.after(silenceMs, () => socket.destroy()).unref();
    socket.once("close", () => silence[Symbol.dispose]());
    let seen: Buffer = Buffer.alloc(0);
    const onBytes = (bytes: Buffer): void => {
      seen = Buffer.concat([seen, bytes]);
      const kind = seen[0] === handshakeRecord ? "tls" : recogniseHttp(seen);
      if (kind === "more") return;
      silence[Symbol.dispose]();
      socket.off("data", onBytes).pause();
      socket.unshift(seen);
      if (kind === "tls") this.#tls.emit("connection", socket);
      else if (kind === "http1") this.#serveHttp1(socket);
      else if (kind === "http2") this.#serveHttp2(socket);
      else socket.destroy();
    };
    socket.on("data", onBytes).once("end", () => socket.destroySoon());
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const headers = [{ name: "user-agent", value: request.headers["user-agent"] ?? "" }];
    const probed = isProbe({ method: request.method ?? "", target: request.url ?? "", authority: "", headers });
    request.resume();
    response.writeHead(probed ? 200 : 503, {
      "content-type": "text/plain; charset=utf-8",
      "cache-control": "no-store",
      connection: "close",
    });
    response.end(`${probed ? "answered by the stand-in" : this.#text}\n`);
  }

  #serveHttp1(socket: Socket): void {
    this.#http.emit("connection", socket);
    socket.resume();
  }

  #serveHttp2(socket: Socket): void {
    const session = performServerHandshake(socket);
    session.on("error", () => undefined); // 'close' follows
    session.on("stream", (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, _flags: number, list: string[]) => {
      stream.on("error", () => undefined);
      sendOn(stream, () => this.#answerStream(stream, new Fields(list, headers)));
    });
  }

  #answerStream(stream: ServerHttp2Stream, fields: Fields): void {
    const asked = askedOf(fields);
    if (isProbe(asked)) {
      answerProbe(stream, asked);
      return;
    }
    stream.resume();
    const { headers, body } = ownAnswer(asked, this.#text);
    const status = headers[":status"] === 200 ? 200 : 503; // gRPC says it in its own way
    stream.respond({ ...headers, ":status": status }, { endStream: body === undefined });
    if (body !== undefined) stream.end(body);
  }
}
