// Opens a connection that stops being HTTP: with the credentials, proxies and TLS of requests, once more with others
// when those are refused; what the server says instead is translated like any other answer.
import type { ClientRequest, IncomingMessage } from "node:http";
import { request as requestHttp } from "node:http";
import type { Duplex } from "node:stream";
import { deadline } from "#base/abort.ts";
import { AppError } from "#base/error.ts";
import type { Kube } from "#kube/client.ts";
import type { KubeAction } from "#kube/status.ts";
import { networkError, statusError } from "#kube/status.ts";
import type { UpgradeWay } from "#kube/transport.ts";

export interface UpgradeRequest {
  readonly path: string;
  /** Best first. */
  readonly protocols: readonly string[];
  readonly action: KubeAction;
}

/** What the server answered instead. */
export class Refusal {
  readonly status: number;
  readonly body: string;

  constructor(status: number, body: string) {
    this.status = status;
    this.body = body;
  }
}

/** A kept connection that the server had closed: it has seen nothing of the request. */
export class Stale {}

export type NotUpgraded = Refusal | Stale | AppError;

/** One try; whatever it has opened when the signal aborts is destroyed. */
export type UpgradeAttempt<T> = (way: UpgradeWay, signal: AbortSignal) => Promise<T | NotUpgraded>;

const upgradeMs = 15_000;
/** Body of a refused upgrade that is read for its reason. */
const maxRefusalBytes = 16 * 1024;

export async function openUpgrade<T>(
  kube: Kube,
  request: UpgradeRequest,
  attempt: UpgradeAttempt<T>,
  signal: AbortSignal,
): Promise<T> {
  const { action } = request;
  const what = `${action.verb} ${action.resource}/${action.subresource ?? ""} ${action.name ?? ""}`;
  using limit = deadline(kube.clock, upgradeMs, what, signal);
  for (let refusals = 0; ;) {
    const way = await kube.transport.upgradeWay(request.path, limit.signal);
    const answer = await attempt(way, limit.signal);
    if (answer instanceof Stale) continue; // there are as many of them as the pool keeps
    if (answer instanceof AppError) throw answer;
    if (!(answer instanceof Refusal)) return answer;
    refusals += 1;
    if (answer.status !== 401 || refusals > 1 || !kube.transport.invalidateCredentials()) {
      throw statusError(kube.target, action, answer.status, answer.body);
    }
  }
}

/** What a failure of the connection means for the attempt. */
export function failedUpgrade(kube: Kube, outgoing: ClientRequest | undefined, error: unknown): Stale | AppError {
  return outgoing?.reusedSocket === true ? new Stale() : networkError(kube.target, error);
}

export async function readRefusal(response: IncomingMessage): Promise<Refusal> {
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
  return new Refusal(response.statusCode ?? 0, Buffer.concat(chunks).toString("utf8"));
}

/** The socket below, once the server has changed to SPDY with one of the protocols. */
export async function openSpdySocket(kube: Kube, request: UpgradeRequest, signal: AbortSignal): Promise<Duplex> {
  return await openUpgrade(kube, request, (way, limit) => attemptSpdy(kube, way, request.protocols, limit), signal);
}

function attemptSpdy(
  kube: Kube,
  way: UpgradeWay,
  protocols: readonly string[],
  signal: AbortSignal,
): Promise<Duplex | NotUpgraded> {
  const url = new URL(way.url);
  const outgoing: ClientRequest = requestHttp({
    agent: way.agent,
    host: url.hostname,
    port: url.port,
    path: `${url.pathname}${url.search}`,
    method: "POST",
    headers: {
      ...way.headers,
      Connection: "Upgrade",
      Upgrade: "SPDY/3.1",
      "X-Stream-Protocol-Version": [...protocols],
      "Content-Length": 0,
    },
    signal,
  });
  return new Promise((resolve, reject) => {
    outgoing.on("error", (error) => {
      if (signal.aborted) reject(signal.reason as Error);
      else resolve(failedUpgrade(kube, outgoing, error));
    });
    outgoing.once("response", (response) => {
      void readRefusal(response).then((refusal) => {
        response.destroy();
        resolve(refusal);
      });
    });
    outgoing.once("upgrade", (response: IncomingMessage, socket: Duplex, head: Buffer) => {
      socket.on("error", () => undefined); // 'close' follows
      if (!/^spdy\/3\.1$/i.test(response.headers.upgrade ?? "")) {
        socket.destroy();
        const said = String(response.headers.upgrade);
        reject(new AppError("unsupported", `the API server changed to ${said} instead of SPDY/3.1`));
        return;
      }
      if (head.length > 0) socket.unshift(head);
      resolve(socket);
    });
    outgoing.end();
  });
}
