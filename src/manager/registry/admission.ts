// Which sessions an agent may serve. Both ends must say so: the laptop vouches for the agent's key, and the agent, on the
// link that proves this key, names the session whose laptop came to it by port-forward. A key that somebody read in a
// log is therefore worth nothing, and neither is a session's id.
// Invariant: the workload that the laptop vouched for is the one that the agent is configured for.
import { AppError } from "#base/error.ts";
import { workloadKey } from "#wire/manager-api.ts";
import type { TrustedAgent, WorkloadRef } from "#wire/manager-api.ts";
import type { SessionRecord, SessionTable } from "./sessions.ts";

/** What an agent says of itself; its key is proved. */
export interface AgentClaim {
  readonly fingerprint: string;
  readonly workload: WorkloadRef;
  /** Sessions that introduced it. */
  readonly introducedBy: readonly string[];
}

export interface Admission {
  /** Never empty. */
  readonly sessions: readonly SessionRecord[];
  /** What the first of them says of the agent. */
  readonly vouched: TrustedAgent;
}

/** The sessions with a live link that the claim holds for. Throws `denied`, with the reason, when there is none. */
export function admitAgent(table: SessionTable, claim: AgentClaim): Admission {
  const sessions: SessionRecord[] = [];
  let vouched: TrustedAgent | undefined;
  let obstacle = "no connected laptop vouches for this agent and has introduced it";
  for (const id of new Set(claim.introducedBy)) {
    const session = table.get(id);
    const trusted = session?.trusted.get(claim.fingerprint);
    if (session?.link === undefined || trusted === undefined) continue;
    if (workloadKey(trusted.workload) === workloadKey(claim.workload)) {
      sessions.push(session);
      vouched ??= trusted;
    } else {
      obstacle =
        `the agent of pod ${trusted.podName} is configured for ${formatWorkload(claim.workload)}, ` +
        `expected ${formatWorkload(trusted.workload)}`;
    }
  }
  if (vouched === undefined) throw new AppError("denied", obstacle);
  return { sessions, vouched };
}

function formatWorkload({ kind, name, namespace }: WorkloadRef): string {
  return `${kind} ${name} in namespace ${namespace}`;
}
