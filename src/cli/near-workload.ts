// "Did you mean": for the name of an intercept that nothing in the namespace has.
import { AppError, isAppError } from "#base/error.ts";
import type { DaemonClient } from "./connection/daemon-client.ts";
import { nearestName } from "./nearest.ts";

/** chosen: the error is known already, and nobody waits long for a guess. */
const listLimitMs = 5000;

export interface SoughtName {
  readonly name: string;
  readonly namespace: string | undefined;
}

/** The error itself, with the nearest name of a workload or service where there is one; never rejects. */
export async function suggestWorkload(
  client: Pick<DaemonClient, "call">,
  error: unknown,
  { name, namespace }: SoughtName,
): Promise<unknown> {
  if (!isAppError(error, "workload_not_found")) return error;
  try {
    const { workloads } = await client.call("list", { namespace }, listLimitMs);
    const known = workloads.flatMap((workload) => [workload.name, ...(workload.services ?? [])]);
    const near = nearestName(name, known);
    if (near === undefined) return error;
    const { code, message, fields } = error;
    return new AppError(code, message, { cause: error, fields, hint: `did you mean ${near}?` });
  } catch {
    return error; // what went wrong first counts
  }
}

/** The same for a name among those that the error itself knows. */
export function suggestKnown(error: unknown, name: string | undefined): unknown {
  if (!isAppError(error, "intercept_not_found") || name === undefined) return error;
  const { code, message, hint, fields } = error;
  const known = Array.isArray(fields["known"]) ? fields["known"].filter((item) => typeof item === "string") : [];
  const near = nearestName(name, known);
  if (near === undefined) return error;
  return new AppError(code, message, { cause: error, fields, hint: `did you mean ${near}?${hint ? ` ${hint}` : ""}` });
}
