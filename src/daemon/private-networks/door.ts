// Where private networks are brought: a Unix socket on which the process that makes one says for which `enter` it is and
// passes device and sockets. Each network ends with whoever called `enter`, not with the process that made it, which
// becomes the user's program.
import { chmod, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import type { Clock } from "#base/clock.ts";
import { AppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { libc } from "#kernel/ffi.ts";
import { descriptorOf, peerCredentials } from "#kernel/peer-cred.ts";
import { UnixChannel } from "#kernel/unix-channel.ts";
import {
  maxPrivateNetworkLineBytes,
  privateNetworkCalls,
  privateNetworkRequestSchema,
  type PrivateNetworkVerb,
} from "#wire/private-network.ts";
import { openPrivateNetwork, privateMtu, privateNameserver, privatePrefixes, type Ways } from "./private-network.ts";

export interface PrivateNetworksOptions {
  /** Of the socket; in a directory that is the user's alone. */
  readonly path: string;
  readonly clock: Clock;
  readonly log: Logger;
}

/** chosen: programs at once. */
const maxNetworks = 100;

/** One that was asked for; it may not have been brought yet. */
export interface PrivateNetwork {
  readonly id: number;
  end(): Promise<void>;
}

class Expected implements PrivateNetwork {
  readonly id: number;
  readonly ways: Ways;
  network: AsyncDisposable | undefined;
  taken = false;
  over = false;
  readonly #forget: () => void;

  constructor(id: number, ways: Ways, forget: () => void) {
    this.id = id;
    this.ways = ways;
    this.#forget = forget;
  }

  async end(): Promise<void> {
    this.over = true;
    this.#forget();
    await this.network?.[Symbol.asyncDispose]();
  }
}

export class PrivateNetworks implements AsyncDisposable {
  readonly #options: PrivateNetworksOptions;
  readonly #server: Server;
  readonly #expected = new Map<number, Expected>();
  #nextId = 1;

  private constructor(options: PrivateNetworksOptions) {
    this.#options = options;
    this.#server = createServer({ pauseOnConnect: true }, (socket) => this.#onConnection(socket));
  }

  /** The caller holds the lock that makes a stale socket safe to remove. */
  static async open(options: PrivateNetworksOptions): Promise<PrivateNetworks> {
    const networks = new PrivateNetworks(options);
    await rm(options.path, { force: true });
    await new Promise<void>((resolve, reject) => {
      networks.#server.once("error", reject).listen(options.path, () => resolve());
    });
    networks.#server.on("error", (error) =>
      options.log.error("private networks' door failed", { error: error.message }),
    );
    await chmod(options.path, 0o600);
    return networks;
  }

  get path(): string {
    return this.#options.path;
  }
  /** Programs, also those that are about to start. */
  get count(): number {
    return this.#expected.size;
  }

  expect(ways: Ways): PrivateNetwork {
    if (this.#expected.size >= maxNetworks) {
      throw new AppError("busy", `${maxNetworks} programs are in networks of their own already`);
    }
    const id = this.#nextId++;
    const expected = new Expected(id, ways, () => this.#expected.delete(id));
    this.#expected.set(id, expected);
    return expected;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    await Promise.all([...this.#expected.values()].map((expected) => expected.end()));
    await closed;
  }

  #onConnection(socket: Socket): void {
    socket.on("error", () => undefined); // it is destroyed below in any case
    const { log } = this.#options;
    try {
      const { uid } = peerCredentials(socket);
      if (uid !== process.getuid?.() && uid !== 0) throw new AppError("denied", `user ${uid} is not this daemon's`);
      const fd = libc().duplicate(descriptorOf(socket));
      if (fd < 0) throw new AppError("internal", "the connection could not be taken over");
      void new Maker(fd, (id) => this.#take(id), this.#options);
    } catch (error) {
      log.warn("a private network was refused", { error: String(error) });
    } finally {
      socket.destroy(); // only Node's descriptor: the maker has its own
    }
  }

  #take(id: number): Expected {
    const expected = this.#expected.get(id);
    if (expected === undefined || expected.taken) throw new AppError("not_found", `nobody waits for network ${id}`);
    expected.taken = true;
    return expected;
  }
}

/** The conversation with the process that makes one. Whatever is wrong ends it, and that process with an error. */
class Maker {
  readonly #channel: UnixChannel;
  readonly #take: (id: number) => Expected;
  readonly #options: PrivateNetworksOptions;
  readonly #listeners = new Map<string, number>();
  #expected: Expected | undefined;
  #device: { readonly deviceFd: number; readonly mtu: number } | undefined;

  constructor(fd: number, take: (id: number) => Expected, options: PrivateNetworksOptions) {
    this.#take = take;
    this.#options = options;
    this.#channel = new UnixChannel(fd, maxPrivateNetworkLineBytes, {
      onLine: (line) => void this.#onLine(line),
      onEnd: () => this.#drop(),
    });
  }

  async #onLine(line: string): Promise<void> {
    try {
      const { verb, params } = privateNetworkRequestSchema.parse(JSON.parse(line));
      const result = await this.#answer(verb, params);
      if (!this.#channel.closed) this.#channel.send(JSON.stringify({ result }));
    } catch (error) {
      const { code, message } = toAppError(error);
      this.#options.log.warn("a private network failed", { error: message });
      if (!this.#channel.closed)
        this.#channel.send(JSON.stringify({ error: { code, message: message.slice(0, 2000) } }));
      this.#channel.close();
      this.#drop();
    }
  }

  async #answer(verb: PrivateNetworkVerb, params: unknown): Promise<object> {
    if (verb === "begin") {
      this.#expected = this.#take(privateNetworkCalls.begin.params.parse(params).id);
      return { prefixes: privatePrefixes, mtu: privateMtu, nameserver: privateNameserver };
    }
    if (verb === "ready") {
      await this.#open();
      return {};
    }
    const fd = this.#channel.takeFd();
    if (fd === undefined) throw new AppError("protocol", `the ${verb} came without its descriptor`);
    if (verb === "device" && this.#device === undefined) {
      this.#device = { deviceFd: fd, mtu: privateNetworkCalls.device.params.parse(params).mtu };
    } else if (verb === "listener" && this.#listeners.size < privatePrefixes.length) {
      this.#listeners.set(privateNetworkCalls.listener.params.parse(params).address, fd);
    } else {
      libc().close(fd);
      throw new AppError("protocol", `one ${verb} too many`);
    }
    return {};
  }

  async #open(): Promise<void> {
    const [expected, device] = [this.#expected, this.#device];
    if (expected === undefined || device === undefined) throw new AppError("protocol", "the device is missing");
    const parts = { ...device, listeners: new Map(this.#listeners) };
    this.#device = undefined;
    this.#listeners.clear();
    const network = await openPrivateNetwork(parts, expected.ways, this.#options);
    expected.network = network;
    if (expected.over) await network[Symbol.asyncDispose]();
  }

  /** Descriptors that nobody took over. */
  #drop(): void {
    for (const fd of [...this.#listeners.values(), ...(this.#device === undefined ? [] : [this.#device.deviceFd])]) {
      libc().close(fd);
    }
    this.#listeners.clear();
    this.#device = undefined;
  }
}
