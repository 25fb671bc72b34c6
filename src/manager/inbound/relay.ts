// A caller's connection on its way to the laptop: the agent's stream is checked against what the agent was introduced
// for, opened on the laptop's link, and joined there. Bytes are passed, not read; a refusal travels back, so that the
// agent can give the connection to the application.
// @from agent/inbound/open-stream.ts
// @to daemon/inbound/accept.ts
import { AppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { AgentRecord } from "#manager/registry/agents.ts";
import type { Registry } from "#manager/registry/registry.ts";
import { joinDuplex } from "#tunnel/pipe.ts";
import { resetReasonOf } from "#tunnel/stream.ts";
import type { IncomingStream, TunnelStream } from "#tunnel/tunnel.ts";

export interface RelayOptions {
  readonly registry: Registry;
  readonly log: Logger;
}

/** Handles one stream that an agent opened; never throws. */
export async function relayInbound(incoming: IncomingStream, agent: AgentRecord, options: RelayOptions): Promise<void> {
  const { request } = incoming;
  if (request.kind !== "inbound") {
    incoming.reject("denied", `an agent may not open streams of kind "${request.kind}"`);
    return;
  }
  try {
    const { link, podName } = options.registry.route(agent, request);
    // The pod's name as this laptop vouched for it, not as the agent would like to be called.
    const toLaptop = await link.openInbound({ ...request, podName }, agent.link.suspends, incoming.signal);
    if (incoming.signal.aborted) {
      toLaptop.destroy(new AppError("cancelled", "the caller gave up"));
      return;
    }
    const fromAgent = incoming.accept();
    if (request.protocol === "udp") joinDatagrams(fromAgent, toLaptop);
    else joinDuplex(fromAgent, toLaptop);
  } catch (error) {
    if (incoming.signal.aborted) return;
    const refusal = toAppError(error);
    if (refusal.code === "denied") {
      options.log.warn("stream of an agent denied", { pod: agent.link.podName, reason: refusal.message });
    }
    incoming.reject(resetReasonOf(refusal), refusal.message);
  }
}

/** Passes datagrams both ways until either stream is over. */
function joinDatagrams(a: TunnelStream, b: TunnelStream): void {
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    from.onDatagram((datagram) => void to.sendDatagram(datagram));
    from.on("end", () => to.end());
    from.on("error", (error) => to.destroy(error));
    from.on("close", () => to.destroy());
  }
}
