// Whether the application sees its callers' addresses, as all agents of an intercept tell.
import type { InterceptInfo } from "#wire/manager-api.ts";
import type { AgentRecord } from "./agents.ts";
import type { InterceptRecord } from "./intercepts.ts";

/** Kept only where every agent says so of every port; one that says no settles it, one that says nothing leaves it open. */
export function describeCallers(
  record: InterceptRecord,
  serving: readonly AgentRecord[],
): InterceptInfo["callerAddress"] {
  const known = serving.flatMap((agent) => record.spec.ports.map((port) => agent.callersOf(port)));
  const lost = known.find((port) => port?.kept === false);
  if (lost !== undefined) return { kept: false, reason: lost.reason };
  return known.length === 0 || known.includes(undefined) ? undefined : { kept: true, reason: "" };
}
