// TLS on the connections that are read: towards a caller as the application would show itself, towards the application
// and the laptop's process as the caller did. Each end is a socket whose reset is that of the connection below.
// Invariant: whoever is refused here has had nothing but a handshake; every handshake has its deadline.
// @from agent/inbound/tls/tls-port.ts
import { connect, createSecureContext, createServer } from "node:tls";
import type { SecureContext, Server, TLSSocket } from "node:tls";
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { raceSignal } from "#base/abort.ts";
import { AppError } from "#base/error.ts";
import { fingerprintOf } from "#tunnel/identity.ts";
import type { PodCertificate } from "./tls-certificates.ts";

/** What a caller asked for, as far as it is asked for again. */
export interface TlsWish {
  readonly serverName: string | undefined;
  /** ALPN; none says nothing. */
  readonly protocols: readonly string[];
}

/** Of every handshake that we begin: it holds nothing of theirs, and making one costs as much as half a handshake. */
let ours: SecureContext | undefined;

/**
 * A handshake over this connection, which is ours from here on. The name in the certificate is not verified: it is this
 * very pod that is dialled, or the laptop that the tunnel has authenticated, and the caller's own check is made on the
 * certificate that it is shown. Whose key it is can be asked of `shownFingerprint`.
 */
export async function originateTls(raw: Duplex, wish: TlsWish, signal: AbortSignal): Promise<TLSSocket> {
  raw.on("error", () => undefined); // the TLS socket fails with it
  const socket = connect({
    socket: raw,
    secureContext: (ours ??= createSecureContext()),
    servername: wish.serverName ?? "",
    rejectUnauthorized: false,
    ...(wish.protocols.length === 0 ? {} : { ALPNProtocols: [...wish.protocols] }),
  });
  resetWith(socket, raw);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onClose = (): void => reject(new AppError("peer_reset", "the connection was closed in its TLS handshake"));
  socket.on("error", reject).once("close", onClose).once("secureConnect", resolve);
  try {
    await raceSignal(promise, signal);
    return socket;
  } catch (error) {
    const wanted = asksForCertificate(socket);
    socket.destroy();
    throw wanted ? new ClientCertificateWanted() : error;
  } finally {
    socket.off("close", onClose);
  }
}

/** The application wants to know who calls, and only the caller has the key that proves it. */
export class ClientCertificateWanted extends AppError {
  constructor() {
    super("unsupported", "the application asks its callers for a certificate, which nobody can forward");
  }
}

/** In a handshake that we began, the other end tells its algorithms only when it asks for a certificate. */
export function asksForCertificate(socket: TLSSocket): boolean {
  try {
    return socket.getSharedSigalgs().length > 0;
  } catch {
    return false; // the connection failed before
  }
}

/** Of the key that the other end has proved to hold. */
export function shownFingerprint(socket: TLSSocket): string | undefined {
  const certificate = socket.getPeerX509Certificate();
  return certificate === undefined ? undefined : fingerprintOf(certificate.publicKey);
}

/** chosen: the application would be as patient. */
export const handshakeMs = 10_000;

/** Handshakes with callers. */
export class TlsAcceptor {
  readonly #doors = new WeakMap<PodCertificate, Map<string, Server>>();
  readonly #waiting = new Map<string, PromiseWithResolvers<TLSSocket>>();

  /** `first` is what the caller has sent so far. Rejects when its handshake fails; it is told why by an alert. */
  async accept(
    caller: Socket,
    first: Buffer,
    as: { readonly certificate: PodCertificate; readonly protocol: string | undefined },
    signal: AbortSignal,
  ): Promise<Socket> {
    const key = endpointsOf(caller);
    const waiting = Promise.withResolvers<TLSSocket>();
    const onAbort = (): void => waiting.reject(signal.reason as Error);
    this.#waiting.set(key, waiting);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      signal.throwIfAborted();
      caller.unshift(first);
      this.#door(as.certificate, as.protocol).emit("connection", caller);
      const socket = await waiting.promise;
      return resetWith(socket, caller);
    } finally {
      signal.removeEventListener("abort", onAbort);
      if (this.#waiting.get(key) === waiting) this.#waiting.delete(key);
    }
  }

  /** A server that listens nowhere: it is handed its connections. One for each answer to ALPN. */
  #door(certificate: PodCertificate, protocol: string | undefined): Server {
    let doors = this.#doors.get(certificate);
    if (doors === undefined) this.#doors.set(certificate, (doors = new Map()));
    let door = doors.get(protocol ?? "");
    if (door === undefined) {
      door = createServer({
        cert: certificate.chain,
        key: certificate.key,
        allowHalfOpen: true,
        handshakeTimeout: handshakeMs,
        ...(protocol === undefined ? {} : { ALPNProtocols: [protocol] }),
      });
      door.on("secureConnection", (socket) => {
        socket.on("error", () => undefined); // 'close' follows; whoever has it listens as well
        const waiting = this.#waiting.get(endpointsOf(socket));
        if (waiting === undefined) socket.destroy(); // it came too late
        else waiting.resolve(socket);
      });
      door.on("tlsClientError", (error, socket) => {
        this.#waiting.get(endpointsOf(socket))?.reject(error);
      });
      doors.set(protocol ?? "", door);
    }
    return door;
  }
}

/** Both addresses, by which a TLS socket and the plain one below it are known to be one. */
function endpointsOf({ remoteAddress, remotePort, localAddress, localPort }: Socket): string {
  return [remoteAddress, remotePort, localAddress, localPort].join(" ");
}

/** TLS has no reset: cut is what carries it. */
function resetWith(socket: TLSSocket, raw: Duplex): TLSSocket {
  socket.resetAndDestroy = () => {
    if (raw instanceof Socket) raw.resetAndDestroy();
    else raw.destroy(new AppError("cancelled", "the connection was cut"));
    return socket.destroy();
  };
  return socket;
}
