// The way back to the laptop's kernel, counted. A packet that the device does not take is lost, as on any wire.
import type { PacketDevice } from "#kernel/packet-device.ts";
import type { PacketView } from "#packet/packet-view.ts";
import type { OutboundStats } from "./stats.ts";

/** What outbound needs of the device. Packets it hands over are changed in place. */
export type OutboundDevice = Pick<PacketDevice, "onPacket" | "write">;

export class DeviceWriter {
  readonly #device: OutboundDevice;
  readonly #stats: OutboundStats;

  constructor(device: OutboundDevice, stats: OutboundStats) {
    this.#device = device;
    this.#stats = stats;
  }

  write(packet: Uint8Array): void {
    if (this.#device.write(packet)) this.#stats.packetsOut++;
    else this.#stats.packetsNotWritten++;
  }
  /** The loaded packet without its padding. */
  writeView(view: PacketView): void {
    this.write(view.end === view.bytes.length ? view.bytes : view.bytes.subarray(0, view.end));
  }
}
