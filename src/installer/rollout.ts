// Agents in a real cluster: patch the workload with its resourceVersion as precondition, wait until its pods have been
// replaced, and undo our own fields when they cannot come up.
import { deadline } from "#base/abort.ts";
import { AppError, isAppError, toAppError } from "#base/error.ts";
import type { Kube } from "#kube/client.ts";
import { waitFor } from "#kube/live-set.ts";
import type { Pod, Service, Workload } from "#kube/objects.ts";
import { formatSelector, namespaces, pods } from "#kube/objects.ts";
import { isLive, isReady } from "#kube/workloads/pod-problems.ts";
import { listWorkloadPods } from "#kube/workloads/workload-pods.ts";
import type { FoundWorkload, TemplatedName, WorkloadKind } from "#kube/workloads/workloads.ts";
import {
  describeWorkload,
  findWorkload,
  getTemplate,
  isTemplated,
  listWorkloads,
  templatedKinds,
  templatedResources,
  withTemplateOf,
} from "#kube/workloads/workloads.ts";
import type { AgentConfig, AppPort } from "#wire/agent-api.ts";
import type { WorkloadRef } from "#wire/manager-api.ts";
import type { ImageChoice } from "./agent-container.ts";
import type { InjectionOptions } from "./agent.ts";
import { coversPorts, describePorts, findAgent, planInjection, planRemoval, readAgentConfig } from "./agent.ts";
import { replaceCronJob, restoreCronJob, withRecords } from "./cron-job-replacement.ts";
import { keptCount, refuseKept, replacedCount, warnOfKept, warnOfStaying } from "./kept-pods.ts";
import { isInManifest } from "./marks.ts";
import { mergePatch } from "./merge-patch.ts";
import type { ReplacementOptions } from "./replacement.ts";
import { changedMeanwhile, planReplacement, planRestore, readReplacement, replacementOf } from "./replacement.ts";
import { isStuckRollout, waitForRollout } from "./rollout-wait.ts";

export type Progress = (text: string) => void;

export interface InjectRequest {
  readonly workload: WorkloadRef;
  /** Every service that selects the workload's pods (`ResolvedWorkload.services`). */
  readonly services: readonly Service[];
  /** Ports of the application that the intercept needs. */
  readonly needed: readonly AppPort[];
  readonly image: ImageChoice;
  readonly onProgress: Progress;
  readonly signal: AbortSignal;
  /** A container makes way for a stand-in, in the same rollout. */
  readonly replace?: Pick<ReplacementOptions, "containerName" | "by" | "installId"> | undefined;
  /** Whole wait for the rollout; default 3 minutes. */
  readonly timeoutMs?: number;
}

export interface InjectResult {
  /** False when an agent that serves was there already. */
  readonly changed: boolean;
  /** Pods that were replaced for it. */
  readonly replaced: number;
  readonly config: AgentConfig;
  readonly warnings: readonly string[];
}

const rolloutMs = 180_000;
const maxConflicts = 10;

/** Makes sure that all pods of the workload have an agent that takes the ports; waits for them. */
export async function injectAgent(kube: Kube, request: InjectRequest): Promise<InjectResult> {
  const { workload: ref, replace, signal } = request;
  if (replace !== undefined) requireReplaceable(ref);
  const server = await kube.serverVersion(signal);
  const namespaceLabels = await readNamespaceLabels(kube, ref.namespace, signal);
  const plan: Plan = (current) => planAgent(current, { ...request, server, namespaceLabels });
  if (ref.kind === "CronJob" && replace !== undefined) return await replaceCronJob(kube, { ...request, replace }, plan);
  return await injectByTemplate(kube, request, plan);
}

async function injectByTemplate(kube: Kube, request: InjectRequest, plan: Plan): Promise<InjectResult> {
  const { workload: ref, signal } = request;
  const { object, changed } = await applyPlan(kube, ref, signal, plan);
  const config = readAgentConfig(object.spec.template.spec);
  if (config === undefined || !coversPorts(object, request.needed)) {
    throw new AppError(
      "not_interceptable",
      `port ${describePorts(request.needed)} of ${describeWorkload(ref)} is not a port of any of its services`,
      { hint: "choose a port of one of its services" },
    );
  }
  if (changed) request.onProgress(`added the traffic-agent to ${describeWorkload(ref)}`);
  try {
    await waitForAgents(kube, object, config, request);
  } catch (error) {
    if (!changed || signal.aborted) throw error;
    throw await afterFailure(kube, object, request, error);
  }
  const warnings = [
    ...planWarnings(object, request, changed),
    ...(await findKept(kube, object, config, request)),
    ...(changed && request.replace !== undefined ? await waitUntilStopped(kube, object, request) : []),
  ];
  return { changed, replaced: changed ? replacedCount(object) : 0, config, warnings };
}

