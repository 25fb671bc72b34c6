// The way back to the laptop's kernel, counted. A packet that the device does not take is lost, as on any wire. ICMP
// errors are bounded in number, as hosts and routers do (RFC 1812 §4.3.2.8, RFC 4443 §2.4 f).
import type { PacketDevice } from "#kernel/packet-device.ts";
import { buildIcmpError, type IcmpErrorReason } from "#packet/icmp.ts";
import type { PacketView } from "#packet/packet-view.ts";
import type { OutboundStats } from "./stats.ts";

/** What outbound needs of the device. Packets it hands over are changed in place. */
export type OutboundDevice = Pick<PacketDevice, "onPacket" | "write">;

/** chosen: Linux's own bound of what it sends. */
export const maxErrorsPerTick = 1000;

export class DeviceWriter {
  #errorsLeft = maxErrorsPerTick;
  readonly #device: OutboundDevice;
  readonly #stats: OutboundStats;

  constructor(device: OutboundDevice, stats: OutboundStats) {
    this.#device = device;
    this.#stats = stats;
  }

  /** False when the device did not take it. */
  write(packet: Uint8Array): boolean {
    const taken = this.#device.write(packet);
    if (taken) this.#stats.packetsOut++;
    else this.#stats.packetsNotWritten++;
    return taken;
  }
  /** Tells the loaded packet's sender why it could not be delivered, while not too many are told so. */
  refuse(view: PacketView, reason: IcmpErrorReason): void {
    if (this.#errorsLeft === 0) {
      this.#stats.icmpErrorsHeldBack++;
      return;
    }
    this.#errorsLeft--;
    this.#stats.icmpErrors++;
    this.write(buildIcmpError(view, reason));
  }
  /** Once a second. */
  tick(): void {
    this.#errorsLeft = maxErrorsPerTick;
  }
  /** The loaded packet without its padding. */
  writeView(view: PacketView): void {
    this.write(view.end === view.bytes.length ? view.bytes : view.bytes.subarray(0, view.end));
  }
}
