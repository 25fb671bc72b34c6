// Ephemeral agents cannot be taken out of a pod; over a port-forward to it they can be told that nobody wants them any
// more, and then end when their last connection has. What stays is an entry in the pod's status.
import type { Clock } from "#base/clock.ts";
import { deadline } from "#base/abort.ts";
import { isAppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import { currentAgent } from "#installer/ephemeral.ts";
import type { Kube } from "#kube/client.ts";
import { pods } from "#kube/objects.ts";
import { openPortForward } from "#kube/streams/port-forward.ts";
import { agentIntroductionPort } from "#wire/agent-api.ts";
import type { WorkloadRef } from "#wire/manager-api.ts";
import { openConversation } from "#daemon/link/laptop-session.ts";

export interface EphemeralPod {
  readonly namespace: string;
  readonly podName: string;
  readonly workload: WorkloadRef;
  readonly image: string;
}

/** chosen: the agent answers at once. */
const retireMs = 10_000;
/** chosen: an agent without connections ends within two seconds; the kubelet tells it a moment later. */
const endMs = 6000;
const lookMs = 500;

/**
 * Pods with an ephemeral agent that has not ended. One that serves already may be told to be waiting still, since the
 * kubelet tells a second late. All namespaces when none is given.
 */
export async function findEphemeralPods(
  kube: Kube,
  namespace: string | undefined,
  signal: AbortSignal,
): Promise<readonly EphemeralPod[]> {
  const { items } = await kube.list(pods, { namespace }, signal);
  return items.flatMap((pod) => {
    const agent = currentAgent(pod);
    const { name, namespace: where, deletionTimestamp } = pod.metadata;
    if (agent?.kind !== "ephemeral" || deletionTimestamp !== undefined) return [];
    if (agent.config === undefined || name === undefined || where === undefined) return [];
    return [{ namespace: where, podName: name, workload: agent.config.workload, image: agent.image }];
  });
}

/** Tells the agent to end; gives the connections that keep it. Undefined when the pod went away meanwhile. */
export async function retireAgent(
  kube: Kube,
  pod: EphemeralPod,
  clock: Clock,
  signal: AbortSignal,
): Promise<number | undefined> {
  const { namespace, podName } = pod;
  using limit = deadline(clock, retireMs, `telling the agent of pod ${podName} to end`, signal);
  try {
    const request = { namespace, pod: podName, port: agentIntroductionPort, signal: limit.signal };
    const transport = await openPortForward(kube, request);
    const options = { api: "introduction", clock, log: silentLogger } as const;
    using agent = await openConversation(transport, options, limit.signal);
    const { connections } = await agent.rpc.call("retire", {}, limit.signal);
    return connections;
  } catch (error) {
    if (isAppError(error, "not_found")) return undefined;
    throw error;
  }
}

/** So that a second `uninstall` does not find it again. Not for agents that connections keep. */
export async function waitUntilEnded(
  kube: Kube,
  { namespace, podName }: EphemeralPod,
  signal: AbortSignal,
): Promise<void> {
  using limit = deadline(kube.clock, endMs, `the end of the agent in pod ${podName}`, signal);
  try {
    for (;;) {
      const pod = await kube.find(pods, { namespace, name: podName }, limit.signal);
      if (pod === undefined || currentAgent(pod) === undefined) return;
      await kube.clock.sleep(lookMs, limit.signal);
    }
  } catch (error) {
    if (signal.aborted) throw error; // else it is told to end, and that is what counts
  }
}

/** `Deployment hello: the agents of 2 pods end …`, one line a workload. */
export function describeRetired(retired: readonly EphemeralPod[]): readonly string[] {
  const counts = new Map<string, number>();
  for (const { workload } of retired) {
    const key = `${workload.kind} ${workload.name}`;
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return [...counts].map(
    ([workload, count]) =>
      `${workload}: traffic-agent ends in ${count === 1 ? "a pod" : `${count} pods`} (its entry stays in the pod's status until the pod is replaced)`,
  );
}
