// One descriptor beside some bytes over a connected Unix socket (SCM_RIGHTS, unix(7), cmsg(3)). Layout on 64-bit Linux:
//
//   msghdr   name* 8 | namelen 4 | pad 4 | iov* 8 | iovlen 8 | control* 8 | controllen 8 | flags 4 | pad 4
//   iovec    base* 8 | length 8              cmsghdr  len 8 | level 4 | type 4 | data …
//
// Neither call waits. Received descriptors are closed at exec; more than one in a message never get in.
import { addressOf, libc } from "./ffi.ts";

// The kernel is given addresses, so these must not move: V8 keeps small typed arrays on its moving heap, but never an
// ArrayBuffer's own memory. One set is enough, because calls do not wait.
const header = new Uint8Array(new ArrayBuffer(56));
const vector = new Uint8Array(new ArrayBuffer(16));
const control = new Uint8Array(new ArrayBuffer(24)); // room for exactly one descriptor
const headerView = new DataView(header.buffer);
const vectorView = new DataView(vector.buffer);
const controlView = new DataView(control.buffer);

const cmsgHeaderBytes = 16;
const solSocket = 1;
const scmRights = 1;
const msgDontwait = 0x40;
const msgNosignal = 0x4000;
const msgCmsgCloexec = 0x4000_0000;

/** Bytes taken by the kernel, or -errno. `passedFd` travels beside the first byte. */
export function sendWithFd(socketFd: number, bytes: Uint8Array, passedFd?: number): number {
  control.fill(0);
  if (passedFd !== undefined) {
    controlView.setBigUint64(0, BigInt(cmsgHeaderBytes + 4), true);
    controlView.setInt32(8, solSocket, true);
    controlView.setInt32(12, scmRights, true);
    controlView.setInt32(16, passedFd, true);
  }
  const stable = copyToStable(bytes);
  fillHeader(stable, bytes.length, passedFd !== undefined);
  return libc().sendmsg(socketFd, header, msgDontwait | msgNosignal);
}

export interface Received {
  /** Bytes read; 0 at end of stream; -errno when negative. */
  readonly length: number;
  /** A descriptor that came along; the caller owns it. */
  readonly fd: number | undefined;
}

/** `into` is all of an ArrayBuffer's memory, so that it does not move. */
export function receiveWithFd(socketFd: number, into: Uint8Array<ArrayBuffer>): Received {
  control.fill(0);
  fillHeader(into, into.length, true);
  const length = libc().recvmsg(socketFd, header, msgDontwait | msgCmsgCloexec);
  return { length, fd: length < 0 ? undefined : decodeRights() };
}

function decodeRights(): number | undefined {
  if (headerView.getBigUint64(40, true) < BigInt(cmsgHeaderBytes + 4)) return undefined;
  const isRights = controlView.getInt32(8, true) === solSocket && controlView.getInt32(12, true) === scmRights;
  return isRights ? controlView.getInt32(16, true) : undefined;
}

function copyToStable(bytes: Uint8Array): Uint8Array {
  const stable = new Uint8Array(new ArrayBuffer(bytes.length));
  stable.set(bytes);
  return stable;
}

function fillHeader(bytes: Uint8Array, length: number, withControl: boolean): void {
  vectorView.setBigUint64(0, addressOf(bytes), true);
  vectorView.setBigUint64(8, BigInt(length), true);
  header.fill(0);
  headerView.setBigUint64(16, addressOf(vector), true);
  headerView.setBigUint64(24, 1n, true);
  if (!withControl) return;
  headerView.setBigUint64(32, addressOf(control), true);
  headerView.setBigUint64(40, BigInt(control.length), true);
}
