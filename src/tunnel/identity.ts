// Pinned keys (DESIGN 4, PROTOCOL §2.2): a key pair that lives in memory only, and TLS 1.3 in which each end demands
// the other's exact key. No CA, no names, no dates.
// Invariant: not a byte of ours goes either way before both fingerprints have been checked.
import { constants, createHash, generateKeyPairSync } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { createServer as createPlainServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { connect, createServer as createTlsServer } from "node:tls";
import type { SecureContextOptions, TLSSocket } from "node:tls";
import { AppError } from "#base/error.ts";
import type { ErrorCode } from "#base/error.ts";
import { createCertificate } from "./certificate.ts";

export interface Identity {
  /** SHA-256 of the public key (SPKI), lower-case hex. */
  readonly fingerprint: string;
  readonly privateKeyPem: string;
  readonly certificatePem: string;
}

/** A new key pair. `name` is for people who look at a packet dump. */
export function createIdentity(name: string): Identity {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return {
    fingerprint: fingerprintOf(publicKey),
    privateKeyPem: privateKey.export({ type: "pkcs8", format: "pem" }),
    certificatePem: createCertificate(name, publicKey, privateKey),
  };
}

/** SHA-256 of a public key (SPKI), lower-case hex. */
export function fingerprintOf(key: KeyObject): string {
  return createHash("sha256")
    .update(key.export({ type: "spki", format: "der" }))
    .digest("hex");
}

/** Fingerprint of the key that the other end has proved to hold; undefined when it showed none. */
function peerFingerprint(socket: TLSSocket): string | undefined {
  const certificate = socket.getPeerX509Certificate();
  return certificate === undefined ? undefined : fingerprintOf(certificate.publicKey);
}

function tlsOptions(identity: Identity): SecureContextOptions & { readonly rejectUnauthorized: boolean } {
  return {
    key: identity.privateKeyPem,
    cert: identity.certificatePem,
    minVersion: "TLSv1.3",
    rejectUnauthorized: false, // there is no chain to check; the fingerprint decides
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
}

/** Somebody who was turned away, for the log. */
export interface Stranger {
  readonly address: string;
  /** undefined when no key was shown. */
  readonly fingerprint: string | undefined;
  readonly reason: string;
}

export interface ListenPinnedOptions {
  readonly identity: Identity;
  /** 0 lets the system choose. */
  readonly port: number;
  readonly host: string;
  /** Asked once for each connection. */
  readonly isTrusted: (fingerprint: string) => boolean;
  readonly onConnection: (socket: TLSSocket, fingerprint: string) => void;
  readonly onStranger: (stranger: Stranger) => void;
  /** Handshakes at once; `maxHandshakes` when left out. */
  readonly maxHandshakes?: number;
}

export interface PinnedListener extends AsyncDisposable {
  readonly port: number;
  /** Accepts nobody any more and ends unfinished handshakes; connections handed over are their owners'. */
  close(): Promise<void>;
}

/** chosen: unfinished handshakes; one more ends the oldest, so that idle strangers cannot keep others out. */
export const maxHandshakes = 128;
/** chosen: a handshake between two pods takes milliseconds. */
const handshakeTimeoutMs = 5000;

export async function listenPinned(options: ListenPinnedOptions): Promise<PinnedListener> {
  const unfinished = new Map<string, Socket>();
  const tls = createTlsServer({
    ...tlsOptions(options.identity),
    requestCert: true,
    handshakeTimeout: handshakeTimeoutMs,
  });
  tls.on("secureConnection", (socket) => {
    unfinished.delete(endpointOf(socket));
    socket.on("error", () => undefined); // 'close' follows; the owner listens as well
    admit(options, socket);
  });
  tls.on("tlsClientError", (error, socket) => turnAway(options, socket, undefined, error.message));
  const server = createPlainServer({ noDelay: true }, (socket) => {
    socket.on("error", () => undefined); // told by tlsClientError
    bound(unfinished, socket, options.maxHandshakes ?? maxHandshakes);
    tls.emit("connection", socket);
  });
  await listen(server, options.port, options.host);
  const { port } = server.address() as AddressInfo;
  const close = async (): Promise<void> => {
    server.close(); // its callback would wait for connections that are others' by now
    for (const socket of unfinished.values()) socket.destroy();
    return Promise.resolve();
  };
  return { port, close, [Symbol.asyncDispose]: close };
}

/** The key decides, and nothing has been sent yet. */
function admit(options: ListenPinnedOptions, socket: TLSSocket): void {
  const fingerprint = peerFingerprint(socket);
  if (fingerprint === undefined) turnAway(options, socket, undefined, "it showed no key");
  else if (!options.isTrusted(fingerprint)) turnAway(options, socket, fingerprint, "its key is not trusted");
  else options.onConnection(socket, fingerprint);
}

function turnAway(options: ListenPinnedOptions, socket: TLSSocket, fingerprint: string | undefined, why: string): void {
  options.onStranger({ address: endpointOf(socket), fingerprint, reason: why });
  socket.destroy();
}

function bound(unfinished: Map<string, Socket>, socket: Socket, limit: number): void {
  const oldest = unfinished.values().next().value;
  if (unfinished.size >= limit) oldest?.destroy();
  const key = endpointOf(socket);
  unfinished.set(key, socket);
  socket.once("close", () => {
    if (unfinished.get(key) === socket) unfinished.delete(key);
  });
}

/** The far address, by which a TLS socket and the plain one below it are known to be one. */
function endpointOf(socket: Socket): string {
  return `${socket.remoteAddress ?? "unknown"} port ${socket.remotePort ?? 0}`;
}

function listen(server: Server, port: number, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const code = error.code === "EADDRINUSE" ? "port_in_use" : "internal";
      reject(new AppError(code, `cannot listen on ${host} port ${port}: ${error.message}`, { cause: error }));
    });
    server.listen(port, host, resolve);
  });
}

