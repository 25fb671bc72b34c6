// TUN devices (Documentation/networking/tuntap.rst): not persistent, so a device, its addresses and its routes go with
// the last descriptor of it. The helper opens, the daemon reads and writes.
//
// Measured in Node 26.10 on 2 cores, TCP reflected through a device, MTU 65535: a poll watch and up to 64 reads a
// wake-up carry 10.6 Gbit/s; one read a wake-up 7.2; a libuv pipe over the descriptor 10.2, and a fifth less of small
// packets. A pending watch does not hold the process up at exit.
import { AppError } from "#base/error.ts";
import { errnoName, libc, systemError, watchReadable } from "./ffi.ts";
import type { Libc, ReadinessWatch } from "./ffi.ts";
import type { PacketDevice } from "./packet-device.ts";

const devicePath = "/dev/net/tun";
const tunsetiff = 0x4004_54ca;
const iffTun = 0x0001;
const iffNoPi = 0x1000;
const iffTunExcl = 0x8000;
const openReadWrite = 0o2;
const openNonblock = 0o4000;
const openCloexec = 0o2000000;
const ifreqBytes = 40;
const maxNameBytes = 15;
/** measured: more in a turn of the event loop gains nothing and delays what else is ready. */
const maxReadsInATurn = 64;
const eagain = 11;
const eintr = 4;
const eio = 5;

export interface OpenedTun {
  /** Not blocking, closed at exec; the caller owns it. */
  readonly fd: number;
  readonly name: string;
}

/**
 * Makes a device. `name` may hold `%d`, which the kernel numbers; a name that is taken is refused (EBUSY). Needs
 * NET_ADMIN. The device is down and has no address yet.
 */
export function openTun(name: string): OpenedTun {
  if (name.length === 0 || Buffer.byteLength(name) > maxNameBytes) {
    throw new AppError("internal", `the device name "${name}" does not have 1 to ${maxNameBytes} bytes`);
  }
  const c = libc();
  const fd = c.open(devicePath, openReadWrite | openNonblock | openCloexec);
  if (fd < 0) throw explainOpen(-fd);
  const request = new Uint8Array(ifreqBytes);
  request.set(Buffer.from(name));
  new DataView(request.buffer).setUint16(16, iffTun | iffNoPi | iffTunExcl, true);
  const made = c.ioctl(fd, tunsetiff, request);
  if (made < 0) {
    c.close(fd);
    throw systemError("tun_unavailable", `making the network device ${name}`, -made);
  }
  return { fd, name: Buffer.from(request.subarray(0, request.indexOf(0))).toString() };
}

function explainOpen(errno: number): AppError {
  const hints: Readonly<Record<string, string>> = {
    ENOENT: "load the kernel module: `sudo modprobe tun`",
    ENODEV: "load the kernel module: `sudo modprobe tun`",
    EACCES: "the root helper opens it; is it running as root?",
    EPERM: "the root helper opens it; in a container, allow the device and NET_ADMIN",
  };
  const hint = hints[errnoName(errno)];
  const error = systemError("tun_unavailable", `opening ${devicePath}`, errno);
  return new AppError(error.code, error.message, { fields: error.fields, ...(hint === undefined ? {} : { hint }) });
}

/** The data plane's side of a device. Takes the descriptor over. */
export class TunDevice implements PacketDevice {
  readonly mtu: number;
  readonly #fd: number;
  readonly #libc: Libc = libc();
  readonly #into: Uint8Array;
  #watch: ReadinessWatch | undefined;
  #onPacket: ((packet: Uint8Array) => void) | undefined;
  #onLost: ((error: AppError) => void) | undefined;
  #closed = false;

  constructor(fd: number, mtu: number) {
    this.#fd = fd;
    this.mtu = mtu;
    this.#into = new Uint8Array(mtu + 1);
  }

  onPacket(callback: (packet: Uint8Array) => void): void {
    this.#onPacket = callback;
    if (!this.#closed) this.#watch ??= watchReadable(this.#fd, () => this.#onReadable());
  }
  onLost(callback: (error: AppError) => void): void {
    this.#onLost = callback;
  }

  write(packet: Uint8Array): boolean {
    if (this.#closed) return false;
    return this.#libc.write(this.#fd, packet, packet.length) === packet.length;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#watch?.close();
    this.#libc.close(this.#fd);
  }

  #onReadable(): void {
    for (let reads = 0; reads < maxReadsInATurn && !this.#closed; reads++) {
      const length = this.#libc.read(this.#fd, this.#into, this.#into.length);
      if (length > 0) this.#onPacket?.(this.#into.subarray(0, length));
      else return this.#onNothingRead(-length);
    }
  }

  #onNothingRead(errno: number): void {
    // EIO is a device that is down: its packets come when it is up again.
    if (errno === eagain || errno === eintr || errno === eio) return;
    this.close();
    this.#onLost?.(systemError("tun_unavailable", "reading the network device", errno));
  }
}
