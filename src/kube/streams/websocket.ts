// WebSockets to the API server's streaming calls (port-forward, exec).
import { randomFillSync } from "node:crypto";
import type { ClientRequest, IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { WebSocket } from "ws";
import { AppError } from "#base/error.ts";
import type { Kube } from "#kube/client.ts";
import type { UpgradeWay } from "#kube/transport.ts";
import { failedUpgrade, openUpgrade, readRefusal } from "./upgrade.ts";
import type { NotUpgraded, UpgradeRequest } from "./upgrade.ts";

export interface OpenedWebSocket {
  /** Paused until the caller has set its listeners and called `resume()`. */
  readonly socket: WebSocket;
  /** Which of those that were offered. */
  readonly protocol: string;
  /** Below it, where what is sent needs no mask: whole frames may be written here by hand. */
  readonly connection: Duplex | undefined;
}

const protocolHeader = "Sec-WebSocket-Protocol";
/** Longest message that we accept; servers send at most 32 KiB at a time. Chosen. */
const maxMessageBytes = 4 * 1024 * 1024;

export async function openWebSocket(
  kube: Kube,
  request: UpgradeRequest,
  signal: AbortSignal,
): Promise<OpenedWebSocket> {
  return await openUpgrade(kube, request, (way, limit) => attempt(kube, way, request.protocols, limit), signal);
}

async function attempt(
  kube: Kube,
  way: UpgradeWay,
  protocols: readonly string[],
  signal: AbortSignal,
): Promise<OpenedWebSocket | NotUpgraded> {
  let outgoing: ClientRequest | undefined;
  const socket = new WebSocket(way.url, [], {
    agent: way.agent,
    headers: { ...(way.headers as Record<string, string>), [protocolHeader]: protocols.join(", ") },
    perMessageDeflate: false,
    maxPayload: maxMessageBytes,
    skipUTF8Validation: true,
    // Masking guards proxies that see plain text; TLS below makes it useless work (measured in DESIGN 10).
    finishRequest: (started) => (outgoing = started).end(),
    generateMask: (mask) => void (way.encrypted ? mask.fill(0) : randomFillSync(mask)),
  });
  let protocol: string | undefined;
  let connection: Duplex | undefined;
  // `ws` refuses names with a slash, which Kubernetes has: what was agreed upon is its header's, and taken from it.
  socket.once("upgrade", ({ headers, socket: below }: IncomingMessage) => {
    connection = way.encrypted ? below : undefined;
    protocol = headers[protocolHeader.toLowerCase()] as string | undefined;
    delete headers[protocolHeader.toLowerCase()];
  });
  return await new Promise<OpenedWebSocket | NotUpgraded>((resolve, reject) => {
    const onAbort = (): void => {
      socket.terminate();
      reject(signal.reason as Error);
    };
    const settle = (): void => signal.removeEventListener("abort", onAbort);
    socket.on("error", (error) => {
      settle();
      resolve(failedUpgrade(kube, outgoing, error));
    });
    socket.once("unexpected-response", (_request, response: IncomingMessage) => {
      void readRefusal(response).then((refusal) => {
        settle();
        socket.terminate();
        resolve(refusal);
      });
    });
    socket.once("open", () => {
      settle();
      if (protocol === undefined || !protocols.includes(protocol)) {
        socket.terminate();
        reject(new AppError("unsupported", `the API server opened a WebSocket of protocol "${protocol ?? "none"}"`));
        return;
      }
      socket.pause(); // what arrives before the caller's listeners must not be lost
      resolve({ socket, protocol, connection });
    });
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
  });
}

/** The error for a socket that ended while it was needed. */
export function lostSocket(what: string, cause?: unknown): AppError {
  return new AppError("link_lost", `${what} was cut`, { cause });
}