function planAgent(current: Workload, request: InjectRequest & Surroundings): Workload {
  const { workload, needed, image, replace } = request;
  const provided = planSidecar(current, request);
  if (replace === undefined) return provided;
  const what = describeWorkload(workload);
  if (isInManifest(provided.spec.template)) {
    throw new AppError(
      "not_interceptable",
      `the traffic-agent of ${what} stands in its manifest, which we do not change`,
      {
        hint: "`telepresence intercept` leaves the manifest as it is",
      },
    );
  }
  const ports = needed.filter(({ protocol }) => protocol === "tcp").map(({ containerPort }) => containerPort);
  return planReplacement(provided, { ...replace, what, ports, image });
}

function planSidecar(
  current: Workload,
  { workload, services, needed, image, server, namespaceLabels }: InjectRequest & Surroundings,
): Workload {
  if (coversPorts(current, needed)) return current;
  if (isInManifest(current.spec.template) && findAgent(current.spec.template.spec) !== undefined) {
    throw new AppError(
      "not_interceptable",
      `the traffic-agent in the manifest of ${describeWorkload(workload)} does not take port ${describePorts(needed)}`,
      { hint: "print the manifest again with `telepresence genyaml`, and apply it" },
    );
  }
  refuseKept(current, describeWorkload(workload));
  return planInjection(current, { workload, services, needed, image, server, namespaceLabels });
}

type Surroundings = Pick<InjectionOptions, "server" | "namespaceLabels">;

function planWarnings(object: Workload, request: InjectRequest, changed: boolean): readonly string[] {
  const warnings: string[] = [];
  const what = describeWorkload(request.workload);
  const installed = findAgent(object.spec.template.spec)?.image;
  if (!changed && installed !== undefined && installed !== request.image.image) {
    const { name } = request.workload;
    const way = isInManifest(object.spec.template)
      ? "print its manifest again with `telepresence genyaml`"
      : `\`telepresence uninstall --agent ${name}\` and a new intercept replace it`;
    warnings.push(`${what} has the agent ${installed}, this version brings ${request.image.image}; ${way}`);
  }
  return warnings;
}

/** chosen: more than the kubelet takes to end a pod whose time is over. */
const stopMs = 15_000;

/** What is replaced must not run beside the process in its place: its pods drain for as long as they may. */
async function waitUntilStopped(kube: Kube, object: Workload, request: InjectRequest): Promise<readonly string[]> {
  const isOld = (pod: Pod): boolean => readReplacement(pod) === undefined;
  if (await waitUntilEnded(kube, object, request, isOld)) return [];
  const what = describeWorkload(request.workload);
  return [`the container of ${what} still runs in pods that do not end, beside the process in its place`];
}

/** False when pods of this kind are left although their time is over. */
async function waitUntilEnded(
  kube: Kube,
  object: Workload,
  { workload, signal }: Pick<RemoveRequest, "workload" | "signal">,
  isOld: (pod: Pod) => boolean,
): Promise<boolean> {
  const { terminationGracePeriodSeconds: graceSeconds = 30 } = object.spec.template.spec;
  const query = { namespace: workload.namespace, labelSelector: formatSelector(object.spec.selector ?? {}) };
  const hasEnded = ({ status }: Pod): boolean => status?.phase === "Succeeded" || status?.phase === "Failed";
  try {
    using limit = deadline(kube.clock, graceSeconds * 1000 + stopMs, "the end of the pods before", signal);
    await waitFor(kube, {
      watched: { pods: { kind: pods, query } },
      evaluate: (sets) => (sets.pods.some((pod) => isOld(pod) && !hasEnded(pod)) ? undefined : true),
      signal: limit.signal,
    });
    return true;
  } catch (error) {
    if (signal.aborted || !isAppError(error, "timeout")) throw error;
    return false;
  }
}

/** Which pods go without the agent, because the workload leaves them as they are. */
async function findKept(
  kube: Kube,
  object: Workload,
  config: AgentConfig,
  { workload, signal }: InjectRequest,
): Promise<readonly string[]> {
  if (keptCount(object) === 0) return [];
  const labelSelector = formatSelector(object.spec.selector ?? {});
  const { items } = await kube.list(pods, { namespace: workload.namespace, labelSelector }, signal);
  return warnOfKept(object, describeWorkload(workload), { pods: items, hasAgent: (pod) => isOf(pod, config) });
}

