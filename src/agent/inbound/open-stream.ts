// The laptop's end of a connection: a stream through the manager, or the reason why the application must answer.
// @from agent/inbound/capture.ts, agent/inbound/http/http-ends.ts, agent/inbound/http2/http2-ends.ts, agent/inbound/taps/tap.ts, agent/inbound/taps/tap-udp.ts
// @to manager/inbound/relay.ts
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { isAppError } from "#base/error.ts";
import type { Taken } from "#agent/served.ts";
import type { TunnelStream } from "#tunnel/tunnel.ts";
import type { OpenRequest } from "#wire/open.ts";

/** chosen: a caller waits this long at most before the application answers instead (DESIGN §5). */
export const decisionMs = 5000;

export interface OpenInboundOptions {
  readonly taken: Taken;
  readonly request: Omit<Extract<OpenRequest, { kind: "inbound" }>, "kind" | "interceptId">;
  readonly clock: Clock;
  /** Aborts when the caller is gone. */
  readonly signal: AbortSignal;
}

/** Resolves when the laptop's process has taken the connection; rejects with why not. */
export async function openInbound(options: OpenInboundOptions): Promise<TunnelStream> {
  const { taken, request, clock, signal } = options;
  using limit = deadline(clock, decisionMs, "the laptop's answer", signal);
  try {
    return await taken.opener.open({ kind: "inbound", interceptId: taken.interceptId, ...request }, limit.signal);
  } catch (error) {
    if (isAppError(error, "refused")) taken.opener.countRefused(taken.interceptId);
    throw error;
  }
}
