// A laptop's stream arrives in the cluster: the address is judged and dialled, and only then is the stream accepted,
// so that the laptop's program sees a refusal as a refusal (DESIGN 7).
// @from daemon/outbound/open-stream.ts
// @to egress/dial.ts, egress/udp-flow.ts, egress/echo.ts
import type { Clock } from "#base/clock.ts";
import { toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { joinDuplex } from "#tunnel/pipe.ts";
import { resetReasonOf } from "#tunnel/stream.ts";
import type { IncomingStream } from "#tunnel/tunnel.ts";
import { formatEndpoint } from "#wire/open.ts";
import type { Endpoint, OpenRequest } from "#wire/open.ts";
import type { Dialer } from "./dial.ts";
import { connectUdp, joinUdp } from "./udp-flow.ts";

export interface OutboundOptions {
  readonly dialer: Dialer;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Of the kinds that ask for somebody in the cluster. */
export function isOutbound(request: OpenRequest): request is OpenRequest & { readonly kind: "tcp" | "udp" | "echo" } {
  return request.kind === "tcp" || request.kind === "udp" || request.kind === "echo";
}

/** Handles one `tcp`, `udp` or `echo` stream of a laptop; never throws. */
export async function acceptOutbound(incoming: IncomingStream, options: OutboundOptions): Promise<void> {
  const { request } = incoming;
  if (!isOutbound(request)) {
    incoming.reject("unsupported", `streams here are of kind tcp, udp or echo, not "${request.kind}"`);
    return;
  }
  try {
    const accept = { tcp: acceptTcp, udp: acceptUdp, echo: acceptEcho }[request.kind];
    await accept(incoming, request.target, options);
  } catch (error) {
    const refusal = toAppError(error);
    if (refusal.code === "denied") {
      options.log.warn("dial refused", { target: formatEndpoint(request.target), reason: refusal.message });
    }
    if (!incoming.signal.aborted) incoming.reject(resetReasonOf(refusal), refusal.message);
  }
}

async function acceptTcp(incoming: IncomingStream, target: Endpoint, options: OutboundOptions): Promise<void> {
  const socket = await options.dialer.dialTcp(target, incoming.signal);
  if (incoming.signal.aborted) socket.destroy();
  else joinDuplex(incoming.accept(), socket);
}

async function acceptUdp(incoming: IncomingStream, target: Endpoint, options: OutboundOptions): Promise<void> {
  options.dialer.admit(target);
  const socket = await connectUdp(target);
  if (incoming.signal.aborted) socket.close();
  else joinUdp(incoming.accept(), socket, { target, clock: options.clock });
}

/** Loaded when it is first asked for: few ping. */
async function acceptEcho(incoming: IncomingStream, target: Endpoint, options: OutboundOptions): Promise<void> {
  options.dialer.admit(target);
  const { connectEcho, carryEcho } = await import("./echo.ts");
  const socket = await connectEcho(target);
  if (incoming.signal.aborted) socket.close();
  else joinUdp(incoming.accept(), socket, { target, clock: options.clock, carried: carryEcho(target) });
}
