// The C library by FFI: the few system calls Node lacks. Everything above deals in bytes; only this file meets koffi.
// Calls return the C result, or -errno when it is negative, so hot paths test a number and never catch.
// koffi is loaded at the first call: a program that needs no system call does not pay for it, nor needs the addon.
import { createRequire } from "node:module";
import type koffi from "koffi";
import { AppError } from "#base/error.ts";
import type { ErrorCode } from "#base/error.ts";

type Koffi = typeof koffi;
type Bytes = Uint8Array;

export interface Libc {
  open(path: string, flags: number): number;
  close(fd: number): number;
  read(fd: number, into: Bytes, length: number): number;
  write(fd: number, from: Bytes, length: number): number;
  ioctl(fd: number, request: number, argument: Bytes): number;
  socket(domain: number, type: number, protocol: number): number;
  socketpair(domain: number, type: number, protocol: number, into: Bytes): number;
  bind(fd: number, address: Bytes, length: number): number;
  connect(fd: number, address: Bytes, length: number): number;
  getsockname(fd: number, into: Bytes, length: Bytes): number;
  setsockopt(fd: number, level: number, name: number, value: Bytes, length: number): number;
  getsockopt(fd: number, level: number, name: number, into: Bytes, length: Bytes): number;
  sendto(fd: number, from: Bytes, length: number, flags: number, address: Bytes | null, addressLength: number): number;
  recv(fd: number, into: Bytes, length: number, flags: number): number;
  sendmsg(fd: number, header: Bytes, flags: number): number;
  recvmsg(fd: number, header: Bytes, flags: number): number;
  /** A second descriptor of the same thing, closed at exec. */
  duplicate(fd: number): number;
  /** A file that exists in memory only. */
  memfdCreate(name: string, flags: number): number;
  ftruncate(fd: number, length: number): number;
  /** Maps wherever the kernel likes; gives the address. */
  mmap(length: number, protection: number, flags: number, fd: number): number;
  mount(source: string, target: string, type: string, flags: number): number;
  umount(target: string, flags: number): number;
  prctl(option: number, argument: number): number;
  /** The handler as a number: 0 is the system's own. */
  signal(number: number, handler: number): number;
}

/** A watch on a descriptor's readiness in Node's own event loop. Close it before closing the descriptor. */
export interface ReadinessWatch {
  close(): void;
  /** Lets the process end although the watch is on. */
  unref(): void;
}

interface Loaded {
  readonly koffi: Koffi;
  readonly libc: Libc;
}
let loaded: Loaded | undefined;

export function libc(): Libc {
  return load().libc;
}

// koffi closes a poll handle when it is collected as garbage, so the live ones are held here.
const liveWatches = new Set<object>();

/**
 * Calls `onReadable` whenever `fd` has something to read (also at end of file), until closed. A descriptor bears one
 * watch in a process, and none that Node itself already reads.
 *
 * The poll handle calls back without Node around it: promises would not go on and an error would be lost. So the call
 * is made from an immediate, which Node runs in the same turn of the loop, after all that was ready.
 */
export function watchReadable(fd: number, onReadable: () => void): ReadinessWatch {
  return watch(fd, { readable: true }, onReadable);
}

/** The same for a socket that is connecting: called when it has connected, or failed to. */
export function watchWritable(fd: number, onWritable: () => void): ReadinessWatch {
  return watch(fd, { writable: true }, onWritable);
}

function watch(fd: number, events: { readable?: true; writable?: true }, onReady: () => void): ReadinessWatch {
  const run = (): void => {
    if (liveWatches.has(handle)) onReady();
  };
  const handle = load().koffi.node.poll(fd, events, () => void setImmediate(run));
  liveWatches.add(handle);
  return {
    unref: () => handle.unref(),
    close: () => {
      if (liveWatches.delete(handle)) handle.close();
    },
  };
}

/** The address of a buffer's first byte, for structures that hold pointers. The caller keeps the buffer alive. */
export function addressOf(bytes: Bytes): bigint {
  return load().koffi.address(bytes);
}

/** The name of an errno value, e.g. `EPERM`. */
export function errnoName(errno: number): string {
  const table = load().koffi.os.errno;
  return Object.keys(table).find((name) => table[name] === errno) ?? `errno ${errno}`;
}

/** Passes a result through, or throws `code` with a sentence: `what` failed, and why. */
export function checkCall(result: number, code: ErrorCode, what: string): number {
  if (result < 0) throw systemError(code, what, -result);
  return result;
}

