// Who is at the other end of a Unix socket, by the kernel's word (SO_PEERCRED): the credentials the peer had when it
// connected, or, seen from the connecting side, when the listener began to listen.
import type { Socket } from "node:net";
import { AppError } from "#base/error.ts";
import { checkCall, libc } from "./ffi.ts";

export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

const solSocket = 1;
const soPeercred = 17;

/** Of a connected Unix socket, given as Node's socket or as a descriptor. Throws when it is neither. */
export function peerCredentials(socket: Socket | number): PeerCredentials {
  const fd = typeof socket === "number" ? socket : descriptorOf(socket);
  const into = new Uint8Array(12);
  const length = Uint8Array.of(12, 0, 0, 0);
  checkCall(libc().getsockopt(fd, solSocket, soPeercred, into, length), "denied", "asking who is at a socket's end");
  const view = new DataView(into.buffer);
  const uid = view.getUint32(4, true);
  // A socket that is not of the Unix family answers with pid 0 and user -1.
  if (uid === 0xffff_ffff) throw new AppError("denied", "the socket's other end has no user; expected a Unix socket");
  return { pid: view.getInt32(0, true), uid, gid: view.getUint32(8, true) };
}

/** The descriptor below a socket of Node. The handle is Node's own field, so its shape is checked. */
export function descriptorOf(socket: Socket): number {
  const handle = (socket as Socket & { readonly _handle?: { readonly fd?: unknown } | null })._handle;
  const fd = handle?.fd;
  if (typeof fd !== "number" || fd < 0) throw new AppError("internal", "the socket has no descriptor; is it closed?");
  return fd;
}
