// What an agent tells of the requests that came to its pod (PROTOCOL §8.3 `why`): which intercepts were asked, what each
// said, who answered. Header values and bodies are in none of it; queries only where they were asked for.
import { z } from "zod";
import { filterTextSchema } from "./manager-api.ts";

const shortText = z.string().max(1000);
const index = z.number().int().min(0);

/** A request that nobody has sent. */
export const supposedRequestSchema = z.object({
  method: z.string().min(1).max(64),
  /** With its query, if it has one. */
  target: z.string().min(1).max(8192),
  headers: z.array(z.object({ name: z.string().min(1).max(256), value: z.string().max(8192) })).max(100),
});
export type SupposedRequest = z.infer<typeof supposedRequestSchema>;

/** An intercept that was asked; others refer to it by its place in the list. */
const askedInterceptSchema = z.object({
  id: z.string().max(400),
  client: z.string().max(300),
  /** Left out: it takes everything. */
  filter: filterTextSchema.optional(),
});

export const conditionSchema = z.object({
  text: shortText,
  /** Left out: not known. */
  value: z.boolean().optional(),
  /** Why it is not known. */
  reason: shortText.optional(),
});

/** What one intercept says to one request. */
const ruleSchema = z.object({
  intercept: index,
  /** Left out: only the body could tell, or it is not known any more. */
  matched: z.boolean().optional(),
  joined: z.enum(["&&", "||"]).optional(),
  /** Those that its filter joins outermost; of a request that came, those that decided. */
  conditions: z.array(conditionSchema).max(64),
});
export type Rule = z.infer<typeof ruleSchema>;

export const answerers = ["laptop", "application", "agent"] as const;

export const decisionSchema = z.object({
  ageMs: z.number().min(0),
  containerPort: z.number().int(),
  /** Of a request; left out of a connection that went one way as a whole. */
  method: z.string().max(256).optional(),
  target: z.string().max(1000).optional(),
  /** The caller's address, of a connection. */
  source: z.string().max(64).optional(),
  /** It is no connection, but datagrams of one caller. */
  isUdp: z.boolean().optional(),
  /** Kubelet's own, which no laptop gets unless its intercept says so. */
  isProbe: z.boolean().optional(),
  /** The one that took it; left out, it was the application's. */
  taken: index.optional(),
  /** Why the application got it all the same. */
  left: shortText.optional(),
  /** Left out while it lasts, or when nobody answered. */
  answeredBy: z.enum(answerers).optional(),
  status: z.number().int().optional(),
  /** Left out while it lasts. */
  durationMs: z.number().min(0).optional(),
  /** Why there was no answer, or one of the agent's own. */
  failure: shortText.optional(),
  /** Those that did not take it. */
  refused: z.array(ruleSchema).max(200),
  /** Wiretaps that got a copy, and why not all of it came; left out when there are none. */
  copies: z
    .array(z.object({ intercept: index, cut: shortText.optional() }))
    .max(200)
    .optional(),
});
export type DecisionInfo = z.infer<typeof decisionSchema>;

export const verdictSchema = z.object({
  containerPort: z.number().int(),
  /** Left out: the application. */
  taken: index.optional(),
  /** The first one whose filter only the body can decide: it, or what follows. */
  undecided: index.optional(),
  isProbe: z.boolean().optional(),
  /** The agent answers by itself. */
  byAgent: z.boolean().optional(),
  /** Wiretaps that would get a copy; left out when there are none. */
  copies: z.array(index).max(200).optional(),
  /** In the order in which they are asked. */
  rules: z.array(ruleSchema).max(200),
});
export type Verdict = z.infer<typeof verdictSchema>;

/** chosen: as many as an agent remembers. */
export const maxWhyLimit = 256;

export const whyParamsSchema = z.object({
  /** How many of the last requests and connections. */
  limit: z.number().int().min(0).max(maxWhyLimit),
  /** With the queries of their targets. */
  withQuery: z.boolean().optional(),
  /** What would become of this one. */
  suppose: supposedRequestSchema.optional(),
});

export const whyAnswerSchema = z.object({
  intercepts: z.array(askedInterceptSchema).max(1000),
  /** The oldest first. */
  decisions: z.array(decisionSchema).max(maxWhyLimit),
  /** One for each intercepted port of TCP. */
  verdicts: z.array(verdictSchema).max(64),
});
export type WhyAnswer = z.infer<typeof whyAnswerSchema>;
