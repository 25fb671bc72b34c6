// HELLO (PROTOCOL §3): the first thing on every link, both ways. Versions are agreed before anything else is read.
import { softwareVersion } from "#base/version.ts";
import { z } from "zod";

/** Wire protocol versions this build speaks: N and N−1. */
export const protocolVersions = { min: 1, max: 1 } as const;

/** Optional features of this build, whatever its role: `wiretap` honours the `kind` of an intercept of this name. */
export const spokenFeatures = ["wiretap"] as const;
export type Feature = (typeof spokenFeatures)[number];

export const helloSchema = z.object({
  /** Lowest and highest wire protocol version the sender speaks. */
  protocol: z.object({ min: z.number().int(), max: z.number().int() }),
  /** Version of the program, for people. */
  software: z.string().max(64),
  role: z.enum(["laptop", "manager", "agent"]),
  /** Names of optional features; both must name one for it to be used. */
  features: z.array(z.string().max(32)).max(64),
  /** Resuming (a later version's): the session that this transport continues. */
  resume: z.object({ sessionId: z.string(), token: z.string(), receivedSeq: z.number().int() }).optional(),
  /** Set by the accepter when it will not go on; the link closes after it. */
  refusal: z.object({ code: z.string(), message: z.string() }).optional(),
});
export type Hello = z.infer<typeof helloSchema>;

/** What this build says. */
export function helloOf(role: Hello["role"]): Hello {
  return { protocol: protocolVersions, software: softwareVersion, role, features: [...spokenFeatures] };
}
