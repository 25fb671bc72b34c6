// The wait for a traffic-manager, and which of its pods is spoken to.
import { linkSignals } from "#base/abort.ts";
import { AppError } from "#base/error.ts";
import type { Kube } from "#kube/client.ts";
import { waitFor } from "#kube/live-set.ts";
import type { Pod, Workload } from "#kube/objects.ts";
import { deployments, pods } from "#kube/objects.ts";
import { findProblem, isLive, isReady, isTerminating } from "#kube/workloads/pod-problems.ts";
import { Knocks } from "./manager-knock.ts";
import { managerName, managerSelectorText } from "./marks.ts";
import { Patience, WaitLimit } from "./patience.ts";
import { judgeRollout } from "./rollout-state.ts";
import { SlowPods } from "./slow-pods.ts";

const readyMs = 120_000;

export interface ManagerWait {
  readonly onProgress: (text: string) => void;
  readonly signal: AbortSignal;
  /** Whole wait; default 2 minutes. */
  readonly timeoutMs?: number;
}

/** A pod of the manager that is ready, by its own word or by kubelet's. */
export async function waitForManager(kube: Kube, namespace: string, wait: ManagerWait): Promise<Pod> {
  const { signal, onProgress } = wait;
  const patience = new Patience();
  const what = `waiting for the traffic-manager in namespace ${namespace}`;
  using limit = new WaitLimit({ clock: kube.clock, ms: wait.timeoutMs ?? readyMs, what }, signal);
  await using slow = new SlowPods(kube, namespace);
  await using knocks = new Knocks(kube, namespace);
  const enough = new AbortController();
  using either = linkSignals(limit.signal, enough.signal);
  let said = "";
  const ready = waitFor(kube, {
    watched: {
      pods: { kind: pods, query: { namespace, labelSelector: managerSelectorText } },
      deployment: {
        kind: deployments,
        query: { namespace, fieldSelector: `metadata.name=${managerName}` },
        optional: true,
      },
    },
    evaluate: (sets) => {
      const live = (sets.pods as readonly Pod[]).filter(isLive);
      const ready = live.find(isReady);
      if (ready !== undefined) return ready;
      knocks.ask(live);
      const problem = findProblem(...live) ?? refusedManager(sets.deployment[0], live);
      const scalingUp = problem !== undefined && slow.isScalingUp(problem, live);
      if (scalingUp) limit.putOff();
      if (problem !== undefined && patience.isOver(problem, kube.clock.now(), scalingUp)) {
        throw new AppError(
          "manager_failed",
          `the traffic-manager in namespace ${namespace} does not come up: ${problem.text}`,
          {
            hint: `kubectl describe pod -n ${namespace} -l app.kubernetes.io/name=${managerName}`,
            fields: { reason: problem.reason },
          },
        );
      }
      const delay = problem?.text ?? slow.describePull(live);
      const text =
        delay === undefined ? "waiting for the traffic-manager" : `waiting for the traffic-manager: ${delay}`;
      if (text !== said) onProgress(text);
      said = text;
      return undefined;
    },
    signal: either.signal,
  });
  try {
    return await Promise.race([ready, knocks.answered]);
  } finally {
    enough.abort(new AppError("cancelled", "the traffic-manager has answered"));
    await ready.catch(() => undefined); // told above
  }
}

function refusedManager(deployment: unknown, live: readonly Pod[]): ReturnType<typeof findProblem> {
  const workload = deployment as Workload | undefined;
  if (workload === undefined || live.length > 0) return undefined;
  return judgeRollout({ kind: "Deployment", workload, pods: live, events: [], isNew: () => true, generation: 0 })
    .problem;
}

/** One that is ready, or else this one, which was ready before kubelet knew. */
export async function findManagerPod(
  kube: Kube,
  namespace: string,
  readyUid: string | undefined,
  signal: AbortSignal,
): Promise<Pod> {
  const { items } = await kube.list(pods, { namespace, labelSelector: managerSelectorText }, signal);
  const pod =
    items.find((item) => isReady(item) && !isTerminating(item)) ??
    items.find((item) => item.metadata.uid === readyUid && isLive(item));
  if (pod !== undefined) return pod;
  throw new AppError(
    "manager_unavailable",
    `no pod of deployment traffic-manager in namespace ${namespace} is ready (${items.length} found)`,
    { hint: `see \`kubectl describe pods -n ${namespace} -l ${managerSelectorText}\`` },
  );
}