export interface ConnectPinnedOptions {
  readonly identity: Identity;
  readonly host: string;
  readonly port: number;
  readonly expectedFingerprint: string;
  /** Also bounds the time: a connect to a silent address waits until it aborts. */
  readonly signal: AbortSignal;
}

/**
 * Resolves when the far end has proved the expected key. Whether it trusts ours shows only afterwards: it closes the
 * connection if not, which TLS 1.3 tells no sooner. Codes: `refused`, `unreachable`, `timeout`, `denied` (another key).
 */
export function connectPinned(options: ConnectPinnedOptions): Promise<TLSSocket> {
  const { identity, host, port, expectedFingerprint, signal } = options;
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason as Error);
      return;
    }
    const socket = connect({
      ...tlsOptions(identity),
      host,
      port,
      checkServerIdentity: () => undefined,
    });
    socket.setNoDelay(true);
    const fail = (error: unknown): void => {
      signal.removeEventListener("abort", onAbort);
      socket.destroy();
      reject(error as Error);
    };
    const onAbort = (): void => fail(signal.reason);
    const onError = (error: NodeJS.ErrnoException): void => fail(connectError(options, error));
    signal.addEventListener("abort", onAbort, { once: true });
    socket.on("error", onError); // stays: an error after failure or hand-over must not end the process
    socket.once("close", () => fail(new AppError("link_lost", `${host} port ${port} closed the connection`)));
    socket.once("secureConnect", () => {
      const fingerprint = peerFingerprint(socket);
      if (fingerprint === expectedFingerprint) {
        signal.removeEventListener("abort", onAbort);
        resolve(socket);
      } else {
        const shown = fingerprint === undefined ? "no key" : `key ${fingerprint}`;
        fail(new AppError("denied", `${host} port ${port} showed ${shown}, expected key ${expectedFingerprint}`));
      }
    });
  });
}

const connectCodes: Readonly<Record<string, ErrorCode>> = {
  ECONNREFUSED: "refused",
  ECONNRESET: "link_lost",
  EHOSTUNREACH: "unreachable",
  ENETUNREACH: "unreachable",
  ENOTFOUND: "unreachable",
  ETIMEDOUT: "timeout",
};

function connectError(options: ConnectPinnedOptions, error: NodeJS.ErrnoException): AppError {
  const code = connectCodes[error.code ?? ""] ?? "protocol";
  return new AppError(code, `cannot connect to ${options.host} port ${options.port}: ${error.message}`, {
    cause: error,
  });
}
