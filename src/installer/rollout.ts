// Agents in a real cluster: patch the workload with its resourceVersion as precondition, wait until its pods have been
// replaced, and undo our own fields when they cannot come up.
import { deadline } from "#base/abort.ts";
import { AppError, isAppError } from "#base/error.ts";
import type { Kube } from "#kube/client.ts";
import { waitFor } from "#kube/live-set.ts";
import type { KubeEvent, Pod, Service, Workload } from "#kube/objects.ts";
import { events, formatSelector, namespaces, pods } from "#kube/objects.ts";
import type { FoundWorkload } from "#kube/workloads.ts";
import { describeWorkload, listWorkloads, workloadResources } from "#kube/workloads.ts";
import type { AgentConfig } from "#wire/agent-api.ts";
import type { WorkloadRef } from "#wire/manager-api.ts";
import type { ImageChoice } from "./agent-container.ts";
import { coversPorts, findAgent, planInjection, planRemoval, readAgentConfig } from "./agent.ts";
import { mergePatch } from "./merge-patch.ts";
import { Patience } from "./patience.ts";
import type { RolloutState } from "./rollout-state.ts";
import { judgeRollout } from "./rollout-state.ts";
import { replacePodsByHand } from "./pod-replacement.ts";

export type Progress = (text: string) => void;

export interface InjectRequest {
  readonly workload: WorkloadRef;
  /** Every service that selects the workload's pods (`ResolvedWorkload.services`). */
  readonly services: readonly Service[];
  /** Container ports that the intercept needs. */
  readonly containerPorts: readonly number[];
  readonly image: ImageChoice;
  readonly onProgress: Progress;
  readonly signal: AbortSignal;
  /** Whole wait for the rollout; default 3 minutes. */
  readonly timeoutMs?: number;
}

export interface InjectResult {
  /** False when an agent that serves was there already. */
  readonly changed: boolean;
  readonly config: AgentConfig;
  readonly warnings: readonly string[];
}

const rolloutMs = 180_000;
const maxConflicts = 10;

/** Makes sure that all pods of the workload have an agent that takes the ports; waits for them. */
export async function injectAgent(kube: Kube, request: InjectRequest): Promise<InjectResult> {
  const { workload: ref, signal } = request;
  const server = await kube.serverVersion(signal);
  const namespaceLabels = await readNamespaceLabels(kube, ref.namespace, signal);
  const { object, changed } = await applyPlan(kube, ref, signal, (current) =>
    coversPorts(current, request.containerPorts)
      ? current
      : planInjection(current, {
          workload: ref,
          services: request.services,
          image: request.image,
          server,
          namespaceLabels,
        }),
  );
  const config = readAgentConfig(object.spec.template.spec);
  if (config === undefined || !coversPorts(object, request.containerPorts)) {
    throw new AppError(
      "not_interceptable",
      `port ${request.containerPorts.join(", ")} of ${describeWorkload(ref)} is not a TCP port of any of its services`,
      { hint: "choose a port of one of its services" },
    );
  }
  if (changed) request.onProgress(`added the traffic-agent to ${describeWorkload(ref)}`);
  try {
    await waitForAgents(kube, object, config, request);
  } catch (error) {
    if (changed && !signal.aborted) await rollBack(kube, ref, request);
    throw error;
  }
  return { changed, config, warnings: planWarnings(object, request, changed) };
}

function planWarnings(object: Workload, request: InjectRequest, changed: boolean): readonly string[] {
  const warnings: string[] = [];
  const what = describeWorkload(request.workload);
  const installed = findAgent(object.spec.template.spec)?.image;
  if (!changed && installed !== undefined && installed !== request.image.image) {
    warnings.push(
      `${what} has the agent ${installed}, this version brings ${request.image.image}; \`telepresence uninstall --agent ${request.workload.name}\` and a new intercept replace it`,
    );
  }
  const partition = object.spec.updateStrategy?.rollingUpdate?.partition ?? 0;
  if (partition > 0)
    warnings.push(`${what} updates only pods from number ${partition} on (partition): the others have no agent`);
  return warnings;
}

/** What to change, given the current object; the same object means nothing. */
type Plan = (current: Workload) => Workload;

