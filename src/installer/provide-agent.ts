// Which agent a workload gets: the one that is there, an ephemeral one in its running pods, or a sidecar by rollout. The
// server is asked by a dry run before anything is changed, and a choice that is not the wished one is told with its
// reason.
import { deadline } from "#base/abort.ts";
import { AppError, isAppError, toAppError } from "#base/error.ts";
import { inParallel } from "#base/in-parallel.ts";
import type { Kube } from "#kube/client.ts";
import { waitFor } from "#kube/live-set.ts";
import type { Pod, PodMetrics } from "#kube/objects.ts";
import { podMetrics, pods } from "#kube/objects.ts";
import { findContainerProblem, isLive, isReady } from "#kube/workloads/pod-problems.ts";
import { listWorkloadPods, podQuery } from "#kube/workloads/workload-pods.ts";
import type { FoundWorkload } from "#kube/workloads/workloads.ts";
import { describeWorkload, findWorkload, isTemplated } from "#kube/workloads/workloads.ts";
import type { AgentMode } from "#wire/connect-choices.ts";
import type { AgentKind } from "#wire/manager-api.ts";
import { findAgent } from "./agent.ts";
import { attachPod, requireFit, tryAttach } from "./attach.ts";
import type { PodAgent } from "./ephemeral.ts";
import { currentAgent, lacksMemory, listEphemeral, planEphemeral } from "./ephemeral.ts";
import { isInManifest } from "./marks.ts";
import { judgeMemory } from "./memory-room.ts";
import { Patience } from "./patience.ts";
import type { InjectRequest } from "./rollout.ts";
import { injectAgent, whyNoSidecar } from "./rollout.ts";

export interface ProvideRequest extends InjectRequest {
  readonly mode: AgentMode;
  /** Nothing that is worth a restart: where no agent can be attached, none comes. */
  readonly withoutRollout?: boolean;
  /** Asked before the workload's template is changed: what to warn of. */
  readonly beforeRollout?: () => readonly string[];
}

export interface ProvidedAgent {
  /** `ephemeral`: pods that come later need an agent each (`attachPod`). */
  readonly kind: AgentKind;
  /** False when every pod had one already. */
  readonly changed: boolean;
  /** Pods that a rollout replaced for it. */
  readonly replaced: number;
  /**
   * Where ephemeral agents do not run yet: resolves when those of the ready pods do, rejects when one will not. An agent
   * answers up to a second before the cluster tells that it runs, so this is left to the caller.
   */
  readonly started?: (signal: AbortSignal) => Promise<void>;
  readonly warnings: readonly string[];
}

/** chosen: pods patched at once. */
const maxParallel = 8;
/** chosen: the image is on most nodes; a pull that fails is told in seconds. */
const startMs = 60_000;

/** Makes sure that the workload's pods have an agent that takes the ports; a rollout is waited for. */
export async function provideAgent(kube: Kube, request: ProvideRequest): Promise<ProvidedAgent> {
  if (request.replace !== undefined) return await byRollout(kube, request);
  const { mode, workload, signal } = request;
  const found = await findWorkload(kube, workload, signal);
  const inTemplate = found !== undefined && findAgent(found.object.spec.template.spec) !== undefined;
  const inPlace = !isTemplated(workload.kind) && (inTemplate || mode !== "sidecar");
  if (inPlace) return await inPods(kube, request, found);
  if (mode === "sidecar") return await byRollout(kube, request);
  // What is in the template comes with every pod, and leaves no room for a second agent.
  if (found === undefined || inTemplate) {
    const provided = await byRollout(kube, request);
    return mode === "ephemeral"
      ? { ...provided, warnings: [sidecarIsThere(found, request), ...provided.warnings] }
      : provided;
  }
  return await byAttachElseRollout(kube, request, found);
}

async function byAttachElseRollout(kube: Kube, request: ProvideRequest, found: FoundWorkload): Promise<ProvidedAgent> {
  const { mode, workload, signal, onProgress } = request;
  try {
    return await byAttach(kube, request, found);
  } catch (error) {
    const failure = toAppError(error);
    if (mode === "ephemeral" || request.withoutRollout === true || signal.aborted || !isRefusal(failure)) throw failure;
    const why = `the agent of ${describeWorkload(workload)} comes by a rollout, which restarts its pods: ${explain(failure)}`;
    onProgress(why);
    const provided = await byRollout(kube, request);
    return { ...provided, warnings: [why, ...provided.warnings] };
  }
}

