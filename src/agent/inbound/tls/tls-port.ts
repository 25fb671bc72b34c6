// The callers of one port that speak TLS, while it has filters: each is read by a certificate of the pod's own, or goes on
// as it is. The application is asked first, by a handshake like the caller's: what it answers, its caller is answered.
//
//   ClientHello ──► handshake with the application ──its key is one of the pod's──► handshake with the caller ──► read
//                        └──asks for a certificate, shows another key, speaks no TLS, no ALPN of ours──► as it is
//
// Invariants: a caller meets the certificate and the protocol that it would meet without us, or the application itself;
// why a connection was not read is counted (`UnreadConnections`), never silent.
// @from agent/inbound/capture.ts
// @to agent/inbound/tls/tls-ends.ts
import type { Socket } from "node:net";
import { isIP } from "node:net";
import type { TLSSocket } from "node:tls";
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, isAppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { ServedIntercepts, Taken } from "#agent/served.ts";
import type { UnreadConnections } from "#agent/unread-connections.ts";
import type { TunnelStream } from "#tunnel/tunnel.ts";
import type { AgentPort } from "#wire/agent-api.ts";
import type { CertificateChoice } from "#wire/intercept-tls.ts";
import type { PodCertificate, TlsCertificates } from "./tls-certificates.ts";
import {
  ClientCertificateWanted,
  TlsAcceptor,
  asksForCertificate,
  handshakeMs,
  originateTls,
  shownFingerprint,
} from "./tls-ends.ts";
import type { TlsWish } from "./tls-ends.ts";
import type { ClientHello } from "./tls-hello.ts";

/** What can be read inside of TLS. */
const readProtocols: readonly string[] = ["h2", "http/1.1"];
/** protocol: the oldest that both our ends speak. */
const tls12 = 0x0303;
/** chosen: callers whose handshakes are under way; more are left to the application. */
const maxHandshakes = 256;
/** chosen: an application that was found unreadable is asked again after this. */
const knownMs = 1000;
const nameIt = "--tls-cert names the volume and the files that hold it";
/** chosen: names that callers may make up. */
const maxKnown = 1000;

export interface TlsPortOptions {
  readonly port: AgentPort;
  readonly served: ServedIntercepts;
  readonly certificates: TlsCertificates;
  readonly unread: UnreadConnections;
  readonly clock: Clock;
  readonly log: Logger;
}

/** How a caller's connection goes on. */
export interface Ways {
  readonly dialApplication: () => Promise<Socket>;
  /** Rejects when the laptop's process does not take the connection. */
  readonly openLaptop: (taken: Taken) => Promise<Socket | TunnelStream>;
  /** For a copy, which does not end with its caller. */
  readonly openTap: (tap: Taken) => Promise<Socket | TunnelStream>;
}

/** A caller that spoke first, with a ClientHello. */
export interface TlsCaller extends Ways {
  readonly socket: Socket;
  readonly hello: ClientHello;
  /** All that it has sent so far. */
  readonly first: Buffer;
  /** A connection to the application on which nothing was said yet. */
  readonly ready: Socket | undefined;
  readonly signal: AbortSignal;
}

/** A caller that is read: what it says inside, and how that goes on. */
export interface ReadTls extends Ways {
  readonly caller: Socket;
  /** By ALPN; undefined when nothing was agreed. */
  readonly protocol: string | undefined;
  readonly application: Socket | undefined;
}

/** A caller whose bytes are to go on as they are. */
export interface LeftTls {
  readonly caller: undefined;
  /** Still as it was; undefined when it was used up. */
  readonly ready: Socket | undefined;
}

/** What an application showed to a caller with this wish. */
interface Shown {
  readonly certificate: PodCertificate;
  readonly protocol: string | undefined;
}

interface Asked {
  readonly application: TLSSocket;
  readonly certificate: PodCertificate;
}

export class TlsPort {
  readonly #options: TlsPortOptions;
  readonly #acceptor = new TlsAcceptor();
  readonly #unreadable = new Map<string, { readonly reason: string; readonly untilMs: number }>();
  readonly #shown = new Map<string, Shown>();
  #underWay = 0;