function isOf(pod: Pod, config: AgentConfig): boolean {
  return JSON.stringify(readAgentConfig(pod.spec)) === JSON.stringify(config);
}

/** Throws why the workload's pods cannot get an agent by its template. */
function requireTemplated(ref: WorkloadRef): TemplatedName {
  if (isTemplated(ref.kind)) return { ...ref, kind: ref.kind };
  throw new AppError("not_interceptable", `${describeWorkload(ref)} takes no sidecar: ${whyNoSidecar(ref.kind)}`, {
    hint: "take --agent ephemeral, or make the agent part of its manifest with `telepresence genyaml`",
  });
}

/** Throws why no container of the workload can make way: unlike an agent, a stand-in comes with a new pod alone. */
function requireReplaceable(ref: WorkloadRef): void {
  if (isTemplated(ref.kind) || ref.kind === "CronJob") return;
  throw new AppError("not_interceptable", `${describeWorkload(ref)} cannot be replaced: ${whyNoSidecar(ref.kind)}`, {
    hint: "`telepresence intercept` takes its traffic while its container goes on",
  });
}

export function whyNoSidecar(kind: WorkloadKind): string {
  if (kind === "Pod") return "the containers of a pod that runs cannot be changed";
  return kind === "Job"
    ? "the pod template of a Job cannot be changed"
    : "a change to its template reaches none of the pods that run";
}

/** Of these a container can make way for a laptop's process. */
export const replaceableKinds: readonly WorkloadKind[] = [...templatedKinds, "CronJob"];

/** Those workloads; of all namespaces when none is given. `replacementOf` tells whose container makes way. */
export async function listReplaceable(
  kube: Kube,
  namespace: string | undefined,
  signal: AbortSignal,
): Promise<readonly FoundWorkload[]> {
  return await withRecords(kube, namespace, await listWorkloads(kube, namespace, signal, replaceableKinds), signal);
}

/** What to change, given the object that has the template; the same object means nothing. */
type Plan = (current: Workload) => Workload;

async function applyPlan(
  kube: Kube,
  ref: WorkloadRef,
  signal: AbortSignal,
  plan: Plan,
): Promise<{ readonly object: Workload; readonly changed: boolean }> {
  const own = requireTemplated(ref);
  for (let attempt = 0; ; attempt++) {
    const template = await getTemplate(kube, own, signal).catch((error: unknown) => {
      if (!isAppError(error, "not_found")) throw error;
      throw new AppError("workload_not_found", `${describeWorkload(ref)} was not found in namespace ${ref.namespace}`, {
        cause: error,
        hint: `see \`telepresence list -n ${ref.namespace}\``,
      });
    });
    const { holder, held } = template;
    const difference = mergePatch(held.spec.template, plan(held).spec.template);
    if (difference === undefined) return { object: withTemplateOf(template.own, held), changed: false };
    const patch = {
      metadata: { resourceVersion: held.metadata.resourceVersion },
      spec: { template: difference },
    };
    try {
      const patched = await kube.patch(templatedResources[holder.kind], holder, patch, signal);
      return { object: held === template.own ? patched : withTemplateOf(template.own, patched), changed: true };
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
    isNew: (pod) => isOf(pod, config),
    stillWanted: (current) => JSON.stringify(readAgentConfig(current.spec.template.spec)) === wanted,
    what: `injecting the traffic-agent into ${describeWorkload(request.workload)}`,
    onProgress: request.onProgress,
    signal: request.signal,
    timeoutMs: request.timeoutMs ?? rolloutMs,
  });
}

/**
 * Only pods that do not come up are taken back. Another laptop may be served by the same agents: what this one could not
 * see, or somebody else's change, is no reason to end that.
 */
async function afterFailure(kube: Kube, object: Workload, request: InjectRequest, error: unknown): Promise<unknown> {
  const { workload: ref, signal, onProgress } = request;
  if (isStuckRollout(error) && !(await mayServe(kube, object, signal))) {
    try {
      await applyPlan(kube, ref, signal, planRemoval);
      onProgress(`took the traffic-agent out of ${describeWorkload(ref)} again`);
      return error;
    } catch {
      // The failure that led here is the one to report; the agent that is left passes everything to the application.
    }
  } else if (isAppError(error, "rollout_failed") && !isStuckRollout(error)) return error; // there is none any more
  const { code, message, hint, fields, cause } = toAppError(error);
  const left = `the traffic-agent is still in ${describeWorkload(ref)}, \`telepresence uninstall --agent ${ref.name}\` takes it out`;
  return new AppError(code, message, { cause, fields, hint: hint === undefined ? left : `${hint}; ${left}` });
}

