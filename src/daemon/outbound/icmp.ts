// ICMP from the laptop's kernel: echo requests go to the cluster, a "port unreachable" about an answer of ours ends that
// UDP flow early, and all else is the laptop's own.
// @from daemon/outbound/classify.ts
// @to daemon/outbound/echo-flow.ts
import { isEchoRequest } from "#packet/icmp-echo.ts";
import { quotedPacket, readQuotedUdp } from "#packet/icmp.ts";
import type { PacketView } from "#packet/packet-view.ts";
import type { EchoFlows } from "./echo-flow.ts";
import type { OutboundStats } from "./stats.ts";
import type { UdpFlows } from "./udp-flow.ts";

export interface IcmpHopOptions {
  readonly stats: OutboundStats;
  readonly udp: Pick<UdpFlows, "programGone">;
  readonly echo: Pick<EchoFlows, "handle">;
}

export class IcmpHop {
  readonly #options: IcmpHopOptions;

  constructor(options: IcmpHopOptions) {
    this.#options = options;
  }

  handle(view: PacketView): void {
    const { stats, udp, echo } = this.#options;
    if (isEchoRequest(view)) {
      echo.handle(view);
      return;
    }
    const quote = quotedPacket(view);
    const quoted = quote === undefined ? undefined : readQuotedUdp(quote);
    if (quoted === undefined) stats.ignored++;
    else udp.programGone(quoted);
  }
}
