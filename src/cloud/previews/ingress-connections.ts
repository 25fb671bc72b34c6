// Connections to the ingress of one preview: streams of the manager's tunnel, with TLS of ours inside where the ingress
// speaks it. They are kept for a moment between requests, and cut when the preview is not what it was.
import { once } from "node:events";
import { Agent } from "node:http";
import type { ClientRequest } from "node:http";
import { isIP } from "node:net";
import type { Duplex } from "node:stream";
import { connect as connectTls, createSecureContext, getCACertificates } from "node:tls";
import type { SecureContext } from "node:tls";
import type { Clock, Timer } from "#base/clock.ts";
import { deadline } from "#base/abort.ts";
import { AppError } from "#base/error.ts";
import type { LiveClusters } from "#cloud/clusters/live-clusters.ts";
import type { Preview } from "./previews.ts";
import { ingressName } from "./request-headers.ts";

/** chosen: shorter than what servers keep theirs (Node 5 s, nginx 75 s); how many wait for a request. */
const [idleMs, maxIdle] = [4000, 32];
/** chosen: stream and handshake. */
const connectMs = 25_000;

/** By OpenSSL's and Node's names; for the preview's owner. */
const untrusted = [
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
];

function hintOf(code: string | undefined): string | undefined {
  const again = "its owner makes the preview again with";
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID") return `${again} --ingress-l5 NAME, a name that the certificate has`;
  if (code === "CERT_HAS_EXPIRED") return `the certificate has to be renewed, or ${again} --ingress-insecure`;
  if (code === undefined || !untrusted.includes(code)) return undefined;
  return `${again} --ingress-ca FILE, the authority that signed the certificate, or with --ingress-insecure`;
}

type Opened = (error: Error | null, stream: Duplex) => void;

export class IngressConnections extends Agent {
  readonly #live: Pick<LiveClusters, "openPreview">;
  readonly #preview: Preview;
  readonly #clock: Clock;
  readonly #all = new Set<Duplex>();
  readonly #idle = new Map<Duplex, Timer>();
  /** Made once: it reads all authorities. */
  #trusted: SecureContext | undefined;

  constructor(preview: Preview, live: Pick<LiveClusters, "openPreview">, clock: Clock) {
    super({ keepAlive: true, maxFreeSockets: maxIdle, scheduling: "lifo" });
    this.#preview = preview;
    this.#live = live;
    this.#clock = clock;
  }

  async open(): Promise<Duplex> {
    const { clusterId, id, ingress } = this.#preview;
    using limit = deadline(this.#clock, connectMs, "the cluster's ingress");
    const stream = await this.#live.openPreview(clusterId, id, limit.signal);
    const connection = ingress.tls ? await this.#secured(stream, limit.signal) : stream;
    connection.on("error", () => connection.destroy());
    connection.once("end", () => connection.destroy()); // whoever reads it has all of it by then
    (connection as { ref?: () => void }).ref ??= () => undefined; // Node's agent asks for it
    this.#all.add(connection);
    connection.once("close", () => {
      this.#all.delete(connection);
      this.#idle.get(connection)?.[Symbol.dispose]();
      this.#idle.delete(connection);
    });
    return connection;
  }

  /** Those in use, too. */
  cut(): void {
    this.destroy();
    for (const connection of this.#all) connection.destroy();
  }

  override createConnection(_options: unknown, done?: Opened): undefined {
    if (done !== undefined) void this.openFor(done);
  }
  /** Node's own would ask for what only a socket has. */
  override keepSocketAlive(stream: Duplex): boolean {
    this.#idle.set(stream, this.#clock.after(idleMs, () => stream.destroy()).unref());
    return true;
  }
  override reuseSocket(stream: Duplex, request: ClientRequest): void {
    this.#idle.get(stream)?.[Symbol.dispose]();
    this.#idle.delete(stream);
    super.reuseSocket(stream, request);
  }
  async openFor(done: Opened): Promise<void> {
    let stream: Duplex;
    try {
      stream = await this.open();
    } catch (error) {
      done(error as Error, undefined as never);
      return;
    }
    done(null, stream);
  }

  async #secured(socket: Duplex, signal: AbortSignal): Promise<Duplex> {
    const { ingress, insecure, ingressCa } = this.#preview;
    const host = ingressName(ingress);
    const named = isIP(host) === 0 ? { servername: host } : {};
    const options = { rejectUnauthorized: !insecure, ALPNProtocols: ["http/1.1"] };
    if (ingressCa !== undefined) this.#trusted ??= createSecureContext({ ca: [...getCACertificates(), ingressCa] });
    const trusted = this.#trusted === undefined ? {} : { secureContext: this.#trusted };
    const secure = connectTls({ socket, host, ...named, ...options, ...trusted });
    secure.on("error", () => undefined); // also when nobody waits any more
    try {
      await once(secure, "secureConnect", { signal }); // it is told nothing when the stream below it is cut
      return secure;
    } catch (cause) {
      secure.destroy();
      socket.destroy();
      signal.throwIfAborted();
      const { message, code } = cause as NodeJS.ErrnoException;
      const [why] = message.split(";"); // behind it Node says how Node is run
      const hint = hintOf(code);
      throw new AppError("refused", `TLS with the ingress failed: ${why}`, { cause, ...(hint && { hint }) });
    }
  }
}
