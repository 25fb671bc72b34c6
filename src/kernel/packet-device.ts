// What a TUN device is to the data plane: whole IP packets in and out, nothing else. Direction is the laptop's:
// `onPacket` sees what programs send, `write` delivers to programs.
import type { AppError } from "#base/error.ts";

export interface PacketDevice {
  /** Largest packet, bytes, either way. */
  readonly mtu: number;
  /** Starts reading. The callee must not keep `packet` after returning: the next packet overwrites it. */
  onPacket(callback: (packet: Uint8Array) => void): void;
  /** Hands one packet to the kernel, at once. False when it was dropped (queue full, malformed, or closed). */
  write(packet: Uint8Array): boolean;
  /** Called once when the device goes away by itself; not after `close`. */
  onLost(callback: (error: AppError) => void): void;
  /** Stops reading and gives the device up; idempotent, takes effect at once. */
  close(): void;
}
