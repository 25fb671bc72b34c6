// A netlink conversation. The kernel answers while the request is being sent, so calls are synchronous: what one waits
// for is there already, and a receive time-out guards against a kernel that does not answer.
import { AppError } from "#base/error.ts";
import type { ErrorCode } from "#base/error.ts";
import { checkCall, errnoName, libc, systemError } from "./ffi.ts";
import { decodeAcknowledgement, decodeMessages, nlmsgDone, nlmsgError } from "./netlink.ts";
import type { NetlinkMessage } from "./netlink.ts";

const afNetlink = 16;
const sockRaw = 3;
const sockCloexec = 0o2000000;
const solSocket = 1;
const soRcvtimeo = 20;
const soRcvbufforce = 33;
const solNetlink = 270;
const netlinkCapAck = 10;
const netlinkExtAck = 11;
/** chosen: the kernel needs microseconds. */
const receiveTimeoutSeconds = 5;
/** chosen: a dump arrives in datagrams of at most 32 KiB; a batch is acknowledged message by message. */
const receiveBytes = 64 * 1024;
const socketBufferBytes = 4 * 1024 * 1024;
const dumpInterrupted = 0x10;

export class NetlinkSocket implements Disposable {
  readonly #fd: number;
  readonly #code: ErrorCode;
  readonly #into = new Uint8Array(receiveBytes);
  #sequence = 0;
  #closed = false;

  /** `code` is what failures of this conversation are to the user. */
  constructor(protocol: number, code: ErrorCode) {
    this.#code = code;
    const c = libc();
    this.#fd = checkCall(c.socket(afNetlink, sockRaw | sockCloexec, protocol), code, "opening a netlink socket");
    const address = new Uint8Array(12);
    address[0] = afNetlink;
    const bound = c.bind(this.#fd, address, address.length);
    if (bound < 0) {
      c.close(this.#fd);
      throw systemError(code, "binding a netlink socket", -bound);
    }
    // Best effort all three: older kernels lack the options, and only say less then.
    const on = Uint8Array.of(1, 0, 0, 0);
    c.setsockopt(this.#fd, solNetlink, netlinkExtAck, on, 4);
    c.setsockopt(this.#fd, solNetlink, netlinkCapAck, on, 4);
    const size = new Uint8Array(new Int32Array([socketBufferBytes]).buffer);
    c.setsockopt(this.#fd, solSocket, soRcvbufforce, size, 4);
    const timeout = new Uint8Array(new BigInt64Array([BigInt(receiveTimeoutSeconds), 0n]).buffer);
    c.setsockopt(this.#fd, solSocket, soRcvtimeo, timeout, timeout.length);
  }

  get descriptor(): number {
    return this.#fd;
  }

  nextSequence(): number {
    this.#sequence = (this.#sequence + 1) >>> 0;
    return this.#sequence;
  }

  /**
   * Sends `bytes` and collects answers until each sequence number in `awaited` has been acknowledged or its dump is
   * done. Throws at the first refusal, with the kernel's words; `what` is the sentence's subject.
   */
  exchange(bytes: Uint8Array, awaited: ReadonlySet<number>, what: string): readonly NetlinkMessage[] {
    if (this.#closed) throw new AppError("internal", `${what}: the netlink socket is closed`);
    checkCall(libc().sendto(this.#fd, bytes, bytes.length, 0, null, 0), this.#code, what);
    const open = new Set(awaited);
    const answers: NetlinkMessage[] = [];
    let refusal: AppError | undefined;
    while (open.size > 0) {
      for (const message of this.#receive(what)) {
        if (!awaited.has(message.sequence)) continue; // an answer to a request that was given up
        refusal ??= this.#settle(message, what);
        if (message.type === nlmsgError || message.type === nlmsgDone) open.delete(message.sequence);
        else answers.push({ ...message, payload: Uint8Array.from(message.payload) });
        if (refusal !== undefined && message.type === nlmsgError) open.clear();
      }
    }
    if (refusal !== undefined) {
      this.#drain();
      throw refusal;
    }
    return answers;
  }

  /**
   * One dump, message by message while the kernel makes it, for what may be long. `visit` tells whether to go on; its
   * message is valid during the call only. After a "no" the rest of the dump is still to come: close the socket then.
   */
  dump(bytes: Uint8Array, sequence: number, what: string, visit: (message: NetlinkMessage) => boolean): void {
    if (this.#closed) throw new AppError("internal", `${what}: the netlink socket is closed`);
    checkCall(libc().sendto(this.#fd, bytes, bytes.length, 0, null, 0), this.#code, what);
    for (;;) {
      for (const message of this.#receive(what)) {
        if (message.sequence !== sequence) continue; // an answer to a request that was given up
        const refusal = this.#settle(message, what);
        if (refusal !== undefined) throw refusal;
        if (message.type === nlmsgError || message.type === nlmsgDone || !visit(message)) return;
      }
    }
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    libc().close(this.#fd);
  }

  #settle(message: NetlinkMessage, what: string): AppError | undefined {
    if ((message.flags & dumpInterrupted) !== 0 && message.type !== nlmsgError) {
      return new AppError(this.#code, `${what}: the tables changed while they were read`, {
        fields: { errno: "EINTR" },
      });
    }
    if (message.type !== nlmsgError) return undefined;
    const { errno, text } = decodeAcknowledgement(message);
    if (errno === 0) return undefined;
    if (text === undefined) return systemError(this.#code, what, errno);
    const fields = { errno: errnoName(errno) };
    return new AppError(this.#code, `${what} failed: ${text} (${errnoName(errno)})`, { fields });
  }

  #receive(what: string): readonly NetlinkMessage[] {
    const length = checkCall(libc().recv(this.#fd, this.#into, receiveBytes, 0), this.#code, what);
    return decodeMessages(this.#into.subarray(0, length));
  }

  /** A refused batch is answered once for each of its messages: take those away. */
  #drain(): void {
    const dontWait = 0x40;
    while (libc().recv(this.#fd, this.#into, receiveBytes, dontWait) > 0);
  }
}
