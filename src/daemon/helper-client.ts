// The daemon's side of the root helper (DESIGN §7). The CLI connects to this door and gives the connection to the
// helper as its standard input; so whoever connects is the user (or root), and the helper is whoever answers `hello`.
// Where the helper is a service of the system, the daemon connects to it instead. Calls go one after the other. When the
// helper is gone everything it did for us is gone or goes with our device.
import { chmod, rm } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { deadline, raceSignal } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { softwareVersion } from "#base/version.ts";
import { libc } from "#kernel/ffi.ts";
import type { PacketDevice } from "#kernel/packet-device.ts";
import { descriptorOf, peerCredentials } from "#kernel/peer-cred.ts";
import { RouteSocket } from "#kernel/rtnetlink.ts";
import { TunDevice } from "#kernel/tun.ts";
import { UnixChannel } from "#kernel/unix-channel.ts";
import { parseAddress } from "#packet/address.ts";
import { decodeHelperError, helperApi, helperProtocol, helperReadySchema } from "#wire/helper.ts";
import { helperReplySchema, maxHelperLineBytes } from "#wire/helper.ts";
import type { DnsHook, HelperParams, HelperResult, HelperVerb } from "#wire/helper.ts";

/** chosen: the slowest answer is a DNS hook in place of another, 14 s at most (helper/dns-hook.ts). */
const callMs = 15_000;
/** chosen: a service's helper has started, and said who it is. */
const serviceMs = 15_000;
/** chosen: what undoing may take before the socket is simply closed, which undoes too. */
const byeMs = 3000;

/** A root helper that has said hello. One cluster session long: its end is `close`, and then another is started. */
export interface Helper {
  readonly version: string;
  readonly pid: number;
  /** Once. The device is up with its addresses; the caller closes it. */
  openDevice(params: HelperParams<"device.open">): Promise<{ name: string; index: number; device: PacketDevice }>;
  /** The whole set, in CIDR form; the difference to the last call is applied. */
  setRoutes(params: HelperParams<"routes.set">): Promise<HelperResult<"routes.set">>;
  /** In place of the hook that stands, if any. */
  hookDns(hook: DnsHook): Promise<void>;
  unhookDns(): Promise<void>;
  /** Name of the device that the kernel would use for the address now; asks the kernel, not the helper. */
  routeTo(address: string): Promise<string | undefined>;
  /** Calls back once when the helper is gone without `close`; at once when it already is. */
  onLost(callback: (error: AppError) => void): void;
  /** Lets the helper undo everything and end. Idempotent; never rejects. */
  close(): Promise<void>;
}

export interface HelperDoor extends AsyncDisposable {
  /** The helper that is there and alive. */
  readonly current: Helper | undefined;
  /** One is there, or on its way: sudo may be asking for a password. */
  readonly isExpected: boolean;
  /** The helper that is there, or the next that says hello. */
  wait(signal: AbortSignal): Promise<Helper>;
  /** Has the system's service start one, at its socket. Rejects when none comes up. */
  callService(socket: string, signal: AbortSignal): Promise<void>;
  /** What the helper was started for has failed: ends the one that is there or on its way. Resolves when it is gone. */
  dismiss(): Promise<void>;
}

export interface HelperDoorOptions {
  /** Path of the Unix socket; in a directory that is the user's alone. */
  readonly path: string;
  /** A helper is on its way. */
  readonly onCandidate?: () => void;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Listens for a helper; the caller holds the lock that makes a stale socket safe to remove. */
export async function openHelperDoor(options: HelperDoorOptions): Promise<HelperDoor> {
  const door = new Door(options);
  await door.listen();
  return door;
}

class Door implements HelperDoor {
  readonly #options: HelperDoorOptions;
  readonly #server: Server;
  /** Connected, not yet heard of: sudo may be asking for a password. */
  #candidate: HelperConnection | undefined;
  #current: HelperConnection | undefined;
  #arrival = Promise.withResolvers<Helper>();

  constructor(options: HelperDoorOptions) {
    this.#options = options;
    this.#server = createServer({ pauseOnConnect: true }, (socket) => this.#onConnection(socket));
  }

  get current(): Helper | undefined {
    return this.#current?.lost === undefined ? this.#current : undefined;
  }

  get isExpected(): boolean {
    return this.current !== undefined || this.#candidate !== undefined;
  }

