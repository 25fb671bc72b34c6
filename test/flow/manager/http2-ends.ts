// The two ends of HTTP/2 in these tests, Node's own: servers that say who they are and what they got, and callers that
// keep one connection. `grpc-ends.ts` has those of gRPC.
import { once } from "node:events";
import { connect, createServer } from "node:http2";
import type {
  ClientHttp2Session,
  ClientHttp2Stream,
  Http2Server,
  IncomingHttpHeaders,
  OutgoingHttpHeaders,
  ServerHttp2Session,
  ServerHttp2Stream,
  Settings,
} from "node:http2";
import { connect as connectTcp } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { describe as describeRequest } from "./http-ends.ts";

export interface Http2TestServer extends AsyncDisposable {
  readonly port: number;
  readonly server: Http2Server;
  readonly sessions: Set<ServerHttp2Session>;
  /** Method and path of each request, in order, as it began. */
  readonly seen: string[];
}

export type OnStream = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, list: readonly string[]) => void;

/** Answers `<name> <method> <path> <bytes> <hash>`, unless the test answers. */
export async function http2Server(
  name: string,
  onStream: OnStream = answerAs(name),
  settings: Settings = {},
): Promise<Http2TestServer> {
  const seen: string[] = [];
  const sessions = new Set<ServerHttp2Session>();
  const sockets = new Set<Socket>();
  const server = createServer({ settings });
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.setNoDelay(true); // Node does so for HTTP/1.1 alone
    socket.on("error", () => undefined);
    socket.once("close", () => sockets.delete(socket));
  });
  server.on("session", (session) => {
    sessions.add(session);
    session.on("error", () => undefined);
    session.once("close", () => sessions.delete(session));
  });
  server.on("stream", (stream: ServerHttp2Stream, headers, _flags, list) => {
    seen.push(`${headers[":method"]} ${headers[":path"]}`);
    stream.on("error", () => undefined);
    onStream(stream, headers, list);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    server,
    sessions,
    seen,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      if (server.listening) await new Promise((resolve) => server.close(resolve));
    },
  };
}

export function answerAs(name: string): OnStream {
  return (stream, headers) => {
    const chunks: Buffer[] = [];
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("end", () => {
      if (stream.closed) return;
      stream.respond({ ":status": 200 });
      stream.end(describeRequest(name, headers[":method"] ?? "", headers[":path"] ?? "", Buffer.concat(chunks)));
    });
  };
}

export interface Http2Got {
  readonly status: number;
  readonly body: string;
  readonly headers: IncomingHttpHeaders;
  readonly trailers: IncomingHttpHeaders;
}

export interface Http2Asked {
  readonly method?: string;
  readonly path?: string;
  readonly body?: Buffer;
  readonly headers?: OutgoingHttpHeaders;
  readonly onHead?: (stream: ClientHttp2Stream) => unknown;
}

/** One connection, kept. */
export class KeptHttp2Caller implements Disposable {
  readonly session: ClientHttp2Session;
  readonly socket: Socket;
  goaways = 0;

  constructor(port: number, settings: Settings = {}, socket = connectTcp({ port, host: "127.0.0.1", noDelay: true })) {
    this.socket = socket;
    this.socket.on("error", () => undefined);
    this.session = connect("http://shop", { settings, createConnection: () => this.socket });
    this.session.on("error", () => undefined);
    this.session.on("goaway", () => (this.goaways += 1));
  }

  get localPort(): number | undefined {
    return this.socket.localPort;
  }

  stream({ method = "GET", path = "/", headers = {}, body }: Http2Asked = {}): ClientHttp2Stream {
    const asked = { ":method": method, ":path": path, ...headers };
    return this.session.request(asked, { endStream: body === undefined && !["POST", "PUT"].includes(method) });
  }

  /** Rejects when the answer did not come whole. */
  async ask(asked: Http2Asked = {}): Promise<Http2Got> {
    const stream = this.stream(asked);
    if (asked.body !== undefined) stream.end(asked.body);
    return await answerOf(stream, asked.onHead);
  }

  [Symbol.dispose](): void {
    this.session.destroy();
    this.socket.destroy();
  }
}

/** Rejects with the code of the reset when the answer did not come whole. */
export async function answerOf(stream: ClientHttp2Stream, onHead?: Http2Asked["onHead"]): Promise<Http2Got> {
  const { promise, resolve, reject } = Promise.withResolvers<Http2Got>();
  const chunks: Buffer[] = [];
  let headers: IncomingHttpHeaders = {};
  let trailers: IncomingHttpHeaders = {};
  let whole = false;
  stream.on("error", () => undefined);
  stream.on("response", (got) => {
    headers = got;
    onHead?.(stream);
  });
  stream.on("trailers", (got) => (trailers = got));
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  stream.on("end", () => (whole = stream.rstCode === 0 && !stream.destroyed && headers[":status"] !== undefined));
  stream.on("close", () => {
    const status = Number(headers[":status"] ?? 0);
    if (whole) resolve({ status, body: Buffer.concat(chunks).toString(), headers, trailers });
    else reject(new Error(`reset with ${stream.rstCode} after ${status} and ${Buffer.concat(chunks).length} bytes`));
  });
  return await promise;
}
