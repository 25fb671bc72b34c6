// OPEN and REJECT bodies (PROTOCOL §5): what a new stream is for, and why it was refused.
import { z } from "zod";

const port = z.number().int().min(0).max(65_535);
export const endpointSchema = z.object({ address: z.string().max(64), port });
/** An IP address (text form, no zone) and a port. */
export type Endpoint = z.infer<typeof endpointSchema>;

/** `10.1.2.3:80`, `[::1]:80`. */
export function formatEndpoint({ address, port: number }: Endpoint): string {
  return address.includes(":") ? `[${address}]:${number}` : `${address}:${number}`;
}

export const openRequestSchema = z.discriminatedUnion("kind", [
  /** JSON-RPC 2.0 with Content-Length framing; the first stream of each session. */
  z.object({ kind: z.literal("rpc"), api: z.enum(["manager", "agent", "introduction", "cloud"]) }),
  /** Laptop → manager: connect to this address; accepted when the connection stands. */
  z.object({ kind: z.literal("tcp"), target: endpointSchema }),
  /** Laptop → manager: a UDP flow; DATAGRAM frames both ways. */
  z.object({ kind: z.literal("udp"), target: endpointSchema }),
  /** Laptop → manager: echo requests to this address and its answers; DATAGRAM frames both ways (PROTOCOL §5.5). */
  z.object({ kind: z.literal("echo"), target: endpointSchema }),
  /** Agent → manager → laptop: a caller's connection (tcp) or flow (udp) to an intercepted port. */
  z.object({
    kind: z.literal("inbound"),
    protocol: z.enum(["tcp", "udp"]),
    interceptId: z.string().max(200),
    /** The container port that the caller reached. */
    containerPort: port,
    source: endpointSchema,
    podName: z.string().max(253),
  }),
  /** Cloud → manager: a connection to the ingress that is registered for this preview. */
  z.object({ kind: z.literal("preview"), previewId: z.string().max(100) }),
  /** Cloud → manager → laptop: HTTP/1.1 of the inspector (`inspector-api.ts`) for one of its intercepts. */
  z.object({ kind: z.literal("inspect"), interceptId: z.string().max(300) }),
  /** Manager → laptop: a connection to this cloud server, which is on the laptop's own loopback. */
  z.object({ kind: z.literal("cloud"), url: z.string().max(500) }),
]);
export type OpenRequest = z.infer<typeof openRequestSchema>;

/** Why a stream was refused or reset; numbers are on the wire (PROTOCOL §4.6). */
export const resetCodes = {
  cancelled: 1,
  refused: 2,
  unreachable: 3,
  timeout: 4,
  denied: 5,
  busy: 6,
  protocol: 7,
  internal: 8,
  link_lost: 9,
  unsupported: 10,
  not_found: 11,
  /** The connection behind the stream was reset by its own peer. */
  peer_reset: 12,
} as const;
export type ResetReason = keyof typeof resetCodes;
