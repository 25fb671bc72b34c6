// HELLO (PROTOCOL §3): the first thing on every link, both ways. Versions are agreed before anything else is read.
import { softwareVersion } from "#base/version.ts";
import { z } from "zod";

/** Wire protocol versions this build speaks: N and N−1. */
export const protocolVersions = { min: 1, max: 1 } as const;

/**
 * Optional features of this build (PROTOCOL §3.2): `wiretap` honours the `kind` of an intercept of this name, `replace`
 * knows those of its name, which may have no ports, `resume` keeps a session when its transport is lost, where the
 * accepter gives it a name; `cloud`: the manager joins cloud servers, the laptop is inspected through them.
 */
export const spokenFeatures = ["wiretap", "replace", "resume", "cloud"] as const;
export type Feature = (typeof spokenFeatures)[number];

export const helloSchema = z.object({
  /** Lowest and highest wire protocol version the sender speaks. */
  protocol: z.object({ min: z.number().int(), max: z.number().int() }),
  /** Version of the program, for people. */
  software: z.string().max(64),
  role: z.enum(["laptop", "manager", "agent", "cloud"]),
  /** Names of optional features; both must name one for it to be used. */
  features: z.array(z.string().max(32)).max(64),
  /** From an opener: the session that this transport is to continue. From an accepter: the one that it carries now. */
  resume: z
    .object({
      sessionId: z.string().max(64),
      /** Known to both ends only. */
      token: z.string().max(64),
      /** How often the session has been resumed, by the opener's count. */
      epoch: z.number().int().min(0),
      /** The last sequenced frame that the sender of this HELLO has got. */
      receivedSeq: z.number().int().min(0).max(0xffff_ffff),
    })
    .optional(),
  /** Set by the accepter when it will not go on; the link closes after it. */
  refusal: z.object({ code: z.string(), message: z.string() }).optional(),
});
export type Hello = z.infer<typeof helloSchema>;

/** What this build says. */
export function helloOf(role: Hello["role"]): Hello {
  return { protocol: protocolVersions, software: softwareVersion, role, features: [...spokenFeatures] };
}
