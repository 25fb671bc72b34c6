// Manager ↔ cloud server (PROTOCOL §8.11): JSON-RPC on the first stream of a session over a WebSocket that the manager
// opens. Previews and inspector come as streams of the other direction.
import { z } from "zod";
import { cloudInterceptId, reportedIntercept } from "./cloud-api.ts";
import { method } from "./rpc.ts";

/** Subprotocol of the WebSocket. */
export const tunnelProtocol = "tunnel.telepresence";

const empty = z.object({});

/** chosen: intercepts of one report; what is more is counted. */
export const maxReported = 1000;

/** Methods that the manager calls. */
export const cloudTunnelApi = {
  /** First call. Another tunnel of the same instance makes way, drained. */
  arrive: method(z.object({ instance: z.string().min(1).max(64), version: z.string().max(64) }), empty),
  /** All intercepts, after each change; the answer means that it counts. */
  report: method(z.object({ intercepts: z.array(reportedIntercept).max(maxReported), more: z.number().int() }), empty),
} as const;

export const cloudTunnelNotifications = {
  /** Its intercept has ended: nobody shall come by it again. */
  "preview.gone": z.object({ previewId: z.string().max(100) }),
} as const;

/** Methods that the cloud server calls. */
export const managerTunnelApi = {
  /** `by` is who did it, for the laptop whose it was. */
  "intercept.end": method(z.object({ id: cloudInterceptId, by: z.string().max(300) }), empty),
} as const;
