// A socket that sends ICMP echo requests and gets their answers without privilege, where the kernel lets this process
// have one (net.ipv4.ping_group_range, which is about both families). The kernel writes identifier and checksum.
import { AppError } from "#base/error.ts";
import { libc, systemError } from "./ffi.ts";

const kinds = { 4: { family: 2, protocol: 1 }, 6: { family: 10, protocol: 58 } } as const;
const sockDgram = 2;
const sockNonblock = 0o4000;
const sockCloexec = 0o2000000;
const eacces = 13;
/** Every error that the network reports about a request, not only those that the kernel takes for final. */
const receiveErrors = { 4: { level: 0, name: 11 }, 6: { level: 41, name: 25 } } as const;
const yes = new Uint8Array([1, 0, 0, 0]);

/**
 * A descriptor that the caller owns: for Node a datagram socket like another, which is to be closed at its first error,
 * or it is reported for ever. `denied` where the kernel does not let us.
 */
export function openPingSocket(version: 4 | 6): number {
  const { family, protocol } = kinds[version];
  const c = libc();
  const result = c.socket(family, sockDgram | sockNonblock | sockCloexec, protocol);
  if (result >= 0) {
    const { level, name } = receiveErrors[version];
    c.setsockopt(result, level, name, yes, yes.length); // without it, silence tells as much
    return result;
  }
  if (result === -eacces) {
    throw new AppError("denied", "this pod may not send echo requests: net.ipv4.ping_group_range leaves its group out");
  }
  throw systemError("unreachable", "opening a socket for echo requests", -result);
}
