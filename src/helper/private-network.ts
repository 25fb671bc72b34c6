// `telepresence run`: in user, network and mount namespaces that unshare(1) has made for it, this process makes the
// device, takes it and its sockets to the user daemon, and then becomes the user's program. It has no privilege outside of
// its namespaces, and everything here goes with their last process.
import { once } from "node:events";
import { constants, accessSync, readFileSync, statSync, writeSync } from "node:fs";
import { connect } from "node:net";
import { dirname, join, resolve } from "node:path";
import { systemClock } from "#base/clock.ts";
import { AppError, errorCodes, formatError, isAppError, toAppError, type ErrorCode } from "#base/error.ts";
import { checkCall, libc } from "#kernel/ffi.ts";
import { descriptorOf } from "#kernel/peer-cred.ts";
import { RouteSocket } from "#kernel/rtnetlink.ts";
import { prepareSuccessor } from "#kernel/successor.ts";
import { socketAddress } from "#kernel/transparent-dial.ts";
import { openTun } from "#kernel/tun.ts";
import { UnixChannel } from "#kernel/unix-channel.ts";
import { parseAddress, parsePrefix } from "#packet/address.ts";
import {
  maxPrivateNetworkLineBytes,
  privateNetworkCalls,
  privateNetworkReplySchema,
  type PrivateNetworkVerb,
} from "#wire/private-network.ts";
import { inheritedEnvironment } from "./config.ts";
import { useNameserver } from "./private-resolver.ts";

const deviceName = "tel0";
const loopback = { index: 1, mtu: 65_536 };
const sockStream = 1;
const sockNonblock = 0o4000;
const sockCloexec = 0o2000000;
/** chosen: an address of IPv6 is tentative at first. */
const bindRetryMs = 50;
const bindAttempts = 60;
/** The initial user namespace maps everybody (user_namespaces(7)). */
const everybody = /^\s*0\s+0\s+4294967295\s*$/;

/** `SOCKET ID -- COMMAND…`. Resolves with an exit code only when it has failed. */
export async function enterPrivateNetwork(words: readonly string[]): Promise<number> {
  try {
    const [socketPath = "", id = "", dashes, ...command] = words;
    if (dashes !== "--" || command.length === 0 || !/^\d{1,9}$/.test(id)) {
      throw new AppError("usage", "`telepresence run` starts this program");
    }
    // By hand as root it would change the laptop itself.
    if (everybody.test(readFileSync("/proc/self/uid_map", "utf8"))) {
      throw new AppError("denied", "this process is in no user namespace of its own", {
        hint: "`telepresence run` starts it",
      });
    }
    const environment = inheritedEnvironment();
    const file = findProgram(command[0] ?? "", environment["PATH"]);
    await makeNetwork(socketPath, Number(id));
    prepareSuccessor();
    process.execve?.(file, command, { ...environment });
    throw new AppError("internal", "the program did not take this process's place");
  } catch (error) {
    const failure = toAppError(error);
    writeSync(2, `telepresence: error: ${formatError(failure)}\n`);
    return errorCodes[failure.code].exit;
  }
}

async function makeNetwork(socketPath: string, id: number): Promise<void> {
  const daemon = await Daemon.connect(socketPath);
  const { prefixes, mtu, nameserver } = await daemon.ask("begin", { id });
  const { fd } = openDevice();
  const addresses = setUpLinks(prefixes, mtu);
  await daemon.ask("device", { mtu }, fd);
  libc().close(fd);
  for (const address of addresses) {
    const listener = await bindSocket(address);
    await daemon.ask("listener", { address }, listener);
    libc().close(listener);
  }
  useNameserver(nameserver, dirname(socketPath));
  await daemon.ask("ready", {});
  daemon.close();
}

function openDevice(): { readonly fd: number } {
  try {
    return openTun(deviceName);
  } catch (error) {
    if (!isAppError(error, "tun_unavailable")) throw error;
    throw new AppError("tun_unavailable", error.message, {
      cause: error,
      hint: "let your user open /dev/net/tun, load the kernel module tun, or use `telepresence connect --proxy`",
    });
  }
}

