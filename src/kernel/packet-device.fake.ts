// Two devices whose ends are joined in memory: what one writes, the other reads, in order, in a later microtask. Like
// the kernel's queue the pair is bounded and drops what does not fit.
import { AppError } from "#base/error.ts";
import type { PacketDevice } from "./packet-device.ts";

/** chosen: the kernel's default is 500 packets a queue. */
const maxQueuedPackets = 500;

export class FakePacketDevice implements PacketDevice {
  readonly mtu: number;
  #twin: FakePacketDevice | undefined;
  #onPacket: ((packet: Uint8Array) => void) | undefined;
  #onLost: ((error: AppError) => void) | undefined;
  #queue: Uint8Array[] = [];
  #scheduled = false;
  #closed = false;

  private constructor(mtu: number) {
    this.mtu = mtu;
  }

  static pair(mtu = 65_535): readonly [FakePacketDevice, FakePacketDevice] {
    const left = new FakePacketDevice(mtu);
    const right = new FakePacketDevice(mtu);
    left.#twin = right;
    right.#twin = left;
    return [left, right];
  }

  get closed(): boolean {
    return this.#closed;
  }
  onPacket(callback: (packet: Uint8Array) => void): void {
    this.#onPacket = callback;
    this.#schedule();
  }
  onLost(callback: (error: AppError) => void): void {
    this.#onLost = callback;
  }
  write(packet: Uint8Array): boolean {
    if (this.#closed || packet.length === 0 || packet.length > this.mtu) return false;
    return this.#twin !== undefined && this.#twin.#accept(Uint8Array.from(packet));
  }
  close(): void {
    this.#closed = true;
    this.#queue = [];
  }
  /** The device goes away under its holder, as when its namespace is removed. */
  lose(): void {
    if (this.#closed) return;
    this.close();
    this.#onLost?.(new AppError("tun_unavailable", "the fake device went away"));
  }

  #accept(packet: Uint8Array): boolean {
    if (this.#closed || this.#queue.length >= maxQueuedPackets) return false;
    this.#queue.push(packet);
    this.#schedule();
    return true;
  }
  #schedule(): void {
    if (this.#scheduled || this.#onPacket === undefined || this.#queue.length === 0) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      for (const packet of this.#queue.splice(0)) this.#onPacket?.(packet);
    });
  }
}
