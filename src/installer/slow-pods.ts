// What only events tell of a pod that takes its time: an autoscaler makes a node for it, an image is being pulled. They
// are asked for while such a pod is there, and never otherwise: a busy namespace has thousands of them.
import { Scope } from "#base/scope.ts";
import { silentLogger } from "#base/log.ts";
import type { Kube } from "#kube/client.ts";
import type { KubeEvent, Pod } from "#kube/objects.ts";
import { events } from "#kube/objects.ts";
import { isReady, type PodProblem } from "#kube/workloads/pod-problems.ts";

/** cluster-autoscaler's word, and Karpenter's (also of clouds that run it), on the pod that they make a node for. */
const scaleUpReasons = new Set(["TriggeredScaleUp", "Nominated"]);
/** Chosen. */
const askEveryMs = 2000;
/** Chosen: most images are there by then, and say nothing. */
const slowPullMs = 5000;

interface Known {
  events: readonly KubeEvent[];
  readonly sinceMs: number;
  askedMs: number | undefined;
}

export class SlowPods implements AsyncDisposable {
  readonly #kube: Kube;
  readonly #namespace: string;
  readonly #scope = new Scope(silentLogger);
  readonly #pods = new Map<string, Known>();

  constructor(kube: Kube, namespace: string) {
    this.#kube = kube;
    this.#namespace = namespace;
  }

  /** An autoscaler is making a node for the pod that has this problem. */
  isScalingUp(problem: PodProblem, pods: readonly Pod[]): boolean {
    if (problem.reason !== "Unschedulable") return false;
    const pod = pods.find((item) => item.metadata.name === problem.pod);
    return pod !== undefined && this.#look(pod).events.some((event) => scaleUpReasons.has(event.reason ?? ""));
  }

  /** `pulling image x (20 s)` of the first pod that has waited for one; undefined when there is none. */
  describePull(pods: readonly Pod[]): string | undefined {
    const now = this.#kube.clock.now();
    for (const pod of pods) {
      if (isReady(pod) || !isStarting(pod)) continue;
      const known = this.#know(pod);
      if (now - known.sinceMs < slowPullMs) continue;
      const image = pulledNow(this.#look(pod).events);
      // In steps of five, so that a terminal that keeps its lines is not filled.
      if (image !== undefined) return `pulling image ${image} (${Math.floor((now - known.sinceMs) / 5000) * 5} s)`;
    }
    return undefined;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#scope[Symbol.asyncDispose]();
  }

  #know(pod: Pod): Known {
    const uid = pod.metadata.uid ?? "";
    const known = this.#pods.get(uid) ?? { events: [], sinceMs: this.#kube.clock.now(), askedMs: undefined };
    this.#pods.set(uid, known);
    return known;
  }
  /** What is known now; a newer answer is asked for. */
  #look(pod: Pod): Known {
    const known = this.#know(pod);
    const now = this.#kube.clock.now();
    if (!this.#scope.disposed && now - (known.askedMs ?? Number.NEGATIVE_INFINITY) >= askEveryMs) {
      known.askedMs = now;
      this.#scope.background("pod events", this.#ask(pod.metadata.uid ?? "", known));
    }
    return known;
  }
  async #ask(uid: string, known: Known): Promise<void> {
    const query = { namespace: this.#namespace, fieldSelector: `involvedObject.uid=${uid}` };
    // Without them the wait goes on as it would: they only explain.
    const list = await this.#kube.list(events, query, this.#scope.signal).catch(() => undefined);
    if (list !== undefined) known.events = list.items;
  }
}

/** It has a node, and a container that has not been started yet. */
function isStarting({ status }: Pod): boolean {
  const waiting = ["ContainerCreating", "PodInitializing"];
  const statuses = [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])];
  return statuses.some(({ state }) => waiting.includes(state?.waiting?.reason ?? ""));
}

/** The image whose pull began and has not ended: the kubelet's messages quote it. */
export function pulledNow(seen: readonly KubeEvent[]): string | undefined {
  const imagesOf = (reason: string): readonly string[] =>
    seen.flatMap((event) => (event.reason === reason ? (/"([^"]+)"/.exec(event.message ?? "")?.[1] ?? []) : []));
  const done = new Set(imagesOf("Pulled"));
  return imagesOf("Pulling").find((image) => !done.has(image));
}
