// Whose intercepts end with an `uninstall`: the manager is asked, over the session's link or over one of its own that
// comes and goes. A manager that cannot be asked keeps nobody from uninstalling it.
import { randomUUID } from "node:crypto";
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { softwareVersion } from "#base/version.ts";
import { workloadKey, type InterceptInfo, type WorkloadRef } from "#wire/manager-api.ts";
import type { Duplex } from "node:stream";
import { openConversation } from "#daemon/link/laptop-session.ts";

export interface TeamMatesOptions {
  /** Everybody's intercepts over the session that stands, when one does. */
  readonly listed: ((signal: AbortSignal) => Promise<readonly InterceptInfo[]>) | undefined;
  /** Ids of one's own. */
  readonly own: ReadonlySet<string>;
  readonly openManager: (signal: AbortSignal) => Promise<Duplex>;
  readonly clock: Clock;
}

/** chosen: the manager answers at once, or is not there. */
const askMs = 5000;

/** Other laptops' intercepts; none when the manager cannot be asked. */
export async function findTeamMates(
  { listed, own, openManager, clock }: TeamMatesOptions,
  signal: AbortSignal,
): Promise<readonly InterceptInfo[]> {
  using limit = deadline(clock, askMs, "asking the traffic-manager for intercepts", signal);
  try {
    const everybody = await (listed === undefined ? ask(openManager, clock, limit.signal) : listed(limit.signal));
    return everybody.filter(({ id }) => !own.has(id));
  } catch (error) {
    if (signal.aborted) throw error;
    return [];
  }
}

async function ask(
  openManager: TeamMatesOptions["openManager"],
  clock: Clock,
  signal: AbortSignal,
): Promise<readonly InterceptInfo[]> {
  const options = { api: "manager", clock, log: silentLogger } as const;
  using manager = await openConversation(await openManager(signal), options, signal);
  // A name of its own: arriving with the laptop's would end the session that it may have elsewhere.
  const arrival = { client: "uninstall", installId: randomUUID(), version: softwareVersion, namespace: "" };
  await manager.rpc.call("arrive", arrival, signal);
  const { intercepts } = await manager.rpc.call("intercept.list", {}, signal);
  await manager.rpc.call("depart", {}, signal);
  return intercepts;
}

/** A phrase for each whose agent goes; all when the manager goes, which `going` leaves out. */
export function describeTeamMates(
  others: readonly InterceptInfo[],
  going: readonly WorkloadRef[] | undefined,
): readonly string[] {
  const keys = going && new Set(going.map(workloadKey));
  return others
    .filter(({ spec }) => keys?.has(workloadKey(spec.workload)) ?? true)
    .map(({ client, createdAtMs, spec: { name, workload } }) => {
      const since = new Date(createdAtMs).toISOString();
      return `the intercept ${name} of ${client} (${workload.kind} ${workload.name}, namespace ${workload.namespace}, since ${since})`;
    });
}