  constructor(options: TlsPortOptions) {
    this.#options = options;
    options.served.onChange(() => this.#unreadable.clear());
  }

  /** Rejects when the caller's handshake fails. */
  async read(caller: TlsCaller): Promise<ReadTls | LeftTls> {
    const { clock } = this.#options;
    using _turn = this.#takeTurn();
    const wish = { serverName: caller.hello.serverName, protocols: understood(caller.hello) };
    using limit = deadline(clock, handshakeMs, "a TLS handshake", caller.signal);
    const refusal = this.#whyUnreadable(caller, wish);
    if (refusal !== undefined) return this.#leave(refusal, caller.ready);
    let application: TLSSocket | undefined;
    let shown: Shown;
    try {
      ({ application, shown } = await this.#ask(caller, wish, limit.signal));
    } catch (error) {
      caller.signal.throwIfAborted();
      return this.#leave(toAppError(error).message, undefined);
    }
    try {
      const { socket, first } = caller;
      const secure = await this.#acceptor.accept(socket, first, shown, limit.signal);
      return { ...this.#ways(caller, wish, shown), caller: secure, protocol: shown.protocol, application };
    } catch (error) {
      application?.resetAndDestroy();
      throw error;
    }
  }

  #leave(reason: string, ready: Socket | undefined): LeftTls {
    const { unread, port, log } = this.#options;
    unread.count(port, { tls: reason });
    log.debug("TLS connection not read", { port: port.containerPort, reason });
    return { caller: undefined, ready };
  }

  #takeTurn(): Disposable {
    this.#underWay += 1;
    return {
      [Symbol.dispose]: () => {
        this.#underWay -= 1;
      },
    };
  }

  /** Without asking anybody. */
  #whyUnreadable({ hello }: TlsCaller, wish: TlsWish): string | undefined {
    if (hello.maxVersion < tls12) return "its caller speaks no TLS 1.2 or later";
    if (hello.serverName !== undefined && !isRepeatable(hello.serverName)) {
      return "its caller named a server in a way that cannot be repeated";
    }
    if (hello.protocols.length > 0 && wish.protocols.length === 0) {
      const names = hello.protocols.slice(0, 3).map(printable).join(", ");
      return `its caller speaks ${names}, which holds no requests that can be read`;
    }
    if (this.#underWay > maxHandshakes) return "too many callers were amid their TLS handshakes";
    const obstacle = this.#options.certificates.obstacle(this.#choices());
    if (obstacle !== undefined) return `${obstacle}; ${nameIt}`;
    const known = this.#unreadable.get(keyOf(wish));
    return known !== undefined && known.untilMs > this.#options.clock.now() ? known.reason : undefined;
  }

  /** What the application shows this caller; where it cannot be asked, what it showed before. */
  async #ask(
    caller: TlsCaller,
    wish: TlsWish,
    signal: AbortSignal,
  ): Promise<{ readonly application: TLSSocket | undefined; readonly shown: Shown }> {
    let raw: Socket;
    try {
      raw = caller.ready ?? (await caller.dialApplication());
    } catch (error) {
      signal.throwIfAborted();
      // The laptop may answer all the same.
      const shown = this.#shown.get(keyOf(wish)) ?? this.#guess(wish);
      if (shown === undefined) throw error;
      return { application: undefined, shown };
    }
    try {
      const { application, certificate } = await this.#originate(raw, wish, this.#choices(), signal);
      const shown = { certificate, protocol: application.alpnProtocol || undefined };
      keep(this.#shown, keyOf(wish), shown);
      return { application, shown };
    } catch (error) {
      signal.throwIfAborted();
      const untilMs = this.#options.clock.now() + knownMs;
      keep(this.#unreadable, keyOf(wish), { reason: toAppError(error).message, untilMs });
      throw error;
    }
  }

  /** Where there is only one certificate, it is the application's. */
  #guess({ protocols }: TlsWish): Shown | undefined {
    const certificate = this.#options.certificates.only(this.#choices());
    return certificate === undefined ? undefined : { certificate, protocol: protocols[0] };
  }

  /** Throws what shows that callers' connections to it cannot be read. */
  async #originate(
    raw: Socket,
    wish: TlsWish,
    choices: readonly CertificateChoice[],
    signal: AbortSignal,
  ): Promise<Asked> {
    const socket = await originateTls(raw, wish, signal).catch((error: unknown) => {
      signal.throwIfAborted();
      if (error instanceof ClientCertificateWanted) throw error;
      const why = brief(toAppError(error).message);
      throw new AppError("unsupported", `the application made no TLS connection (${why})`, { cause: error });
    });
    const fingerprint = shownFingerprint(socket);
    const certificate = fingerprint === undefined ? undefined : this.#options.certificates.find(fingerprint, choices);
    if (certificate !== undefined && !asksForCertificate(socket)) return { application: socket, certificate };
    socket.destroy();
    if (certificate !== undefined) throw new ClientCertificateWanted();
    throw new AppError(
      "unsupported",
      `the key of the application's certificate is in none of the pod's volumes; ${nameIt}`,
    );
  }

