// `uninstall`: needs no connection, only the user's credentials. Agents first, so that every intercept has ended in
// order before the manager goes.
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, isAppError, toAppError } from "#base/error.ts";
import { inParallel } from "#base/in-parallel.ts";
import { findManager, managerNamespaces, removeManager } from "#installer/manager.ts";
import { findStaying, listAgents, removeAgent } from "#installer/rollout.ts";
import type { Kube } from "#kube/client.ts";
import { loadTarget } from "#kube/config.ts";
import type { controlApi } from "#wire/control-api.ts";
import { workloadKey, type InterceptInfo, type WorkloadRef } from "#wire/manager-api.ts";
import type { ParamsOf, ResultOf } from "#wire/rpc.ts";
import { KubeAccess } from "./cluster-access.ts";
import { defaultImage, openUserKube } from "./cluster-session.ts";
import type { Caller } from "./control/server.ts";
import { describeRetired, findEphemeralPods, retireAgent, waitUntilEnded, type EphemeralPod } from "./retire-agents.ts";
import type { Session } from "./session.ts";
import { describeTeamMates, findTeamMates } from "#daemon/intercepts/team-mates.ts";

type Params = ParamsOf<typeof controlApi, "uninstall">;
type Result = ResultOf<typeof controlApi, "uninstall">;

/** chosen: every workload is rolled out once, side by side. */
const uninstallTimeoutMs = 600_000;
const maxParallel = 4;

export async function uninstall(
  params: Params,
  session: Session | undefined,
  caller: Caller,
  clock: Clock,
): Promise<Result> {
  const target = await loadTarget(params.target.kube);
  using kube = openUserKube(target, clock);
  using limit = deadline(clock, uninstallTimeoutMs, "uninstalling", caller.gone);
  const { signal } = limit;
  const place = placeOf(params, session, kube);
  const { agents, kept, ephemeral } = await findAgents(kube, params, place.namespace, signal);
  const going = [...agents, ...ephemeral.map((pod) => pod.workload)];
  const others = await askManager(kube, place, session, signal);
  const ending = describeTeamMates(others, params.mode === "everything" ? undefined : going);
  if (params.unlessOthers === true && ending.length > 0) return { removed: [], others: [...ending], warnings: [] };
  await leaveIntercepts(session, going, signal);
  const warnings = [
    ...ending.map((intercept) => `${intercept} has ended with it`),
    ...kept.map(({ kind, name }) => `${kind} ${name} keeps its traffic-agent, which is part of its manifest`),
  ];
  const outcome: Result = { removed: [], warnings };
  await retireAll(kube, ephemeral, outcome, signal);
  await inParallel(agents, maxParallel, async (workload) => {
    try {
      if (!(await removeAgent(kube, { workload, onProgress: caller.progress, signal }))) return;
      const staying = await findStaying(kube, workload, signal);
      if (staying !== undefined) outcome.warnings.push(staying);
      const from = staying === undefined ? "" : " from its template";
      outcome.removed.push(`${workload.kind} ${workload.name}: traffic-agent removed${from}`);
    } catch (error) {
      if (signal.aborted) throw error;
      const { code, message, hint } = toAppError(error);
      if (code === "rollout_failed") {
        // Our fields are out; what does not come up is the release's own.
        outcome.removed.push(`${workload.kind} ${workload.name}: traffic-agent removed`);
        outcome.warnings.push(`${workload.kind} ${workload.name} does not come up without it either: ${message}`);
        return;
      }
      outcome.warnings.push(
        `${workload.kind} ${workload.name}: the traffic-agent could not be removed: ${message}${hint === undefined ? "" : `; ${hint}`}`,
      );
    }
  });
  if (params.mode === "everything") await removeEverythingElse(kube, place, outcome, signal);
  outcome.removed.sort();
  return outcome;
}

interface Place {
  readonly namespace: string;
  readonly managerNamespace: string | undefined;
}

/** What no flag says is the connection's, as for every other command; without one, the kubeconfig's. */
export function placeOf(
  params: Pick<Params, "namespace" | "target">,
  session: { readonly connection: Pick<Session["connection"], "context" | "server" | keyof Place> } | undefined,
  kube: { readonly namespace: string; readonly target: Pick<Kube["target"], "contextName" | "server"> },
): Place {
  const connection = session?.connection;
  const { contextName, server } = kube.target;
  const here = connection?.context === contextName && connection.server === server ? connection : undefined;
  return {
    namespace: params.namespace ?? here?.namespace ?? kube.namespace,
    managerNamespace: params.target.managerNamespace ?? here?.managerNamespace,
  };
}

