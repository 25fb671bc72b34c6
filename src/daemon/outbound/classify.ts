// First hop behind the device: one packet in, to the hop that knows its protocol. What no hop takes is counted.
// @to daemon/outbound/tcp-redirect.ts, daemon/outbound/udp-flow.ts, daemon/outbound/icmp.ts
import { isGroupAddress, sameAddress } from "#packet/address.ts";
import { PacketView, protocols } from "#packet/packet-view.ts";
import { Reassembly } from "#packet/reassembly.ts";
import type { FamilyAddresses } from "./addresses.ts";
import type { IcmpHop } from "./icmp.ts";
import type { DeviceWriter } from "./device-writer.ts";
import type { OutboundStats } from "./stats.ts";
import type { TcpRedirect } from "./tcp-redirect.ts";
import type { UdpFlows } from "./udp-flow.ts";

export interface FamilyHops {
  readonly own: FamilyAddresses;
  readonly tcp: TcpRedirect;
}

export interface ClassifyOptions {
  readonly v4: FamilyHops | undefined;
  readonly v6: FamilyHops | undefined;
  readonly udp: UdpFlows;
  readonly icmp: IcmpHop;
  readonly writer: DeviceWriter;
  readonly stats: OutboundStats;
  readonly now: () => number;
}

export class Classify {
  readonly #options: ClassifyOptions;
  readonly #view = new PacketView();
  readonly #reassembly = new Reassembly();

  constructor(options: ClassifyOptions) {
    this.#options = options;
  }

  /** Any packet from the device; it may be changed in place and is not kept. */
  handle(packet: Uint8Array): void {
    const { stats } = this.#options;
    const view = this.#view;
    stats.packetsIn++;
    if (view.load(packet) !== undefined) {
      stats.malformed++;
      return;
    }
    const hops = view.version === 4 ? this.#options.v4 : this.#options.v6;
    if (hops === undefined || isGroupAddress(view.bytes, view.destinationOffset, view.addressBytes)) {
      stats.ignored++;
      return;
    }
    if (view.fragment === "none") this.#dispatch(view, hops);
    else this.#onFragment(view, hops);
  }

  /** The kernel cuts datagrams that are longer than the device's MTU; TCP never is. */
  #onFragment(view: PacketView, hops: FamilyHops): void {
    this.#options.stats.fragments++;
    const whole = this.#reassembly.add(view, this.#options.now());
    if (whole !== undefined && view.load(whole) === undefined && view.protocol !== protocols.tcp) {
      this.#dispatch(view, hops);
    }
  }

  #dispatch(view: PacketView, hops: FamilyHops): void {
    const { udp, icmp, writer, stats } = this.#options;
    switch (view.protocol) {
      case protocols.tcp:
        hops.tcp.handle(view);
        return;
      case protocols.udp:
        if (isOwn(view, hops.own)) stats.ignored++;
        else udp.handle(view);
        return;
      case protocols.icmp:
      case protocols.icmpv6:
        if (isOwn(view, hops.own)) stats.ignored++;
        else icmp.handle(view);
        return;
      default:
        stats.otherProtocol++;
        if (!isOwn(view, hops.own) && view.protocol !== protocols.none) writer.refuse(view, "protocol");
    }
  }
}

/** The device's own network holds nothing of the cluster. */
function isOwn(view: PacketView, own: FamilyAddresses): boolean {
  const { bytes, destinationOffset } = view;
  return (
    sameAddress(own.peer, bytes, destinationOffset) ||
    sameAddress(own.address, bytes, destinationOffset) ||
    sameAddress(own.probe, bytes, destinationOffset)
  );
}
