// Whether an agent may serve an intercept: its laptop vouches for it, it has named that session, and the workload is one.
import { workloadKey } from "#wire/manager-api.ts";
import type { TrustedAgent } from "#wire/manager-api.ts";
import type { AgentRecord } from "./agents.ts";
import type { InterceptRecord } from "./intercepts.ts";

/** What the intercept's laptop says of the agent; undefined when the agent may not serve the intercept. */
export function trustedFor(record: InterceptRecord, agent: AgentRecord): TrustedAgent | undefined {
  const { session, spec } = record;
  const trusted = agent.sessions.has(session) ? session.trusted.get(agent.link.fingerprint) : undefined;
  if (trusted === undefined) return undefined;
  const key = workloadKey(spec.workload);
  return workloadKey(trusted.workload) === key && workloadKey(agent.link.workload) === key ? trusted : undefined;
}
