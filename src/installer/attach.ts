// An agent into one running pod: a patch of its ephemeral containers. It needs no precondition, since the server merges
// by name: two laptops that ask for the same container get it once, and who asks for another under that name is refused
// and uses what is there.
import { AppError, isAppError } from "#base/error.ts";
import type { Kube } from "#kube/client.ts";
import type { Pod } from "#kube/objects.ts";
import { pods } from "#kube/objects.ts";
import { isLive } from "#kube/workloads/pod-problems.ts";
import type { AppPort } from "#wire/agent-api.ts";
import { describePorts } from "./agent.ts";
import type { EphemeralOptions, PodAgent } from "./ephemeral.ts";
import { agentCovers, currentAgent, listEphemeral, planEphemeral } from "./ephemeral.ts";

export interface AttachOptions extends EphemeralOptions {
  readonly needed: readonly AppPort[];
}

/** chosen: each refusal means that somebody else was quicker, so the second look nearly always finds an agent. */
const maxAttempts = 5;

/** The agent that takes the ports in this pod: the one that is there, or a new one. Throws why there can be none. */
export async function attachPod(
  kube: Kube,
  pod: Pod,
  options: AttachOptions,
  signal: AbortSignal,
): Promise<{ readonly agent: PodAgent; readonly changed: boolean }> {
  let current = pod;
  for (let attempt = 1; ; attempt++) {
    const present = requireFit(current, options);
    if (present !== undefined) return { agent: present, changed: false };
    try {
      const patched = await patchPod({ kube, pod: current, options, dryRun: false }, signal);
      const agent = listEphemeral(patched).at(-1);
      if (agent !== undefined) return { agent, changed: true };
      throw new AppError("injection_failed", `pod ${nameOf(pod)} has no agent after its patch, expected one`);
    } catch (error) {
      if (attempt >= maxAttempts || !isTaken(error)) throw error;
      current = await reread(kube, current, signal);
      if (requireFit(current, options) === undefined && !isAppError(error, "conflict")) throw error; // our own mistake
    }
  }
}

/** Asks the server whether it would let us, admission and quota included; changes nothing. */
export async function tryAttach(kube: Kube, pod: Pod, options: AttachOptions, signal: AbortSignal): Promise<void> {
  try {
    await patchPod({ kube, pod, options, dryRun: true }, signal);
  } catch (error) {
    if (!isTaken(error)) throw error;
    const now = await reread(kube, pod, signal);
    if (requireFit(now, options) === undefined && !isAppError(error, "conflict")) throw error;
  }
}

/** The agent at work, undefined for none; throws when it is one that stands in the way. */
export function requireFit(pod: Pod, options: AttachOptions): PodAgent | undefined {
  const agent = currentAgent(pod);
  if (agent === undefined || agentCovers(agent, options.needed)) return agent;
  // A second agent could not listen beside it.
  throw new AppError(
    "not_interceptable",
    `the ${agent.kind} agent in pod ${nameOf(pod)} does not take port ${describePorts(options.needed)}`,
    { hint: `\`telepresence uninstall --agent ${options.workload.name}\`, and then intercept again` },
  );
}

interface Patch {
  readonly kube: Kube;
  readonly pod: Pod;
  readonly options: AttachOptions;
  readonly dryRun: boolean;
}

async function patchPod({ kube, pod, options, dryRun }: Patch, signal: AbortSignal): Promise<Pod> {
  const container = planEphemeral(pod, options);
  const ref = { namespace: pod.metadata.namespace, name: nameOf(pod) };
  const of = { kind: pods, ref, subresource: "ephemeralcontainers" };
  // The uid is a precondition: a StatefulSet's next pod has the same name.
  const patch = { metadata: { uid: pod.metadata.uid }, spec: { ephemeralContainers: [container] } };
  return await kube.patchSubresource(of, patch, signal, { dryRun });
}

async function reread(kube: Kube, pod: Pod, signal: AbortSignal): Promise<Pod> {
  const now = await kube.get(pods, { namespace: pod.metadata.namespace, name: nameOf(pod) }, signal);
  if (now.metadata.uid === pod.metadata.uid && isLive(now)) return now;
  throw new AppError("not_found", `pod ${nameOf(pod)} went away meanwhile`, { hint: "try again" });
}

/** 422: an entry of that name is there already, and may not be changed. */
function isTaken(error: unknown): boolean {
  return isAppError(error) && (error.code === "conflict" || error.fields["httpStatus"] === 422);
}

function nameOf(pod: Pod): string {
  return pod.metadata.name ?? "";
}
