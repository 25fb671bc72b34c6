// WebSockets to the API server's streaming calls (port-forward, exec), opened with the same credentials, proxies and
// TLS as requests; a refused upgrade is translated like any other answer.
import { randomFillSync } from "node:crypto";
import type { ClientRequest, IncomingMessage } from "node:http";
import { WebSocket } from "ws";
import { deadline } from "#base/abort.ts";
import { AppError } from "#base/error.ts";
import type { Kube } from "./client.ts";
import type { KubeAction } from "./status.ts";
import { networkError, statusError } from "./status.ts";

export interface UpgradeRequest {
  readonly path: string;
  /** Best first. */
  readonly protocols: readonly string[];
  readonly action: KubeAction;
}

export interface OpenedWebSocket {
  /** Paused until the caller has set its listeners and called `resume()`. */
  readonly socket: WebSocket;
  /** Which of those that were offered. */
  readonly protocol: string;
}

const protocolHeader = "Sec-WebSocket-Protocol";
const upgradeMs = 15_000;
/** Longest message that we accept; servers send at most 32 KiB at a time. Chosen. */
const maxMessageBytes = 4 * 1024 * 1024;
/** Body of a refused upgrade that is read for its reason. */
const maxRefusalBytes = 16 * 1024;

export async function openWebSocket(
  kube: Kube,
  request: UpgradeRequest,
  signal: AbortSignal,
): Promise<OpenedWebSocket> {
  const { action } = request;
  const what = `${action.verb} ${action.resource}/${action.subresource ?? ""} ${action.name ?? ""}`;
  using limit = deadline(kube.clock, upgradeMs, what, signal);
  const first = await attempt(kube, request, limit.signal);
  if ("socket" in first) return first;
  if (first.status === 401 && kube.transport.invalidateCredentials()) {
    const second = await attempt(kube, request, limit.signal);
    if ("socket" in second) return second;
    throw statusError(kube.target, action, second.status, second.body);
  }
  throw statusError(kube.target, action, first.status, first.body);
}

interface Refusal {
  readonly status: number;
  readonly body: string;
}

async function attempt(kube: Kube, request: UpgradeRequest, signal: AbortSignal): Promise<OpenedWebSocket | Refusal> {
  for (;;) {
    const answer = await attemptOnce(kube, request, signal);
    // A kept connection that the server closed meanwhile: there are as many of them as the pool keeps.
    if (answer !== "stale") return answer;
  }
}

async function attemptOnce(
  kube: Kube,
  request: UpgradeRequest,
  signal: AbortSignal,
): Promise<OpenedWebSocket | Refusal | "stale"> {
  const way = await kube.transport.upgradeWay(request.path, signal);
  let outgoing: ClientRequest | undefined;
  const socket = new WebSocket(way.url, [], {
    agent: way.agent,
    headers: { ...(way.headers as Record<string, string>), [protocolHeader]: request.protocols.join(", ") },
    perMessageDeflate: false,
    maxPayload: maxMessageBytes,
    skipUTF8Validation: true,
    // Masking guards proxies that see plain text; TLS below makes it useless work (measured in DESIGN 10).
    finishRequest: (started) => (outgoing = started).end(),
    generateMask: (mask) => void (way.encrypted ? mask.fill(0) : randomFillSync(mask)),
  });
  let protocol: string | undefined;
  // `ws` refuses names with a slash, which Kubernetes has: what was agreed upon is its header's, and taken from it.
  socket.once("upgrade", ({ headers }: IncomingMessage) => {
    protocol = headers[protocolHeader.toLowerCase()] as string | undefined;
    delete headers[protocolHeader.toLowerCase()];
  });
  return await new Promise<OpenedWebSocket | Refusal | "stale">((resolve, reject) => {
    const onAbort = (): void => {
      socket.terminate();
      reject(signal.reason as Error);
    };
    const settle = (): void => signal.removeEventListener("abort", onAbort);
    socket.on("error", (error) => {
      settle();
      if (outgoing?.reusedSocket === true) resolve("stale");
      else reject(networkError(kube.target, error));
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
      if (protocol === undefined || !request.protocols.includes(protocol)) {
        socket.terminate();
        reject(new AppError("unsupported", `the API server opened a WebSocket of protocol "${protocol ?? "none"}"`));
        return;
      }
      socket.pause(); // what arrives before the caller's listeners must not be lost
      resolve({ socket, protocol });
    });
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
  });
}

async function readRefusal(response: IncomingMessage): Promise<Refusal> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes > maxRefusalBytes) break;
    }
  } catch {
    // the status alone says enough
  }
  return { status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString("utf8") };
}

/** The error for a socket that ended while it was needed. */
export function lostSocket(what: string, cause?: unknown): AppError {
  return new AppError("link_lost", `${what} was cut`, { cause });
}
