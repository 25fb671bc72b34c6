// The way out to a cloud server (PROTOCOL §2.5): a WebSocket, so that proxies and ingresses let it pass. A server on a
// laptop's loopback is reached through that laptop, which is good for trying out.
import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { connect as connectTls, getCACertificates } from "node:tls";
import { WebSocket, createWebSocketStream } from "ws";
import { AppError } from "#base/error.ts";
import { cloudPaths } from "#wire/cloud-api.ts";
import { tunnelProtocol } from "#wire/cloud-tunnel-api.ts";
import { maxFramePayloadBytes } from "#wire/limits.ts";

/** chosen: the far end writes a batch of frames as one message. */
const maxMessageBytes = 16 * maxFramePayloadBytes;

export interface CloudPlace {
  readonly url: URL;
  readonly caCertificates: readonly string[];
}

/** `dial` gives a connection to the server's port; `unauthorized` when the token does not count. */
export async function openCloudSocket(
  { url, caCertificates }: CloudPlace,
  token: string,
  dial: () => Promise<Duplex>,
  signal: AbortSignal,
): Promise<Duplex> {
  const plain = await dial();
  const onAbort = (): void => void plain.destroy();
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    signal.throwIfAborted();
    const encrypted = url.protocol === "https:";
    const connection = encrypted ? await secured(plain, { url, caCertificates }, signal) : plain;
    const target = new URL(cloudPaths.tunnel, url);
    target.protocol = encrypted ? "wss:" : "ws:";
    const socket = new WebSocket(target, [tunnelProtocol], {
      createConnection: (() => connection) as never, // a Duplex is enough
      headers: { authorization: `Bearer ${token}` },
      perMessageDeflate: false,
      followRedirects: false,
      maxPayload: maxMessageBytes,
      skipUTF8Validation: true,
    });
    await opened(socket, url);
    return createWebSocketStream(socket);
  } catch (error) {
    plain.destroy();
    signal.throwIfAborted();
    throw error;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

async function secured(
  socket: Duplex,
  { url: { hostname, host }, caCertificates: more }: CloudPlace,
  signal: AbortSignal,
): Promise<Duplex> {
  const servername = hostname.replace(/^\[|\]$/g, "");
  const ca = more.length === 0 ? {} : { ca: [...getCACertificates("default"), ...more] };
  const named = /^[\d.]+$|:/.test(servername) ? {} : { servername };
  const secure = connectTls({ socket, host: servername, ...named, ...ca, ALPNProtocols: ["http/1.1"] });
  secure.on("error", () => undefined); // also when nobody waits any more
  try {
    await once(secure, "secureConnect", { signal }); // it is told nothing when the connection below it is cut
    return secure;
  } catch (cause) {
    secure.destroy();
    signal.throwIfAborted();
    const [why] = (cause as Error).message.split(";"); // behind it Node says how Node is run
    throw new AppError("unreachable", `no safe connection to ${host}: ${why}`, { cause });
  }
}

function opened(socket: WebSocket, { host }: URL): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once("open", resolve);
    socket.once("unexpected-response", (_request, { statusCode = 0 }: IncomingMessage) => {
      socket.terminate();
      reject(
        statusCode === 401
          ? new AppError("unauthorized", `${host} does not take the token`)
          : new AppError("unreachable", `${host} answers ${statusCode} where the tunnel should be`),
      );
    });
    socket.on("error", (cause) =>
      reject(new AppError("unreachable", `${host} does not open the tunnel: ${cause.message}`, { cause })),
    );
  });
}
