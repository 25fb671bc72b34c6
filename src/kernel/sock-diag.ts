// The TCP connections of this network namespace, whichever process has them (sock_diag(7)). Reading needs no privilege;
// ending another process's connection needs NET_ADMIN and a kernel that was built with it.
import { AppError, isAppError, toAppError } from "#base/error.ts";
import { checkCall, libc } from "./ffi.ts";
import { NetlinkSocket } from "./netlink-socket.ts";
import {
  decodeConnection,
  decodeOwner,
  encodeConnectionDump,
  encodeDestroy,
  encodeLookup,
  protocols,
  tcpState,
} from "./sock-diag-messages.ts";
import type { DumpRequest, SocketEnd, SocketOwner, TcpConnection } from "./sock-diag-messages.ts";
import { socketAddress } from "./transparent-dial.ts";

const netlinkSockDiag = 4;
const afInet = 2;
const sockStream = 1;
const sockNonblock = 0o4000;
const sockCloexec = 0o2000000;
/** chosen: some 25 MB of ours at worst; no application that can be debugged holds more on one port. */
const maxConnections = 65_536;

export interface ConnectionQuery extends Omit<DumpRequest, "family" | "localPort" | "remotePort"> {
  /** Left out or 0 is any. */
  readonly localPort?: number;
  readonly remotePort?: number;
  /** `maxConnections` when left out. */
  readonly limit?: number;
}

export interface ConnectionList {
  readonly connections: readonly TcpConnection[];
  /** There are more than were read. */
  readonly truncated: boolean;
}

/** Both families; what opens or ends meanwhile may or may not be among them. */
export function listConnections(query: ConnectionQuery): ConnectionList {
  const { localPort = 0, remotePort = 0, states, limit = maxConnections } = query;
  const connections: TcpConnection[] = [];
  let truncated = false;
  for (const family of [4, 6] as const) {
    using socket = open(); // for each its own: a dump that is given up stays in its socket
    const sequence = socket.nextSequence();
    const request = encodeConnectionDump(sequence, { family, states, localPort, remotePort });
    try {
      socket.dump(request, sequence, "listing TCP connections", (message) => {
        const connection = decodeConnection(message);
        truncated = connection !== undefined && connections.length >= limit;
        if (connection !== undefined && !truncated) connections.push(connection);
        return !truncated;
      });
    } catch (error) {
      throw explain(error, listHints);
    }
    if (truncated) break;
  }
  return { connections, truncated };
}

type Ends = Pick<TcpConnection, "local" | "remote">;

/** The user whose program has this end of a connection of this host; undefined when no program has it (any more). */
export function connectionOwner(ends: Ends): number | undefined {
  const owner = findOwner(ends, protocols.tcp);
  return owner?.state === tcpState.listen ? undefined : owner?.uid; // found where there is no connection
}

/** The user whose program would get a datagram from `local` to `remote`, both of this host; undefined when none would. */
export function datagramOwner({ local, remote }: Ends): number | undefined {
  return findOwner({ local, remote }, protocols.udp)?.uid;
}

/** Whether this kernel tells owners, by a socket of ours that is there: one that listens, or one for datagrams. */
export function tellsOwners(own: SocketEnd, protocol: keyof typeof protocols): boolean {
  const nobody = { address: own.address.includes(":") ? "::" : "0.0.0.0", port: 0 };
  const ends = protocol === "tcp" ? { local: own, remote: nobody } : { local: nobody, remote: own };
  try {
    return findOwner(ends, protocols[protocol]) !== undefined;
  } catch (error) {
    if (isAppError(error, "unsupported")) return false;
    throw error;
  }
}

/** A module that is missing and a socket that is not there are told in the same way. */
function findOwner(ends: Ends, protocol: (typeof protocols)[keyof typeof protocols]): SocketOwner | undefined {
  using socket = open();
  const sequence = socket.nextSequence();
  try {
    const request = encodeLookup(sequence, ends, protocol);
    const answers = socket.exchange(request, new Set([sequence]), "finding a socket's owner");
    return answers.map(decodeOwner).find((owner) => owner !== undefined);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw explain(error, listHints);
  }
}

/**
 * Resets connections of other processes: the far end gets a reset, the process the error ECONNABORTED. Returns how many
 * were there still. Throws at the first refusal, `unsupported` when this kernel or our privilege does not allow it.
 */
export function destroyConnections(connections: readonly TcpConnection[]): number {
  if (connections.length === 0) return 0;
  using socket = open();
  let ended = 0;
  for (const connection of connections) {
    const sequence = socket.nextSequence();
    try {
      socket.exchange(encodeDestroy(sequence, connection), new Set([sequence]), "ending a TCP connection");
      ended += 1;
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === "ENOENT" || errno === "ESTALE") continue; // it ended by itself
      throw explain(error, destroyHints);
    }
  }
  return ended;
}

/** Why connections cannot be ended here; undefined when they can. Tried with a connection of our own to ourselves. */
export function destroyObstacle(): AppError | undefined {
  const c = libc();
  const what = "trying to end a connection";
  const fd = checkCall(c.socket(afInet, sockStream | sockNonblock | sockCloexec, 0), "unsupported", what);
  try {
    const own = socketAddress({ address: "127.0.0.1", port: 0 });
    checkCall(c.bind(fd, own, own.length), "unsupported", what);
    checkCall(c.getsockname(fd, own, Uint8Array.of(own.length, 0, 0, 0)), "unsupported", what);
    c.connect(fd, own, own.length); // to itself; whatever becomes of it, the kernel knows the connection
    const localPort = new DataView(own.buffer).getUint16(2);
    destroyConnections(listConnections({ localPort, states: [] }).connections);
    return undefined;
  } catch (error) {
    return toAppError(error);
  } finally {
    c.close(fd);
  }
}

const listHints: Readonly<Record<string, string>> = {
  ENOENT: "this kernel lacks the module tcp_diag (CONFIG_INET_TCP_DIAG)",
  EPROTONOSUPPORT: "this kernel lacks the module inet_diag (CONFIG_INET_DIAG)",
};
const destroyHints: Readonly<Record<string, string>> = {
  EPERM: "ending another process's connection needs the capability NET_ADMIN",
  EOPNOTSUPP: "this kernel was built without CONFIG_INET_DIAG_DESTROY",
  EINVAL: "this kernel is older than Linux 4.5, which cannot end connections",
};

function open(): NetlinkSocket {
  try {
    return new NetlinkSocket(netlinkSockDiag, "unsupported");
  } catch (error) {
    throw explain(error, listHints);
  }
}

function explain(error: unknown, hints: Readonly<Record<string, string>>): unknown {
  const reason = hints[errnoOf(error)];
  if (!isAppError(error) || reason === undefined) return error;
  return new AppError("unsupported", `${error.message}: ${reason}`, { fields: error.fields });
}

function errnoOf(error: unknown): string {
  return isAppError(error) ? String(error.fields["errno"]) : "";
}
