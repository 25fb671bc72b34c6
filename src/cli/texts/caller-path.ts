// What people read about whether callers reach the agents: in `status` always, elsewhere only when they do not.
import { formatDuration } from "#base/abort.ts";
import type { InterceptInfo } from "#wire/manager-api.ts";

/** chosen: places named on the line; the rest are counted. */
const maxShown = 3;

/** `verified 3 s ago through 10.1.2.3:8080 and hello (ClusterIP)`; nothing before it was tried. */
export function describeCallerPath({ callerPath }: InterceptInfo): readonly string[] {
  if (callerPath === undefined) return [];
  const { verdict, ageMs, through, reason = "" } = callerPath;
  const ago = `${formatDuration(ageMs)} ago`;
  if (verdict === "verified") return [`verified ${ago} through ${enumerate(through)}`];
  return [verdict === "by-passed" ? `by-passed, seen ${ago}: ${reason}` : `not verified: ${reason}`];
}

/** Undefined unless somebody else gets the callers. */
export function describeByPass({ callerPath }: InterceptInfo): string | undefined {
  return callerPath?.verdict === "by-passed" ? (callerPath.reason ?? "") : undefined;
}

/** As JSON has it. */
export function callerPathToJson({ callerPath }: InterceptInfo): Readonly<Record<string, unknown>> | undefined {
  if (callerPath === undefined) return undefined;
  const { verdict, ageMs, through, reason } = callerPath;
  return { verdict, age_ms: Math.round(ageMs), through, reason };
}

function enumerate(items: readonly string[]): string {
  const shown = items.slice(0, maxShown);
  const more = items.length - shown.length;
  const all = more > 0 ? [...shown, `${more} more`] : shown;
  return all.length === 1 ? (all[0] ?? "") : `${all.slice(0, -1).join(", ")} and ${all.at(-1) ?? ""}`;
}