/** Pods that no rollout replaces: an agent of their manifest, else an ephemeral one. */
async function inPods(kube: Kube, request: ProvideRequest, found: FoundWorkload | undefined): Promise<ProvidedAgent> {
  const { workload, signal, mode } = request;
  const what = describeWorkload(workload);
  if (found === undefined) throw new AppError("workload_not_found", `${what} is gone`, { hint: "start it again" });
  try {
    return await byAttach(kube, request, found);
  } catch (error) {
    const failure = toAppError(error);
    if (mode === "ephemeral" || signal.aborted || !isRefusal(failure)) throw failure;
    const { code, fields, hint } = failure;
    const text = `${what} gets no ephemeral agent: ${explain(failure)}; nor a sidecar, since ${whyNoSidecar(workload.kind)}`;
    throw new AppError(code, text, { fields, cause: failure, ...(hint === undefined ? {} : { hint }) });
  }
}

function sidecarIsThere(found: FoundWorkload | undefined, { workload }: ProvideRequest): string {
  const way =
    found !== undefined && isInManifest(found.object.spec.template)
      ? "it stands in the manifest"
      : `\`telepresence uninstall --agent ${workload.name}\` takes it out`;
  return `the pods of ${describeWorkload(workload)} have a sidecar already; it is used (${way})`;
}

async function byRollout(kube: Kube, request: ProvideRequest): Promise<ProvidedAgent> {
  const foreseen = request.beforeRollout?.() ?? [];
  for (const text of foreseen) request.onProgress(text);
  const { changed, replaced, warnings } = await injectAgent(kube, request);
  return { kind: "sidecar", changed, replaced, warnings: [...foreseen, ...warnings] };
}

/** What another way of bringing an agent may get around. */
function isRefusal({ code, fields }: AppError): boolean {
  return code === "forbidden" || code === "not_interceptable" || code === "unsupported" || fields["httpStatus"] === 422;
}

function explain(failure: AppError): string {
  const said = typeof failure.fields["serverMessage"] === "string" ? failure.fields["serverMessage"] : "";
  const security = /violates PodSecurity "([^"]*)"/.exec(said)?.[1];
  if (security !== undefined) return `the namespace's pod security (${security}) forbids NET_ADMIN`;
  if (failure.fields["admission"] === true)
    return `the cluster refuses it: ${said.replace(/^pods "[^"]*" is forbidden: /, "")}`;
  return failure.message;
}

async function byAttach(kube: Kube, request: ProvideRequest, found: FoundWorkload): Promise<ProvidedAgent> {
  const { workload, signal, onProgress } = request;
  const live = (await listWorkloadPods(kube, found, signal)).filter(isLive);
  if (live.length === 0) {
    const hint =
      workload.kind === "CronJob"
        ? "intercept it while one of its jobs runs: later ones are followed"
        : "start it, and try again";
    throw new AppError("not_interceptable", `${describeWorkload(workload)} has no running pods to attach to`, { hint });
  }
  const bare = live.filter((pod) => requireFit(pod, request) === undefined);
  for (const pod of bare) planEphemeral(pod, request); // throws what no server needs to be asked for
  const warnings = await checkMemory(kube, request, { found, bare });
  const [first] = bare.toSorted((a, b) => Number(isReady(b)) - Number(isReady(a)));
  if (first !== undefined) {
    await tryAttach(kube, first, request, signal).catch(ignoreGone);
    onProgress(`attaching the traffic-agent to ${describeCount(bare.length)} of ${describeWorkload(workload)}`);
  }
  const attached = await attachAll(kube, bare, request);
  const wanted = live.filter((pod) => isReady(pod) && currentAgent(pod)?.state !== "running");
  return {
    kind: findAgent(found.object.spec.template.spec) === undefined ? "ephemeral" : "sidecar",
    changed: attached > 0,
    replaced: 0,
    ...(wanted.length === 0
      ? {}
      : { started: (waiting) => waitUntilRunning(kube, { ...request, signal: waiting }, { found, wanted }) }),
    warnings: [...warnings, ...warnOfVersions(live, request)],
  };
}