async function askManager(
  kube: Kube,
  place: Place,
  session: Session | undefined,
  signal: AbortSignal,
): Promise<readonly InterceptInfo[]> {
  const openManager = async (limit: AbortSignal): ReturnType<KubeAccess["openManager"]> => {
    const found = await findManager(kube, managerNamespaces(kube, place.managerNamespace), limit);
    if (found === undefined) throw new AppError("manager_unavailable", "there is no traffic-manager");
    const access = new KubeAccess({ kube, managerNamespace: found.namespace, image: { image: defaultImage } });
    return await access.openManager(limit);
  };
  // Of another cluster or place than the session's the session knows nothing.
  const { connection } = session ?? {};
  const { contextName, server } = kube.target;
  const here = connection?.context === contextName && connection.server === server;
  const same = here && connection.managerNamespace === place.managerNamespace;
  const listed = session === undefined || !same ? undefined : (limit: AbortSignal) => session.everybody(limit);
  const own = new Set(session?.intercepts.map(({ id }) => id));
  return await findTeamMates({ listed, own, openManager, clock: kube.clock }, signal);
}

interface FoundAgents {
  /** Workloads whose template has one. */
  readonly agents: readonly WorkloadRef[];
  /** Those whose manifest has it, which are left alone. */
  readonly kept: readonly WorkloadRef[];
  readonly ephemeral: readonly EphemeralPod[];
}

async function findAgents(kube: Kube, params: Params, namespace: string, signal: AbortSignal): Promise<FoundAgents> {
  if (params.mode === "everything") {
    const everywhere = await allAgents(kube, undefined, signal).catch((error: unknown) => {
      if (isAppError(error, "forbidden")) return undefined; // a user with one namespace
      throw error;
    });
    if (everywhere !== undefined) return everywhere;
  }
  const found = await allAgents(kube, namespace, signal);
  if (params.mode !== "agents") return found;
  const known = [...found.agents, ...found.kept, ...found.ephemeral.map((pod) => pod.workload)].map(
    (workload) => workload.name,
  );
  for (const name of params.workloads) {
    if (known.includes(name)) continue;
    throw new AppError("workload_not_found", `No agent found for ${name} in namespace ${namespace}`, {
      hint: known.length === 0 ? "none in this namespace has one" : `these have one: ${[...new Set(known)].join(", ")}`,
    });
  }
  return {
    agents: found.agents.filter((workload) => params.workloads.includes(workload.name)),
    kept: found.kept.filter((workload) => params.workloads.includes(workload.name)),
    ephemeral: found.ephemeral.filter((pod) => params.workloads.includes(pod.workload.name)),
  };
}

async function allAgents(kube: Kube, namespace: string | undefined, signal: AbortSignal): Promise<FoundAgents> {
  const [installed, ephemeral] = await Promise.all([
    listAgents(kube, namespace, signal),
    findEphemeralPods(kube, namespace, signal),
  ]);
  const [kept, agents] = [
    installed.filter((agent) => agent.inManifest),
    installed.filter((agent) => !agent.inManifest),
  ];
  return { agents: agents.map(({ workload }) => workload), kept: kept.map(({ workload }) => workload), ephemeral };
}

/** Before sidecars are rolled out and the manager goes: an agent is asked while its pod is there. */
async function retireAll(
  kube: Kube,
  ephemeral: readonly EphemeralPod[],
  outcome: Result,
  signal: AbortSignal,
): Promise<void> {
  const retired: EphemeralPod[] = [];
  const ending: EphemeralPod[] = [];
  await inParallel(ephemeral, maxParallel, async (pod) => {
    try {
      const connections = await retireAgent(kube, pod, kube.clock, signal);
      if (connections === undefined) return;
      retired.push(pod);
      if (connections === 0) ending.push(pod);
    } catch (error) {
      if (signal.aborted) throw error;
      const what = `the agent in pod ${pod.podName} of ${pod.workload.kind} ${pod.workload.name}`;
      outcome.warnings.push(`${what} stays until it has not been used for a while: ${toAppError(error).message}`);
    }
  });
  await inParallel(ending, maxParallel, (pod) => waitUntilEnded(kube, pod, signal));
  outcome.removed.push(...describeRetired(retired));
}

/** One's own intercepts of what is about to go end in order first; a team mate's end when their agent leaves. */
async function leaveIntercepts(
  session: Session | undefined,
  agents: readonly WorkloadRef[],
  signal: AbortSignal,
): Promise<void> {
  const going = new Set(agents.map(workloadKey));
  for (const { spec } of session?.intercepts ?? []) {
    if (!going.has(workloadKey(spec.workload))) continue;
    await session?.leave(spec.name, signal, { only: "intercept" }).catch((error: unknown) => {
      if (!isAppError(error, "intercept_not_found")) throw error; // its command ended it meanwhile
    });
  }
}

async function removeEverythingElse(kube: Kube, place: Place, outcome: Result, signal: AbortSignal): Promise<void> {
  const { namespaces, notes } = await removeManager(kube, { namespace: place.managerNamespace, signal });
  for (const namespace of namespaces) outcome.removed.push(`Namespace ${namespace}: traffic-manager removed`);
  outcome.warnings.push(...notes);
}