async function applyPlan(
  kube: Kube,
  ref: WorkloadRef,
  signal: AbortSignal,
  plan: Plan,
): Promise<{ readonly object: Workload; readonly changed: boolean }> {
  const kind = workloadResources[ref.kind];
  for (let attempt = 0; ; attempt++) {
    const current = await kube.get(kind, ref, signal).catch((error: unknown) => {
      if (!isAppError(error, "not_found")) throw error;
      throw new AppError("workload_not_found", `${describeWorkload(ref)} was not found in namespace ${ref.namespace}`, {
        cause: error,
        hint: `see \`telepresence list -n ${ref.namespace}\``,
      });
    });
    const difference = mergePatch(current.spec.template, plan(current).spec.template);
    if (difference === undefined) return { object: current, changed: false };
    const patch = {
      metadata: { resourceVersion: current.metadata.resourceVersion },
      spec: { template: difference },
    };
    try {
      return { object: await kube.patch(kind, ref, patch, signal), changed: true };
    } catch (error) {
      if (!isAppError(error, "conflict") || attempt >= maxConflicts) throw error;
      await kube.clock.sleep(20 * 2 ** Math.min(attempt, 5), signal);
    }
  }
}

/** Pod security is told by the namespace's labels; who may not read them meets it in the rollout. */
async function readNamespaceLabels(
  kube: Kube,
  name: string,
  signal: AbortSignal,
): Promise<Readonly<Record<string, string>>> {
  try {
    return (await kube.get(namespaces, { name }, signal)).metadata.labels ?? {};
  } catch (error) {
    if (isAppError(error, "forbidden")) return {};
    throw error;
  }
}

async function waitForAgents(kube: Kube, object: Workload, config: AgentConfig, request: InjectRequest): Promise<void> {
  const wanted = JSON.stringify(config);
  await waitForRollout(kube, {
    ref: request.workload,
    object,
    isNew: (pod) => JSON.stringify(readAgentConfig(pod.spec)) === wanted,
    stillWanted: (current) => JSON.stringify(readAgentConfig(current.spec.template.spec)) === wanted,
    what: `injecting the traffic-agent into ${describeWorkload(request.workload)}`,
    onProgress: request.onProgress,
    signal: request.signal,
    timeoutMs: request.timeoutMs ?? rolloutMs,
  });
}

export interface RolloutWait {
  readonly ref: WorkloadRef;
  /** The workload as the patch left it. */
  readonly object: Workload;
  readonly isNew: (pod: Pod) => boolean;
  /** False when somebody undid the change meanwhile. */
  readonly stillWanted: (current: Workload) => boolean;
  readonly what: string;
  readonly onProgress: Progress;
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
}

/** Until every pod is replaced and ready; throws `rollout_failed` with the cluster's reason. */
export async function waitForRollout(kube: Kube, wait: RolloutWait): Promise<void> {
  const { ref, object, what } = wait;
  const namespace = ref.namespace;
  const labelSelector = formatSelector(object.spec.selector ?? {});
  using limit = deadline(kube.clock, wait.timeoutMs, what, wait.signal);
  await using restarting = replacePodsByHand(kube, wait, limit.signal);
  const judge = createJudge(kube, wait);
  try {
    await waitFor(kube, {
      watched: {
        workload: {
          kind: workloadResources[ref.kind],
          query: { namespace, fieldSelector: `metadata.name=${ref.name}` },
        },
        pods: { kind: pods, query: { namespace, labelSelector } },
        events: {
          kind: events,
          query: { namespace, fieldSelector: `involvedObject.uid=${object.metadata.uid ?? ""}` },
          optional: true,
        },
      },
      evaluate: (sets) => {
        restarting.check();
        return judge(
          sets.workload[0] as Workload | undefined,
          sets.pods as readonly Pod[],
          sets.events as readonly KubeEvent[],
        );
      },
      signal: limit.signal,
    });
  } catch (error) {
    if (!isAppError(error, "timeout") || wait.signal.aborted) throw error;
    throw new AppError("rollout_failed", `${error.message}${judge.describe()}`, {
      cause: error,
      hint: `kubectl describe ${ref.kind.toLowerCase()} ${ref.name} -n ${namespace}`,
    });
  }
}

interface Judge {
  (workload: Workload | undefined, live: readonly Pod[], seen: readonly KubeEvent[]): true | undefined;
  /** What was missing at last, for a time-out. */
  describe(): string;
}