  #choices(): readonly CertificateChoice[] {
    const { served, port } = this.#options;
    return [...served.of(port), ...served.tapsOf(port)].flatMap(({ tls }) => tls?.certificate ?? []);
  }

  #ways(caller: TlsCaller, { serverName }: TlsWish, { protocol }: Shown): Ways {
    const { clock } = this.#options;
    const choices = this.#choices(); // the connection may outlive the intercepts that made them
    const wish = { serverName, protocols: protocol === undefined ? [] : [protocol] };
    const secure = async (stream: Socket | TunnelStream, taken: Taken, signal?: AbortSignal) =>
      taken.tls?.plaintext === true ? stream : await this.#secureLaptop(stream, taken, wish, signal);
    return {
      dialApplication: async () => {
        using limit = deadline(clock, handshakeMs, "the application's TLS handshake", caller.signal);
        return (await this.#originate(await caller.dialApplication(), wish, choices, limit.signal)).application;
      },
      openLaptop: async (taken) => await secure(await caller.openLaptop(taken), taken, caller.signal),
      openTap: async (tap) => await secure(await caller.openTap(tap), tap),
    };
  }

  /** The process is spoken to as the application is, which it stands in for. */
  async #secureLaptop(
    stream: Socket | TunnelStream,
    taken: Taken,
    wish: TlsWish,
    signal?: AbortSignal,
  ): Promise<Socket> {
    using limit = deadline(this.#options.clock, laptopMs, "the process' TLS handshake", signal);
    try {
      return await originateTls(stream, wish, limit.signal);
    } catch (error) {
      signal?.throwIfAborted();
      const why = isAppError(error, "timeout") ? "took too long" : brief(toAppError(error).message);
      const reason = `the laptop's process made no TLS connection (${why}); --plaintext sends it plain HTTP`;
      taken.opener.countRefused(taken.interceptId);
      this.#options.unread.count(this.#options.port, { tls: reason });
      throw new AppError("refused", reason);
    }
  }
}

/** chosen: as long as the laptop has to take a connection. */
const laptopMs = 5000;

function keep<T>(map: Map<string, T>, key: string, value: T): void {
  if (map.size >= maxKnown) map.clear();
  map.set(key, value);
}

function understood({ protocols }: ClientHello): readonly string[] {
  return protocols.filter((name) => readProtocols.includes(name));
}

function isRepeatable(name: string): boolean {
  return name.length <= 253 && /^[\w.-]+$/.test(name) && isIP(name) === 0;
}

function keyOf({ serverName = "", protocols }: TlsWish): string {
  return [serverName, ...protocols].join("\n");
}

/** Names on the wire are bytes of a stranger. */
function printable(name: string): string {
  return name.slice(0, 40).replaceAll(/[^\x21-\x7e]/g, "?");
}

/** OpenSSL's own words, without numbers and places in its source. */
function brief(message: string): string {
  const [, , , , , reason] = message.split(":");
  return message.includes(":error:") && reason !== undefined ? reason : (message.split("\n")[0] ?? "");
}