/** A failed system call as a user-facing error; `fields.errno` holds the name for decisions. */
export function systemError(code: ErrorCode, what: string, errno: number): AppError {
  const name = errnoName(errno);
  const text = errnoTexts[name];
  const message = text === undefined ? `${what} failed with ${name}` : `${what} failed: ${text} (${name})`;
  return new AppError(code, message, { fields: { errno: name } });
}

const errnoTexts: Readonly<Record<string, string>> = {
  EPERM: "the kernel wants more privilege",
  EACCES: "permission is denied",
  ENOENT: "it does not exist",
  ENODEV: "there is no such device",
  ENXIO: "there is no such device",
  EBUSY: "another process holds it",
  EEXIST: "it exists already",
  EOPNOTSUPP: "this kernel does not support it",
  EPROTONOSUPPORT: "this kernel does not support it",
  EAFNOSUPPORT: "this kernel does not support the address family",
  ENOBUFS: "the kernel's buffer is full",
  EAGAIN: "nothing arrived in time",
};

const dupCloexec = 1030; // F_DUPFD_CLOEXEC

function load(): Loaded {
  loaded ??= bindLibc();
  return loaded;
}

function loadKoffi(): Koffi {
  try {
    return createRequire(import.meta.filename)("koffi") as Koffi;
  } catch (cause) {
    throw new AppError("unsupported", "the native addon koffi could not be loaded on this system", {
      cause,
      hint: "keep node_modules/koffi and node_modules/@koromix beside the program",
    });
  }
}

function bindLibc(): Loaded {
  const ffi = loadKoffi();
  // The process itself: Node is linked with the C library, whichever it is (glibc or musl).
  const self = ffi.load(null);
  const bind = (definition: string): ((...args: readonly unknown[]) => number) => {
    const call = self.func(definition) as (...args: readonly unknown[]) => number;
    return (...args) => {
      const result = call(...args);
      return result < 0 ? -ffi.errno() : result;
    };
  };
  // The packet path: the same without collecting the arguments.
  const transfer = (definition: string): ((fd: number, bytes: Bytes, length: number) => number) => {
    const call = self.func(definition) as (fd: number, bytes: Bytes, length: number) => number;
    return (fd, bytes, length) => {
      const result = call(fd, bytes, length);
      return result < 0 ? -ffi.errno() : result;
    };
  };
  const ioctl = bind("int ioctl(int fd, unsigned long request, ...)");
  const fcntl = bind("int fcntl(int fd, int command, ...)");
  const open = bind("int open(const char *path, int flags, ...)");
  const mmap = bind("intptr_t mmap(void *at, size_t length, int protection, int flags, int fd, int64_t offset)");
  const mount = bind(
    "int mount(const char *source, const char *at, const char *type, unsigned long flags, void *data)",
  );
  const prctl = bind("int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)");
  const api: Libc = {
    open: (path, flags) => open(path, flags, "int", 0),
    duplicate: (fd) => fcntl(fd, dupCloexec, "int", 3),
    close: bind("int close(int fd)"),
    read: transfer("intptr_t read(int fd, void *into, size_t length)"),
    write: transfer("intptr_t write(int fd, const void *from, size_t length)"),
    ioctl: (fd, request, argument) => ioctl(fd, request, "void *", argument),
    socket: bind("int socket(int domain, int type, int protocol)"),
    socketpair: bind("int socketpair(int domain, int type, int protocol, void *into)"),
    bind: bind("int bind(int fd, const void *address, uint32_t length)"),
    connect: bind("int connect(int fd, const void *address, uint32_t length)"),
    getsockname: bind("int getsockname(int fd, void *into, void *length)"),
    setsockopt: bind("int setsockopt(int fd, int level, int name, const void *value, uint32_t length)"),
    getsockopt: bind("int getsockopt(int fd, int level, int name, void *into, void *length)"),
    sendto: bind("intptr_t sendto(int fd, const void *from, size_t length, int flags, const void *to, uint32_t size)"),
    recv: bind("intptr_t recv(int fd, void *into, size_t length, int flags)"),
    sendmsg: bind("intptr_t sendmsg(int fd, const void *header, int flags)"),
    recvmsg: bind("intptr_t recvmsg(int fd, void *header, int flags)"),
    memfdCreate: bind("int memfd_create(const char *name, unsigned int flags)"),
    ftruncate: bind("int ftruncate(int fd, int64_t length)"),
    mount: (source, target, type, flags) => mount(source, target, type, flags, null),
    umount: bind("int umount2(const char *target, int flags)"),
    prctl: (option, argument) => prctl(option, argument, 0, 0, 0),
    signal: bind("intptr_t signal(int number, intptr_t handler)"),
    mmap: (length, protection, flags, fd) => mmap(null, length, protection, flags, fd, 0),
  };
  return { koffi: ffi, libc: api };
}