/** Everything leads to the device. Gives the addresses that it has. */
function setUpLinks(prefixes: readonly string[], mtu: number): readonly string[] {
  using routes = new RouteSocket();
  routes.setLinkUp(loopback.index, loopback.mtu);
  const index = routes.links().find(({ name }) => name === deviceName)?.ifIndex;
  if (index === undefined) throw new AppError("tun_unavailable", `the network device ${deviceName} went away at once`);
  routes.disableAutomaticAddress(index);
  routes.setLinkUp(index, mtu);
  const made: string[] = [];
  for (const prefix of prefixes) {
    const [address = ""] = prefix.split("/");
    const [bytes, network] = [parseAddress(address), parsePrefix(prefix)];
    const everything = parsePrefix(address.includes(":") ? "::/0" : "0.0.0.0/0");
    if (bytes === undefined || network === undefined || everything === undefined) continue;
    try {
      routes.addAddress(index, bytes, network.bits);
      routes.addRoute(everything, index);
      made.push(address);
    } catch (error) {
      if (!address.includes(":")) throw error; // a kernel without IPv6
    }
  }
  return made;
}

/** The daemon listens on it: a socket stays in the namespace in which it was made. */
async function bindSocket(address: string): Promise<number> {
  const at = socketAddress({ address, port: 0 });
  const c = libc();
  const what = `taking a port of ${address}`;
  const made = c.socket(at[0] ?? 0, sockStream | sockNonblock | sockCloexec, 0);
  const fd = checkCall(made, "tun_unavailable", what);
  for (let attempt = 1; ; attempt++) {
    const bound = c.bind(fd, at, at.length);
    if (bound >= 0) return fd;
    if (attempt === bindAttempts) return checkCall(bound, "tun_unavailable", what);
    await systemClock.sleep(bindRetryMs, new AbortController().signal);
  }
}

/** As execvp(3) finds it. */
function findProgram(file: string, path = "/usr/bin:/bin"): string {
  const folders = file.includes("/") ? [""] : path.split(":");
  for (const folder of folders) {
    const candidate = resolve(join(folder, file));
    try {
      accessSync(candidate, constants.X_OK);
      if (statSync(candidate).isFile()) return candidate;
    } catch {
      // not there
    }
  }
  throw new AppError("command_failed", `the command ${file} was not found`, { hint: "check its name and PATH" });
}

/** One question and one answer at a time. */
class Daemon {
  readonly #channel: UnixChannel;
  #answer = Promise.withResolvers<string>();

  private constructor(fd: number) {
    this.#channel = new UnixChannel(fd, maxPrivateNetworkLineBytes, {
      onLine: (line) => this.#answer.resolve(line),
      onEnd: (error) => {
        this.#answer.reject(error ?? new AppError("daemon_unreachable", "the user daemon ended"));
      },
    });
  }

  static async connect(path: string): Promise<Daemon> {
    const socket = connect({ path });
    try {
      await once(socket, "connect");
    } catch (cause) {
      throw new AppError("daemon_unreachable", "the user daemon does not take the command's network", { cause });
    }
    const fd = libc().duplicate(descriptorOf(socket));
    socket.destroy(); // only Node's descriptor
    return new Daemon(fd);
  }

  async ask<V extends PrivateNetworkVerb>(verb: V, params: object, passedFd?: number): Promise<Result<V>> {
    this.#answer = Promise.withResolvers<string>();
    this.#answer.promise.catch(() => undefined); // it is awaited below, unless sending fails first
    this.#channel.send(JSON.stringify({ verb, params }), passedFd);
    const reply = privateNetworkReplySchema.parse(JSON.parse(await this.#answer.promise));
    if ("result" in reply) return privateNetworkCalls[verb].result.parse(reply.result) as Result<V>;
    const { code, message } = reply.error;
    throw new AppError(Object.hasOwn(errorCodes, code) ? (code as ErrorCode) : "internal", message);
  }

  close(): void {
    this.#channel.close();
  }
}

type Result<V extends PrivateNetworkVerb> = ReturnType<(typeof privateNetworkCalls)[V]["result"]["parse"]>;