  async wait(signal: AbortSignal): Promise<Helper> {
    return this.current ?? raceSignal(this.#arrival.promise, signal);
  }

  async callService(path: string, signal: AbortSignal): Promise<void> {
    using limit = deadline(this.#options.clock, serviceMs, "the start of the root helper's service", signal);
    const socket = await connectTo(path, limit.signal);
    let connection: HelperConnection | undefined;
    try {
      connection = this.#admit(socket, "root");
    } finally {
      socket.destroy(); // only Node's descriptor
    }
    if (connection === undefined)
      throw new AppError("helper_failed", "a root helper is there already, or is not root's");
    try {
      await raceSignal(this.#greet(connection), limit.signal);
    } catch (error) {
      connection.drop();
      throw error;
    }
  }

  async dismiss(): Promise<void> {
    this.#candidate?.drop();
    await this.#current?.close();
  }

  async listen(): Promise<void> {
    const { path } = this.#options;
    await rm(path, { force: true });
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject).listen(path, () => resolve());
    });
    this.#server.on("error", (error) => this.#options.log.error("helper door failed", { error: String(error) }));
    await chmod(path, 0o600);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    await this.dismiss();
    await closed;
  }

  #onConnection(socket: Socket): void {
    socket.on("error", () => undefined); // it is destroyed below in any case
    try {
      const connection = this.#admit(socket);
      if (connection !== undefined) void this.#greet(connection).catch(() => undefined); // it is in the log
    } catch (error) {
      this.#options.log.warn("helper connection failed", { error: String(error) });
    } finally {
      socket.destroy(); // only Node's descriptor: the connection has its own
    }
  }

  #admit(socket: Socket, whose: "user" | "root" = "user"): HelperConnection | undefined {
    const { log, clock } = this.#options;
    const { uid, pid } = peerCredentials(socket);
    if (uid !== 0 && (whose === "root" || uid !== process.getuid?.())) {
      log.warn("helper connection refused", { reason: "another user", uid, pid });
      return undefined;
    }
    if (this.current !== undefined) {
      log.warn("helper connection refused", { reason: "a helper is there already", pid });
      return undefined;
    }
    const fd = libc().duplicate(descriptorOf(socket));
    if (fd < 0) throw new AppError("helper_failed", "the helper's connection could not be taken over");
    this.#candidate?.drop();
    this.#candidate = new HelperConnection(fd, clock);
    this.#options.onCandidate?.();
    return this.#candidate;
  }

  /** Waits as long as it takes: a connection that comes to nothing is closed by the CLI. */
  async #greet(connection: HelperConnection): Promise<void> {
    const { log } = this.#options;
    try {
      await connection.greet();
    } catch (error) {
      log.info("helper did not come up", { error: String(error) });
      throw error;
    } finally {
      if (this.#candidate === connection) this.#candidate = undefined;
    }
    log.info("helper connected", { pid: connection.pid, version: connection.version });
    this.#current = connection;
    this.#arrival.resolve(connection);
    connection.onLost((error) => log.warn("helper lost", { error: error.message }));
    connection.onGone(() => {
      this.#arrival = Promise.withResolvers<Helper>();
    });
  }
}

/** Nothing is read of it by Node. */
function connectTo(path: string, signal: AbortSignal): Promise<Socket> {
  const socket = connect({ path });
  socket.pause();
  const connected = new Promise<Socket>((resolve, reject) => {
    socket.once("connect", () => resolve(socket));
    socket.on("error", (cause) => {
      const message = `the root helper's service does not answer on ${path}: ${cause.message}`;
      reject(new AppError("helper_failed", message, { cause }));
    });
  });
  return raceSignal(connected, signal).catch((error: unknown) => {
    socket.destroy();
    throw error;
  });
}

interface PendingCall {
  readonly id: number;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: AppError) => void;
}

class HelperConnection implements Helper {
  version = "";
  pid = 0;
  readonly #clock: Clock;
  readonly #channel: UnixChannel;
  readonly #lostCallbacks: ((error: AppError) => void)[] = [];
  readonly #goneCallbacks: (() => void)[] = [];
  readonly #ready = Promise.withResolvers<void>();
  #heard = false;
  #pending: PendingCall | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #nextId = 1;
  #lost: AppError | undefined;
  #closing: Promise<void> | undefined;

