// A real little proxy for HTTP's CONNECT, plain or behind TLS, with or without a password.
import { once } from "node:events";
import { createServer as createHttp } from "node:http";
import type { IncomingMessage, Server } from "node:http";
import { createServer as createHttps } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { connect } from "node:net";
import { certificatePem, privateKeyPem } from "./certificate.fake.ts";

export interface ConnectProxyOptions {
  readonly tls?: boolean;
  /** `user:password` that it asks for. */
  readonly login?: string;
}

export class ConnectProxy implements AsyncDisposable {
  /** Where it was asked to go, in order. */
  readonly asked: string[] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #scheme: string;

  constructor({ tls = false, login }: ConnectProxyOptions = {}) {
    this.#scheme = tls ? "https" : "http";
    this.#server = tls ? createHttps({ key: privateKeyPem, cert: certificatePem }) : createHttp();
    this.#server.on("connection", (socket: Socket) => this.#sockets.add(socket));
    const wanted = login === undefined ? undefined : `Basic ${Buffer.from(login).toString("base64")}`;
    this.#server.on("connect", (request: IncomingMessage, client: Socket) => {
      this.asked.push(request.url ?? "");
      client.on("error", () => undefined);
      if (wanted !== undefined && request.headers["proxy-authorization"] !== wanted) {
        client.end("HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n");
        return;
      }
      const { hostname, port } = new URL(`http://${request.url}`);
      const upstream = connect(Number(port), hostname, () => {
        client.write("HTTP/1.1 200 Connection established\r\nX-Some: header\r\n\r\n");
        client.pipe(upstream).pipe(client);
      });
      this.#sockets.add(upstream);
      client.on("close", () => upstream.destroy());
      upstream.on("close", () => client.destroy());
      upstream.on("error", () => client.destroy());
    });
  }

  async listen(): Promise<this> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return this;
  }
  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }
  /** `login` as it stands in a URL. */
  url(login = ""): string {
    return `${this.#scheme}://${login === "" ? "" : `${login}@`}127.0.0.1:${this.port}`;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
