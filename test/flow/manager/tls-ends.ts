// The two ends of TLS in these tests, both Node's own: servers of HTTP/1.1 and HTTP/2 that note whom their callers wanted,
// and callers that keep one connection each; and the volume that a pod has its certificate in.
import { once } from "node:events";
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { connect as connectHttp2, createSecureServer } from "node:http2";
import type { ClientHttp2Session, Http2SecureServer, Http2ServerRequest } from "node:http2";
import { Agent, request } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls, createSecureContext } from "node:tls";
import type { TLSSocket, TlsOptions } from "node:tls";
import { fingerprintOf } from "#tunnel/identity.ts";
import type { Identity } from "#tunnel/identity.ts";
import type { CertificateVolume } from "#wire/agent-api.ts";
import { answerOf } from "./http2-ends.ts";
import { describe } from "./http-ends.ts";

export interface SecureServer extends AsyncDisposable {
  readonly port: number;
  readonly server: Http2SecureServer;
  readonly sockets: ReadonlySet<Socket>;
  /** Of each request: SNI, ALPN, method, path. */
  readonly seen: string[];
}

/** Answers `<name> <method> <path> <bytes> <hash>` in HTTP/1.1 and HTTP/2. */
export async function secureServer(name: string, identity: Identity, options: TlsOptions = {}): Promise<SecureServer> {
  const seen: string[] = [];
  const sockets = new Set<Socket>();
  const { certificatePem: cert, privateKeyPem: key } = identity;
  const server = createSecureServer({ allowHTTP1: true, cert, key, ...options });
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.once("close", () => sockets.delete(socket));
  });
  server.on("tlsClientError", () => undefined);
  server.on("sessionError", () => undefined);
  server.on("request", (incoming, response) => {
    const chunks: Buffer[] = [];
    const { servername, alpnProtocol } = socketOf(incoming);
    incoming.on("error", () => undefined);
    incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
    incoming.on("end", () => {
      seen.push(`${String(servername)} ${String(alpnProtocol)} ${incoming.method} ${incoming.url}`);
      response.end(describe(name, incoming.method, incoming.url, Buffer.concat(chunks)));
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    server,
    sockets,
    seen,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      if (server.listening) await new Promise((resolve) => server.close(resolve));
    },
  };
}

function socketOf(incoming: Http2ServerRequest): TLSSocket & { readonly servername?: string | false } {
  return (incoming.stream?.session?.socket ?? incoming.socket) as TLSSocket & { readonly servername?: string | false };
}

export type Version = "http1" | "http2";

export interface TlsAsked {
  readonly path?: string;
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: Buffer;
}
export interface TlsGot {
  readonly status: number;
  readonly body: string;
}

/** Of all callers; making one costs as much as half a handshake. */
const secureContext = createSecureContext();

/** One connection, kept as long as the server keeps it. */
export class TlsCaller implements Disposable {
  readonly #version: Version;
  readonly #port: number;
  readonly #serverName: string;
  readonly #agent: Agent;
  #socket: TLSSocket | undefined;
  #session: ClientHttp2Session | undefined;
  /** Connections that it has made. */
  connections = 0;

  constructor(version: Version, port: number, serverName = "shop.example") {
    this.#version = version;
    this.#port = port;
    this.#serverName = serverName;
    const servername = serverName;
    const tls = { servername, secureContext, rejectUnauthorized: false, ALPNProtocols: ["http/1.1"] };
    this.#agent = new Agent({ keepAlive: true, maxSockets: 1, ...tls });
  }

  /** Of the key that it was shown. */
  get shown(): string | undefined {
    const certificate = this.#socket?.getPeerX509Certificate();
    return certificate && fingerprintOf(certificate.publicKey);
  }

  async ask(asked: TlsAsked = {}): Promise<TlsGot> {
    return this.#version === "http1" ? await this.#askHttp1(asked) : await this.#askHttp2(asked);
  }

  async #askHttp1({ path = "/", method = "GET", headers = {}, body }: TlsAsked): Promise<TlsGot> {
    const length: Record<string, string> = body === undefined ? {} : { "content-length": `${body.length}` };
    const outgoing = request({
      host: "127.0.0.1",
      port: this.#port,
      path,
      method,
      headers: { ...length, ...headers },
      agent: this.#agent,
    });
    outgoing.on("socket", (socket) => this.#keep(socket as TLSSocket));
    const { promise, resolve, reject } = Promise.withResolvers<TlsGot>();
    outgoing.on("error", reject);
    outgoing.on("response", (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() }));
    });
    outgoing.end(body);
    return await promise;
  }

  async #askHttp2({ path = "/", method = "GET", headers = {}, body }: TlsAsked): Promise<TlsGot> {
    if (this.#session === undefined || this.#session.closed || this.#session.destroyed) {
      const target = { port: this.#port, host: "127.0.0.1", servername: this.#serverName, ALPNProtocols: ["h2"] };
      const socket = connectTls({ ...target, secureContext, rejectUnauthorized: false });
      socket.on("error", () => undefined);
      this.#keep(socket);
      await once(socket, "secureConnect");
      this.#session = connectHttp2("https://shop.example", { createConnection: () => socket });
      this.#session.on("error", () => undefined);
    }
    const asked = { ":method": method, ":path": path, ...headers };
    const stream = this.#session.request(asked, { endStream: body === undefined });
    if (body !== undefined) stream.end(body);
    return await answerOf(stream);
  }

  #keep(socket: TLSSocket): void {
    if (this.#socket !== socket) this.connections += 1;
    this.#socket = socket;
  }

  [Symbol.dispose](): void {
    this.#agent.destroy();
    this.#session?.destroy();
    this.#socket?.destroy();
  }
}

/** As the kubelet makes it: the files are links into a folder that is swapped as a whole. */
export class SecretVolume implements CertificateVolume, Disposable {
  readonly name: string;
  readonly secret: string;
  readonly path = mkdtempSync(join(tmpdir(), "tls-volume-"));
  #version = 0;

  constructor(name: string, identity: Identity) {
    this.name = name;
    this.secret = `${name}-secret`;
    for (const file of ["tls.crt", "tls.key"]) symlinkSync(join("..data", file), join(this.path, file));
    this.swap(identity);
  }

  swap({ certificatePem, privateKeyPem }: Identity): void {
    const version = `..${(this.#version += 1)}`;
    mkdirSync(join(this.path, version));
    writeFileSync(join(this.path, version, "tls.crt"), certificatePem);
    writeFileSync(join(this.path, version, "tls.key"), privateKeyPem);
    symlinkSync(version, join(this.path, "..new"));
    renameSync(join(this.path, "..new"), join(this.path, "..data"));
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true });
  }
}