/** Whether a ready pod has an agent; when that cannot be seen, one may. */
async function mayServe(kube: Kube, object: Workload, signal: AbortSignal): Promise<boolean> {
  const query = { namespace: object.metadata.namespace, labelSelector: formatSelector(object.spec.selector ?? {}) };
  try {
    const { items } = await kube.list(pods, query, signal);
    return items.some((pod) => isLive(pod) && isReady(pod) && findAgent(pod.spec) !== undefined);
  } catch {
    return true;
  }
}

export interface RemoveRequest {
  readonly workload: WorkloadRef;
  readonly onProgress: Progress;
  readonly signal: AbortSignal;
  /** Wait until the pods have been replaced; default true. */
  readonly wait?: boolean;
}

/** Takes our own fields out of the current workload. False when there was nothing of ours, or it is in the manifest. */
export async function removeAgent(kube: Kube, request: RemoveRequest): Promise<boolean> {
  const { workload: ref, signal } = request;
  if (ref.kind === "CronJob") return await restoreCronJob(kube, ref, () => true, signal);
  const { object, changed } = await applyPlan(kube, ref, signal, (current) =>
    isInManifest(current.spec.template) ? current : planRemoval(current),
  );
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

/** A sentence on pods that keep an agent which their workload's template has no more; undefined when there are none. */
export async function findStaying(kube: Kube, ref: WorkloadRef, signal: AbortSignal): Promise<string | undefined> {
  const found = await findWorkload(kube, ref, signal);
  if (found === undefined || keptCount(found.object) === 0) return undefined;
  const items = await listWorkloadPods(kube, found, signal);
  return warnOfStaying(found.object, describeWorkload(ref), {
    pods: items,
    hasAgent: (pod) => findAgent(pod.spec) !== undefined,
  });
}

export interface RestoreRequest extends RemoveRequest {
  /** Whose replacement is taken back; anybody else's stays. */
  readonly installId: string;
}

/**
 * Puts a replaced container back into the current workload, if this installation has replaced one. Gives a sentence when
 * somebody has changed meanwhile what the stand-in had taken.
 */
export async function restoreContainer(kube: Kube, request: RestoreRequest): Promise<string | undefined> {
  const { workload: ref, signal, installId } = request;
  if (ref.kind === "CronJob") {
    await restoreCronJob(kube, ref, (record) => record.installId === installId, signal);
    return undefined;
  }
  let kept: string | undefined;
  const { object, changed } = await applyPlan(kube, ref, signal, (current) => {
    if (readReplacement(current.spec.template)?.installId !== installId) return current;
    kept = changedMeanwhile(current.spec.template, describeWorkload(ref));
    return planRestore(current);
  });
  if (!changed || request.wait === false || object.spec.replicas === 0 || object.spec.paused === true) return kept;
  await waitForRollout(kube, {
    ref,
    object,
    isNew: (pod) => readReplacement(pod) === undefined,
    stillWanted: (current) => readReplacement(current.spec.template) === undefined,
    what: `putting the container of ${describeWorkload(ref)} back`,
    onProgress: request.onProgress,
    signal,
    timeoutMs: rolloutMs,
  });
  // Callers' kept connections to pods that are ending are the laptop's still: a stand-in has no answer for them.
  await waitUntilEnded(kube, object, request, (pod) => readReplacement(pod) !== undefined);
  return kept;
}

export interface InstalledAgent {
  readonly workload: WorkloadRef;
  readonly config: AgentConfig | undefined;
  readonly image: string;
  /** It stays: whoever owns the manifest takes it out. */
  readonly inManifest: boolean;
}

/** Workloads whose template has our agent, and CronJobs that a Job of ours stands in for. All namespaces when none is given. */
export async function listAgents(
  kube: Kube,
  namespace: string | undefined,
  signal: AbortSignal,
): Promise<readonly InstalledAgent[]> {
  const found = await listReplaceable(kube, namespace, signal);
  return found.flatMap((item) => toInstalled(item) ?? []);
}

/** The agent in one workload's template, if any. */
export function toInstalled(item: FoundWorkload): InstalledAgent | undefined {
  const pod = item.object.spec.template.spec;
  const { kind, name, namespace } = item;
  const agent = findAgent(pod);
  // A CronJob's template is never ours.
  const isOurs = kind === "CronJob" ? replacementOf(item) !== undefined : agent !== undefined;
  if (!isOurs) return undefined;
  const inManifest = kind !== "CronJob" && isInManifest(item.object.spec.template);
  return { workload: { kind, name, namespace }, config: readAgentConfig(pod), image: agent?.image ?? "", inManifest };
}
