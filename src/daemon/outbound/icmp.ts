// ICMP from the laptop's kernel. The tunnel carries none: an echo request stays unanswered and is counted; a "port
// unreachable" about an answer of ours ends that UDP flow early.
// @from daemon/outbound/classify.ts
import { isEchoRequest, quotedPacket, readQuotedUdp } from "#packet/icmp.ts";
import type { PacketView } from "#packet/packet-view.ts";
import type { OutboundStats } from "./stats.ts";
import type { UdpFlows } from "./udp-flow.ts";

export class IcmpHop {
  readonly #stats: OutboundStats;
  readonly #udp: Pick<UdpFlows, "programGone">;

  constructor(stats: OutboundStats, udp: Pick<UdpFlows, "programGone">) {
    this.#stats = stats;
    this.#udp = udp;
  }

  handle(view: PacketView): void {
    if (isEchoRequest(view)) {
      this.#stats.echoRequests++;
      return;
    }
    const quote = quotedPacket(view);
    const udp = quote === undefined ? undefined : readQuotedUdp(quote);
    if (udp === undefined) this.#stats.ignored++;
    else this.#udp.programGone(udp);
  }
}
