// Where managers come in: a WebSocket with the token of a cluster (PROTOCOL §2.5). Nobody else gets as far as a HELLO.
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { WebSocketServer, createWebSocketStream } from "ws";
import { toAppError } from "#base/error.ts";
import { hashToken } from "#cloud/identity/tokens.ts";
import { RateLimit } from "#cloud/web/rate-limits.ts";
import type { Parts } from "#cloud/web/route.ts";
import type { UpgradeHandler } from "#cloud/web/server.ts";
import { tunnelProtocol } from "#wire/cloud-tunnel-api.ts";
import { maxFramePayloadBytes } from "#wire/limits.ts";
import { clusterOfToken } from "./clusters.ts";
import type { LiveClusters } from "./live-clusters.ts";

/** chosen: the far end writes a batch of frames as one message. */
const maxMessageBytes = 16 * maxFramePayloadBytes;
/** chosen: a manager tries every half minute. */
const attemptRate = { burst: 60, perSecond: 1 };

export type AddressOfSocket = (request: IncomingMessage) => string;

export class TunnelDoor implements UpgradeHandler {
  readonly #parts: Pick<Parts, "database" | "clock" | "log">;
  readonly #live: LiveClusters;
  readonly #addressOf: AddressOfSocket;
  readonly #attempts: RateLimit;
  readonly #server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: maxMessageBytes,
    skipUTF8Validation: true,
    handleProtocols: (offered) => (offered.has(tunnelProtocol) ? tunnelProtocol : false),
  });

  constructor(parts: Pick<Parts, "database" | "clock" | "log">, live: LiveClusters, addressOf: AddressOfSocket) {
    this.#parts = parts;
    this.#live = live;
    this.#addressOf = addressOf;
    this.#attempts = new RateLimit(attemptRate, parts.clock);
  }

  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    this.#admit(request, socket, head).catch((error: unknown) => {
      this.#parts.log.warn("tunnel refused", { reason: toAppError(error).message });
      socket.destroy();
    });
  }

  async #admit(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    if (!this.#attempts.tryTake(this.#addressOf(request))) return refuse(socket, "429 Too Many Requests");
    const token = /^Bearer (tpm_[\w-]{1,200})$/.exec(request.headers.authorization ?? "")?.[1];
    const hash = hashToken(token ?? "");
    const { database, clock } = this.#parts;
    const cluster = token === undefined ? undefined : await clusterOfToken(database, hash, clock.wallMs());
    if (cluster === undefined) return refuse(socket, "401 Unauthorized");
    const offered = (request.headers["sec-websocket-protocol"] ?? "").split(",").map((name) => name.trim());
    if (request.method !== "GET" || !offered.includes(tunnelProtocol)) return refuse(socket, "400 Bad Request");
    this.#server.handleUpgrade(request, socket, head, (webSocket) => {
      this.#live.accept(createWebSocketStream(webSocket), cluster, hash).catch((error: unknown) => {
        this.#parts.log.warn("tunnel refused", { cluster: cluster.id, reason: toAppError(error).message });
      });
    });
  }
}

function refuse(socket: Duplex, status: string): void {
  socket.end(`HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
}
