// One descriptor beside some bytes over a connected Unix socket (SCM_RIGHTS, unix(7), cmsg(3)). Layout on 64-bit Linux:
//
//   msghdr   name* 8 | namelen 4 | pad 4 | iov* 8 | iovlen 8 | control* 8 | controllen 8 | flags 4 | pad 4
//   iovec    base* 8 | length 8              cmsghdr  len 8 | level 4 | type 4 | data …
//
// Neither call waits. Received descriptors are closed at exec; more than one in a message never get in.
import { addressOf, libc } from "./ffi.ts";

const msghdrBytes = 56;
const cmsgHeaderBytes = 16;
const controlBytes = 24; // room for exactly one descriptor
const solSocket = 1;
const scmRights = 1;
const msgDontwait = 0x40;
const msgNosignal = 0x4000;
const msgCmsgCloexec = 0x4000_0000;

/** Bytes taken by the kernel, or -errno. `passedFd` travels beside the first byte. */
export function sendWithFd(socketFd: number, bytes: Uint8Array, passedFd?: number): number {
  const control = new Uint8Array(controlBytes);
  if (passedFd !== undefined) {
    const view = new DataView(control.buffer);
    view.setBigUint64(0, BigInt(cmsgHeaderBytes + 4), true);
    view.setInt32(8, solSocket, true);
    view.setInt32(12, scmRights, true);
    view.setInt32(16, passedFd, true);
  }
  const message = buildMessage(bytes, control, passedFd === undefined ? 0 : controlBytes);
  return libc().sendmsg(socketFd, message.header, msgDontwait | msgNosignal);
}

export interface Received {
  /** Bytes read; 0 at end of stream; -errno when negative. */
  readonly length: number;
  /** A descriptor that came along; the caller owns it. */
  readonly fd: number | undefined;
}

export function receiveWithFd(socketFd: number, into: Uint8Array): Received {
  const control = new Uint8Array(controlBytes);
  const message = buildMessage(into, control, controlBytes);
  const length = libc().recvmsg(socketFd, message.header, msgDontwait | msgCmsgCloexec);
  if (length < 0) return { length, fd: undefined };
  return { length, fd: decodeRights(control, new DataView(message.header.buffer).getBigUint64(40, true)) };
}

function decodeRights(control: Uint8Array, controlLength: bigint): number | undefined {
  if (controlLength < BigInt(cmsgHeaderBytes + 4)) return undefined;
  const view = new DataView(control.buffer);
  const isRights = view.getInt32(8, true) === solSocket && view.getInt32(12, true) === scmRights;
  return isRights ? view.getInt32(16, true) : undefined;
}

/** The header and, kept alive with it, what it points at. */
function buildMessage(
  bytes: Uint8Array,
  control: Uint8Array,
  controlLength: number,
): { readonly header: Uint8Array; readonly vector: Uint8Array } {
  const vector = new Uint8Array(16);
  const vectorView = new DataView(vector.buffer);
  vectorView.setBigUint64(0, addressOf(bytes), true);
  vectorView.setBigUint64(8, BigInt(bytes.length), true);
  const header = new Uint8Array(msghdrBytes);
  const view = new DataView(header.buffer);
  view.setBigUint64(16, addressOf(vector), true);
  view.setBigUint64(24, 1n, true);
  if (controlLength > 0) {
    view.setBigUint64(32, addressOf(control), true);
    view.setBigUint64(40, BigInt(controlLength), true);
  }
  return { header, vector };
}
