// A program in the agent's container ↔ the agent (PROTOCOL §8.8): one line of JSON each way.
import { z } from "zod";
import { errorCodes } from "#base/error.ts";
import type { ErrorCode } from "#base/error.ts";

/** The abstract Unix socket in the pod's network. */
export const agentDoorName = "telepresence-traffic-agent";
/** What `pods/exec` runs: `/telepresence traffic-agent revoke ID BY`. */
export const revokeCommand = "revoke";

export const revocationSchema = z.object({
  /** Of the intercept. */
  id: z.string().min(1).max(400),
  /** `user@host` of whoever ends it; shown, and proved by nothing. */
  by: z.string().min(1).max(300),
});
export type Revocation = z.infer<typeof revocationSchema>;

const errorCodeSchema = z
  .string()
  .transform((code): ErrorCode => (Object.hasOwn(errorCodes, code) ? (code as ErrorCode) : "internal"));

/** Empty when it is done; also what the program prints. */
export const doorAnswerSchema = z.object({
  error: z.object({ code: errorCodeSchema, message: z.string().max(2000) }).optional(),
});
export type DoorAnswer = z.infer<typeof doorAnswerSchema>;