  constructor(fd: number, clock: Clock) {
    this.#clock = clock;
    this.#ready.promise.catch(() => undefined); // `greet` hears of it, or nobody waits
    this.#channel = new UnixChannel(fd, maxHelperLineBytes, {
      onLine: (line) => this.#onLine(line),
      onEnd: (error) => this.#lose(error ?? new AppError("helper_failed", "the root helper ended")),
    });
  }

  /** Why no call can succeed any more. */
  get lost(): AppError | undefined {
    return this.#lost;
  }

  /** Waits until the helper speaks, however long sudo may ask for a password, then asks who it is. */
  async greet(): Promise<void> {
    await this.#ready.promise;
    const answer = await this.#call("hello", { protocol: helperProtocol, version: softwareVersion });
    this.version = answer.version;
    this.pid = answer.pid;
  }

  async openDevice(
    params: HelperParams<"device.open">,
  ): Promise<{ name: string; index: number; device: PacketDevice }> {
    const { name, index, mtu } = await this.#call("device.open", params);
    const fd = this.#channel.takeFd();
    if (fd === undefined) throw new AppError("helper_failed", "the root helper's answer came without the device");
    return { name, index, device: new TunDevice(fd, mtu) };
  }
  setRoutes(params: HelperParams<"routes.set">): Promise<HelperResult<"routes.set">> {
    return this.#call("routes.set", params);
  }
  async hookDns(hook: DnsHook): Promise<void> {
    await this.#call("dns.hook", hook);
  }
  async unhookDns(): Promise<void> {
    await this.#call("dns.unhook", {});
  }

  routeTo(text: string): Promise<string | undefined> {
    return Promise.resolve().then(() => {
      const address = parseAddress(text);
      if (address === undefined) return undefined;
      using routes = new RouteSocket();
      const route = routes.routeTo(address);
      return routes.links().find((link) => link.ifIndex === route?.ifIndex)?.name;
    });
  }

  onLost(callback: (error: AppError) => void): void {
    if (this.#lost !== undefined && this.#closing === undefined) callback(this.#lost);
    else this.#lostCallbacks.push(callback);
  }
  /** Like onLost, after `close` too. */
  onGone(callback: () => void): void {
    this.#goneCallbacks.push(callback);
  }

  close(): Promise<void> {
    this.#closing ??= this.#sayBye();
    return this.#closing;
  }

  /** Ends a connection that was never a helper. */
  drop(): void {
    this.#closing ??= Promise.resolve();
    this.#lose(new AppError("cancelled", "the helper's connection was dropped"));
  }

  async #sayBye(): Promise<void> {
    // The limit holds for what is still under way, too. Closing the socket undoes as well, only unheard.
    using limit = deadline(this.#clock, byeMs, "ending the root helper");
    limit.signal.addEventListener("abort", () => this.#lose(limit.signal.reason as AppError), { once: true });
    await this.#call("bye", {}, "unlimited").catch(() => undefined);
    this.#lose(new AppError("cancelled", "the root helper was ended"));
  }

  /** One call at a time; a call that takes longer than `limitMs` ends the connection, since answers would mix up. */
  #call<V extends HelperVerb>(
    verb: V,
    params: HelperParams<V>,
    limitMs: number | "unlimited" = callMs,
  ): Promise<HelperResult<V>> {
    const run = async (): Promise<HelperResult<V>> => {
      if (limitMs === "unlimited") return this.#exchange(verb, params);
      using limit = deadline(this.#clock, limitMs, `the root helper's ${verb}`);
      const answer = this.#exchange(verb, params);
      limit.signal.addEventListener("abort", () => this.#lose(limit.signal.reason as AppError), { once: true });
      return await answer;
    };
    const result = this.#last.then(run);
    this.#last = result.catch(() => undefined);
    return result;
  }

  async #exchange<V extends HelperVerb>(verb: V, params: HelperParams<V>): Promise<HelperResult<V>> {
    if (this.#lost !== undefined) throw this.#lost;
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#pending = { id, resolve, reject };
    promise.catch(() => undefined); // a send that fails rejects it before it is awaited
    try {
      this.#channel.send(JSON.stringify({ id, verb, params }));
      const parsed = helperApi[verb].result.safeParse(await promise);
      if (parsed.success) return parsed.data as HelperResult<V>;
      throw new AppError("protocol", `the root helper's answer to ${verb} is malformed`, { cause: parsed.error });
    } finally {
      this.#pending = undefined;
    }
  }

  #onLine(line: string): void {
    if (!this.#heard && helperReadySchema.safeParse(parseJson(line)).success) {
      this.#heard = true;
      this.#ready.resolve();
      return;
    }
    const reply = helperReplySchema.safeParse(parseJson(line));
    const pending = this.#pending;
    if (!reply.success || pending === undefined || reply.data.id !== pending.id) {
      this.#lose(new AppError("protocol", "the root helper said something that is no answer"));
    } else if ("error" in reply.data) {
      pending.reject(decodeHelperError(reply.data.error));
    } else {
      pending.resolve(reply.data.result);
    }
  }

  #lose(error: AppError): void {
    if (this.#lost !== undefined) return;
    this.#lost = error;
    this.#channel.close();
    this.#ready.reject(error);
    this.#pending?.reject(error);
    for (const callback of this.#goneCallbacks.splice(0)) callback();
    if (this.#closing !== undefined) return;
    for (const callback of this.#lostCallbacks.splice(0)) callback(error);
  }
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined; // refused by the schema
  }
}
