// A TCP connection in another host's name: a transparent socket, bound to an address that is not this host's, whose
// packets bear a mark. Needs NET_ADMIN, and rules that bring the answers back (nft-rules.ts, mark-routes.ts).
import { AppError } from "#base/error.ts";
import { parseAddress } from "#packet/address.ts";
import { formatEndpoint } from "#wire/open.ts";
import { checkCall, errnoName, libc, systemError, watchWritable } from "./ffi.ts";

export interface HostPort {
  readonly address: string;
  readonly port: number;
}

export interface TransparentDial {
  /** Where the connection shall seem to come from; port 0 leaves the choice to the kernel. */
  readonly from: HostPort;
  readonly to: HostPort;
  readonly mark: number;
  readonly signal: AbortSignal;
}

const afInet = 2;
const afInet6 = 10;
const sockStream = 1;
const sockNonblock = 0o4000;
const sockCloexec = 0o2000000;
const solSocket = 1;
const soReuseaddr = 2;
const soMark = 36;
const ipTransparent = { level: 0, name: 19 } as const;
const ipv6Transparent = { level: 41, name: 75 } as const;
/** The port is chosen at connect, when the other end is known: any that is free towards that end will do. */
const ipBindAddressNoPort = { level: 0, name: 24 } as const;
const einprogress = 115;
const ealready = 114;

/**
 * A connected descriptor, not blocking, that the caller owns. Rejects with `refused` when nobody listens, with
 * `port_in_use` when the source port is not free (try port 0), with `unsupported` when the kernel does not do this.
 */
export async function dialTransparent(dial: TransparentDial): Promise<number> {
  dial.signal.throwIfAborted();
  const to = socketAddress(dial.to);
  const from = socketAddress(dial.from);
  if (to[0] !== from[0]) {
    throw new AppError("internal", `${dial.from.address} and ${dial.to.address} are not of one address family`);
  }
  const c = libc();
  const fd = checkCall(
    c.socket(to[0] ?? 0, sockStream | sockNonblock | sockCloexec, 0),
    "unsupported",
    "opening a transparent socket",
  );
  try {
    prepare(fd, dial, from);
    await connected(fd, to, dial);
    return fd;
  } catch (error) {
    c.close(fd);
    throw error;
  }
}

function prepare(fd: number, dial: TransparentDial, from: Uint8Array): void {
  const c = libc();
  const transparent = from.length === 16 ? ipTransparent : ipv6Transparent;
  const set = (level: number, name: number, value: number): number => {
    const bytes = new Uint8Array(new Uint32Array([value]).buffer);
    return c.setsockopt(fd, level, name, bytes, bytes.length);
  };
  checkCall(set(transparent.level, transparent.name, 1), "unsupported", "making a socket transparent");
  checkCall(set(solSocket, soMark, dial.mark), "unsupported", "marking a socket");
  set(solSocket, soReuseaddr, 1); // it can fail on no kernel that has the above
  if (dial.from.port === 0) set(ipBindAddressNoPort.level, ipBindAddressNoPort.name, 1); // best effort
  const bound = c.bind(fd, from, from.length);
  if (bound < 0) throw dialError(`binding to ${formatEndpoint(dial.from)}`, -bound);
}

/** A second call of connect tells the outcome of the first, or that there is none yet. */
function connected(fd: number, to: Uint8Array, dial: TransparentDial): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const c = libc();
  const attempt = (): boolean => {
    const result = c.connect(fd, to, to.length);
    if (result === -einprogress || result === -ealready) return false;
    if (result === 0) resolve();
    else reject(dialError(`connecting to ${formatEndpoint(dial.to)}`, -result));
    return true;
  };
  // Within one host the handshake is over when the first call returns.
  if (attempt() || attempt()) return promise;
  const finish = (): void => {
    watch.close();
    dial.signal.removeEventListener("abort", onAbort);
  };
  const onAbort = (): void => {
    finish();
    reject(dial.signal.reason as Error);
  };
  const watch = watchWritable(fd, () => {
    if (attempt()) finish();
  });
  dial.signal.addEventListener("abort", onAbort, { once: true });
  return promise;
}

function dialError(what: string, errno: number): AppError {
  const name = errnoName(errno);
  if (name === "ECONNREFUSED") return systemError("refused", what, errno);
  if (name === "EADDRINUSE" || name === "EADDRNOTAVAIL") return systemError("port_in_use", what, errno);
  return systemError("unsupported", what, errno);
}

/** sockaddr_in (16 bytes) or sockaddr_in6 (28). */
export function socketAddress({ address, port }: HostPort): Uint8Array {
  const bytes = parseAddress(address);
  if (bytes === undefined) throw new AppError("internal", `"${address}" is not an IP address`);
  const isIpv4 = bytes.length === 4;
  const result = new Uint8Array(isIpv4 ? 16 : 28);
  result[0] = isIpv4 ? afInet : afInet6;
  result[2] = port >>> 8;
  result[3] = port & 0xff;
  result.set(bytes, isIpv4 ? 4 : 8);
  return result;
}