/** Throws where an agent could take the application's memory; whoever insists is warned. */
async function checkMemory(
  kube: Kube,
  request: ProvideRequest,
  { found, bare }: { readonly found: FoundWorkload; readonly bare: readonly Pod[] },
): Promise<readonly string[]> {
  if (bare.every((pod) => judgeMemory(pod, undefined).kind === "unlimited")) return [];
  const usage = await readUsage(kube, found, request.signal);
  const worst = bare.map((pod) => whyShort(pod, usage)).find((text) => text !== undefined);
  if (worst === undefined) return [];
  // The kernel ends the agent first, but the application may want more before all of that is freed (seen).
  if (request.mode === "ephemeral") return [`${worst}; where it runs out the application may be ended with the agent`];
  throw new AppError("not_interceptable", worst, { hint: "--agent ephemeral takes it all the same" });
}

function whyShort(pod: Pod, usage: ReadonlyMap<string, PodMetrics>): string | undefined {
  const name = pod.metadata.name ?? "";
  if (lacksMemory(pod)) return `the last agent in pod ${name} was ended because the pod's memory ran out`;
  const room = judgeMemory(pod, usage.get(name));
  return room.kind === "short" || room.kind === "unknown" ? room.text : undefined;
}

async function readUsage(
  kube: Kube,
  found: FoundWorkload,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, PodMetrics>> {
  try {
    const { items } = await kube.list(podMetrics, podQuery(found), signal);
    return new Map(items.map((item) => [item.metadata.name ?? "", item]));
  } catch (error) {
    if (signal.aborted) throw error;
    return new Map(); // no metrics server, or not for us: the caller says so
  }
}

/** How many pods got a new agent. */
async function attachAll(kube: Kube, bare: readonly Pod[], request: ProvideRequest): Promise<number> {
  let count = 0;
  await inParallel(bare, maxParallel, async (pod) => {
    const done = await attachPod(kube, pod, request, request.signal).catch(ignoreGone);
    if (done?.changed === true) count += 1;
  });
  return count;
}

/** A pod that is going away needs no agent. */
function ignoreGone(error: unknown): undefined {
  if (isAppError(error, "not_found")) return undefined;
  throw error;
}

/** Until the agents of these pods run; pods that leave meanwhile are not waited for. */
async function waitUntilRunning(
  kube: Kube,
  { workload, signal, onProgress }: ProvideRequest,
  { found, wanted }: { readonly found: FoundWorkload; readonly wanted: readonly Pod[] },
): Promise<void> {
  const what = `starting the traffic-agent in the pods of ${describeWorkload(workload)}`;
  using limit = deadline(kube.clock, startMs, what, signal);
  const uids = new Set(wanted.map((pod) => pod.metadata.uid));
  const patience = new Patience();
  let said = "";
  const evaluate = (sets: { readonly pods: readonly Pod[] }): true | undefined => {
    const live = sets.pods.filter((pod) => uids.has(pod.metadata.uid) && isLive(pod));
    const missing = live.filter((pod) => currentAgent(pod)?.state !== "running");
    for (const pod of missing) {
      const text = judgeStart(kube, pod, patience);
      if (text !== undefined && text !== said) onProgress(text);
      said = text ?? said;
    }
    return missing.length === 0 ? true : undefined;
  };
  const watched = { pods: { kind: pods, query: podQuery(found) } };
  await waitFor(kube, { watched, evaluate, signal: limit.signal });
}

/** What keeps it from starting, if anything; throws when that will not change. */
function judgeStart(kube: Kube, pod: Pod, patience: Patience): string | undefined {
  const agent = listEphemeral(pod).at(-1);
  const problem = agent === undefined ? undefined : findContainerProblem(pod, agent.container);
  if (agent === undefined || problem === undefined) return undefined;
  const ended = agent.state === "terminated"; // nothing starts an ephemeral container again
  if (!ended && !patience.isOver(problem, kube.clock.now())) return problem.text;
  const text = problem.text.replace(" ended ", ended ? " ended at once " : "$&");
  throw new AppError("injection_failed", `the traffic-agent does not start: ${text}`, {
    hint: `kubectl describe pod ${problem.pod} -n ${pod.metadata.namespace ?? ""}`,
    fields: { reason: problem.reason, container: problem.container },
  });
}

function warnOfVersions(live: readonly Pod[], { workload, image }: ProvideRequest): readonly string[] {
  const others = live
    .map((pod) => currentAgent(pod))
    .filter((agent): agent is PodAgent => agent !== undefined && agent.image !== image.image);
  const [first] = others;
  if (first === undefined) return [];
  return [
    `${describeWorkload(workload)} has the agent ${first.image}, this version brings ${image.image}; \`telepresence uninstall --agent ${workload.name}\` and a new intercept replace it`,
  ];
}

function describeCount(count: number): string {
  return count === 1 ? "a pod" : `${count} pods`;
}