function createJudge(kube: Kube, wait: RolloutWait): Judge {
  const patience = new Patience();
  const { ref } = wait;
  let last: RolloutState | undefined;
  let said = "";
  const judge = (
    workload: Workload | undefined,
    live: readonly Pod[],
    seen: readonly KubeEvent[],
  ): true | undefined => {
    if (workload === undefined) {
      throw new AppError("rollout_failed", `${describeWorkload(ref)} was deleted meanwhile`, {
        hint: "deploy it again",
      });
    }
    if (!wait.stillWanted(workload)) {
      throw new AppError("rollout_failed", `the change to ${describeWorkload(ref)} was undone by somebody else`, {
        hint: "try again",
      });
    }
    const state = judgeRollout({
      kind: ref.kind,
      workload,
      pods: live,
      events: seen,
      isNew: wait.isNew,
      generation: wait.object.metadata.generation ?? 0,
    });
    if (state.readyPods > (last?.readyPods ?? 0)) patience.reset();
    last = state;
    const { problem } = state;
    if (problem !== undefined && patience.isOver(problem, kube.clock.now())) {
      throw new AppError("rollout_failed", `${wait.what} failed: ${problem.text}`, {
        hint: `kubectl describe pod ${problem.pod} -n ${ref.namespace}`.replace("  ", " "),
        fields: { reason: problem.reason, container: problem.container },
      });
    }
    const text = describeState(wait, workload, state);
    if (text !== said) wait.onProgress(text);
    said = text;
    return state.done ? true : undefined;
  };
  return Object.assign(judge, {
    describe: () =>
      last === undefined
        ? ""
        : `: ${last.readyPods} of ${last.wantedPods} pods were ready${last.problem === undefined ? "" : `, ${last.problem.text}`}`,
  });
}

function describeState(wait: RolloutWait, workload: Workload, state: RolloutState): string {
  const counted = `${describeWorkload(wait.ref)}: ${state.readyPods} of ${state.wantedPods} pods ready`;
  if (state.problem !== undefined) return `${counted}, ${state.problem.text}`;
  if (!state.done && workload.spec.updateStrategy?.type === "OnDelete") {
    return `${counted}; its update strategy is OnDelete: delete its pods, one after the other, to go on`;
  }
  return counted;
}

async function rollBack(kube: Kube, ref: WorkloadRef, request: InjectRequest): Promise<void> {
  try {
    await applyPlan(kube, ref, request.signal, planRemoval);
    request.onProgress(`took the traffic-agent out of ${describeWorkload(ref)} again`);
  } catch {
    // The failure that led here is the one to report; the agent that is left passes everything to the application.
    request.onProgress(
      `the traffic-agent is still in ${describeWorkload(ref)}: \`telepresence uninstall --agent ${ref.name}\``,
    );
  }
}

export interface RemoveRequest {
  readonly workload: WorkloadRef;
  readonly onProgress: Progress;
  readonly signal: AbortSignal;
  /** Wait until the pods have been replaced; default true. */
  readonly wait?: boolean;
}

/** Takes our own fields out of the current workload. False when there was nothing of ours. */
export async function removeAgent(kube: Kube, request: RemoveRequest): Promise<boolean> {
  const { workload: ref, signal } = request;
  const { object, changed } = await applyPlan(kube, ref, signal, planRemoval);
  if (!changed || request.wait === false || object.spec.replicas === 0 || object.spec.paused === true) return changed;
  await waitForRollout(kube, {
    ref,
    object,
    isNew: (pod) => findAgent(pod.spec) === undefined,
    stillWanted: (current) => findAgent(current.spec.template.spec) === undefined,
    what: `taking the traffic-agent out of ${describeWorkload(ref)}`,
    onProgress: request.onProgress,
    signal,
    timeoutMs: rolloutMs,
  });
  return changed;
}

export interface InstalledAgent {
  readonly workload: WorkloadRef;
  readonly config: AgentConfig | undefined;
  readonly image: string;
}

/** Workloads whose template has our agent. All namespaces when none is given. */
export async function listAgents(
  kube: Kube,
  namespace: string | undefined,
  signal: AbortSignal,
): Promise<readonly InstalledAgent[]> {
  return (await listWorkloads(kube, namespace, signal)).flatMap((item) => toInstalled(item) ?? []);
}

/** The agent in one workload's template, if any. */
export function toInstalled(item: FoundWorkload): InstalledAgent | undefined {
  const pod = item.object.spec.template.spec;
  const agent = findAgent(pod);
  if (agent === undefined) return undefined;
  const { kind, name, namespace } = item;
  return { workload: { kind, name, namespace }, config: readAgentConfig(pod), image: agent.image ?? "" };
}
