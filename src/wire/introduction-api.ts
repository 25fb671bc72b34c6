// Laptop ↔ agent (PROTOCOL §8.3, DESIGN 4): JSON-RPC over the API server's port-forward to the agent's loopback port.
// The right to intercept a workload is `pods/portforward` on its pods, and nothing else.
import { z } from "zod";
import { agentConfigSchema, maxSessionIdLength } from "./agent-api.ts";
import { method } from "./rpc.ts";
import { whyAnswerSchema, whyParamsSchema } from "./why.ts";

export const introductionApi = {
  /** Who the agent is: the key that the manager must pin. */
  identify: method(
    z.object({}),
    z.object({
      fingerprint: z.string(),
      podName: z.string(),
      podUid: z.string(),
      podIps: z.array(z.string()),
      version: z.string(),
      config: agentConfigSchema,
    }),
  ),
  /**
   * The manager to serve, and for whom; answers when the agent's link to it stands and the manager has taken the session
   * for introduced, or fails with the reason. Idempotent.
   */
  introduce: method(
    z.object({
      manager: z.object({
        podIps: z.array(z.string()).min(1).max(8),
        port: z.number().int().min(1).max(65_535),
        /** SHA-256 of the manager's public key (SPKI), lower-case hex. */
        fingerprint: z.string().regex(/^[0-9a-f]{64}$/),
        namespace: z.string(),
      }),
      /** The laptop's session at that manager. The agent names it there, and so proves that this laptop was here. */
      sessionId: z.string().min(1).max(maxSessionIdLength),
      /** By which the agent knows this laptop's canaries (canary.ts) from callers. */
      canarySecret: z
        .string()
        .regex(/^[0-9a-f]{64}$/)
        .optional(),
    }),
    z.object({ connected: z.literal(true), canaries: z.boolean().optional() }),
  ),
  /**
   * For a few seconds a caller with the manager's address that says nothing and leaves is a canary, and goes nowhere.
   * Answers how many connections have come to the agent so far.
   */
  "canary.expect": method(
    z.object({}),
    z.object({
      ports: z
        .array(
          z.object({
            containerPort: z.number().int(),
            protocol: z.enum(["tcp", "udp"]),
            connections: z.number().int(),
          }),
        )
        .max(64),
    }),
  ),
  /**
   * From now on this session may open `tcp` and `udp` streams, which the agent dials from its pod, and stays as long as it
   * likes. `busy` when too many laptops do so.
   */
  "dial.begin": method(z.object({}), z.object({})),
  /** One DNS message to the pod's own resolver and back, base64. */
  "dns.exchange": method(z.object({ message: z.string().max(87_384) }), z.object({ message: z.string() })),
  /** What became of the last requests at this pod, and what would become of one. */
  why: method(whyParamsSchema, whyAnswerSchema),
  /**
   * An ephemeral agent ends when no connection that came through it is left; a later introduction keeps it. `busy` while
   * it serves somebody's intercept, `unsupported` of a sidecar, which would only be started again.
   */
  retire: method(z.object({}), z.object({ connections: z.number().int() })),
} as const;
