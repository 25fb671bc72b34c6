// Pure: an agent for a pod that runs (DESIGN 12): an ephemeral container that takes all of the pod's TCP service ports by
// redirect, and which agent a pod has now. Names are counted from the pod's spec, because entries are never removed.
// Invariant: the plan is a function of the pod and its services alone, so that two laptops ask for the same container.
import { AppError } from "#base/error.ts";
import type { Container, ContainerStatus, EphemeralContainer, Pod, PodSpec, Service } from "#kube/objects.ts";
import { whyPodUnfit } from "#kube/workloads/resolve-workload.ts";
import type { AgentConfig, AppPort } from "#wire/agent-api.ts";
import { agentConfigVariable, ephemeralAgentPrefix, isSamePort } from "#wire/agent-api.ts";
import type { AgentKind, WorkloadRef } from "#wire/manager-api.ts";
import type { ImageChoice } from "./agent-container.ts";
import { buildEphemeralAgent } from "./agent-container.ts";
import { findAgent, primaryContainer, readContainerConfig } from "./agent.ts";
import { certificateVolumes } from "./certificate-volumes.ts";
import { injectAnnotations, refuseManager } from "./marks.ts";
import { podMemoryLimit } from "./memory-room.ts";
import { findProbes } from "./pod-probes.ts";
import { planTakeover } from "./port-takeover.ts";

/** Chosen: a break between two intercepts of one debugging session. */
const idleExitMs = 10 * 60_000;

export interface PodAgent {
  readonly kind: AgentKind;
  readonly container: string;
  readonly image: string;
  /** Undefined when a version wrote it that we do not understand. */
  readonly config: AgentConfig | undefined;
  /** `waiting` also before the kubelet has seen it. */
  readonly state: "waiting" | "running" | "terminated";
  /** Kubernetes' reason once it has ended, e.g. `OOMKilled`. */
  readonly endedBy?: string | undefined;
}

/** The agent that serves this pod or is about to; undefined when there is none or all have ended. */
export function currentAgent(pod: Pod): PodAgent | undefined {
  const sidecar = findAgent(pod.spec);
  if (sidecar !== undefined) return toAgent(pod, sidecar, "sidecar");
  return listEphemeral(pod).findLast((agent) => agent.state !== "terminated");
}

/** All ephemeral agents that the pod has or had, in the order of their numbers. */
export function listEphemeral(pod: Pod): readonly PodAgent[] {
  return (pod.spec.ephemeralContainers ?? [])
    .filter(isEphemeralAgent)
    .toSorted((a, b) => numberOf(a.name) - numberOf(b.name))
    .map((container) => toAgent(pod, container, "ephemeral"));
}

/** The pod's last agent was ended because the pod's memory limit was reached: another one would be as well. */
export function lacksMemory(pod: Pod): boolean {
  return listEphemeral(pod).at(-1)?.endedBy === "OOMKilled";
}

/** Whether the agent takes these ports of the application. */
export function agentCovers(agent: PodAgent, needed: readonly AppPort[]): boolean {
  return needed.every((wanted) => agent.config?.ports.some((port) => isSamePort(port, wanted)) === true);
}

function toAgent(pod: Pod, container: Container, kind: AgentKind): PodAgent {
  const { name, image = "" } = container;
  const status = statusesOf(pod).find((item) => item.name === name);
  const endedBy = status?.state?.terminated?.reason;
  return { kind, container: name, image, config: readContainerConfig(container), state: stateOf(status), endedBy };
}

function statusesOf({ status }: Pod): readonly ContainerStatus[] {
  const { initContainerStatuses = [], containerStatuses = [], ephemeralContainerStatuses = [] } = status ?? {};
  return [...initContainerStatuses, ...containerStatuses, ...ephemeralContainerStatuses];
}

function stateOf(status: ContainerStatus | undefined): PodAgent["state"] {
  if (status?.state?.running !== undefined) return "running";
  return status?.state?.terminated === undefined ? "waiting" : "terminated";
}

function isEphemeralAgent({ name, env }: EphemeralContainer): boolean {
  return Number.isInteger(numberOf(name)) && env?.some((item) => item.name === agentConfigVariable) === true;
}

function numberOf(name: string): number {
  const digits = name.startsWith(ephemeralAgentPrefix) ? name.slice(ephemeralAgentPrefix.length) : "";
  return /^[1-9]\d*$/.test(digits) ? Number(digits) : Number.NaN;
}

export interface EphemeralOptions {
  readonly workload: WorkloadRef;
  /** Every service that selects the pod. */
  readonly services: readonly Service[];
  readonly image: ImageChoice;
  /** Ports of the application that the intercept needs, as in `InjectionOptions`. */
  readonly needed?: readonly AppPort[];
}

/** The next ephemeral agent of a pod that has none at work. Throws why it cannot have one. */
export function planEphemeral(pod: Pod, options: EphemeralOptions): EphemeralContainer {
  const what = `pod ${pod.metadata.name ?? ""}`;
  const { spec } = pod;
  refusePod(pod, what);
  const { services, needed } = options;
  const takeover = planTakeover(spec, { services, asked: needed ?? [], what, by: "redirect" });
  if (takeover.ports.length === 0 && needed?.length !== 0) {
    throw new AppError("not_interceptable", `${what} has no port that an agent could take`, {
      hint: "create a Service that selects it",
    });
  }
  const memoryLimitBytes = podMemoryLimit(pod);
  const config: AgentConfig = {
    workload: options.workload,
    ports: [...takeover.ports],
    containerName: primaryContainer({ metadata: pod.metadata, spec }, takeover),
    certificateVolumes: certificateVolumes(spec),
    probes: [...findProbes(spec)],
    ephemeral: { idleExitMs, ...(memoryLimitBytes === undefined ? {} : { memoryLimitBytes }) },
  };
  return buildEphemeralAgent({ name: nextName(spec), config, pod: spec, image: options.image });
}

/** Any container's name counts: an entry of another product may look like ours. */
function nextName(spec: PodSpec): string {
  const numbers = (spec.ephemeralContainers ?? []).map(({ name }) => numberOf(name)).filter(Number.isInteger);
  return `${ephemeralAgentPrefix}${Math.max(0, ...numbers) + 1}`;
}

function refusePod({ metadata, spec }: Pod, what: string): void {
  refuseManager(metadata.labels, what);
  const optOut = injectAnnotations.find((name) => metadata.annotations?.[name] === "disabled");
  if (optOut !== undefined) {
    throw new AppError("not_interceptable", `${what} refuses agents by its annotation ${optOut}: disabled`, {
      hint: "remove the annotation from its workload's pod template",
    });
  }
  const unfit = whyPodUnfit(spec);
  if (unfit !== undefined) throw new AppError("not_interceptable", `${what} ${unfit.why}`, { hint: unfit.hint });
  if (metadata.annotations?.["kubernetes.io/config.mirror"] !== undefined) {
    throw new AppError(
      "not_interceptable",
      `${what} is a static pod of its node, which takes no ephemeral containers`,
      {
        hint: "intercept a workload that calls it",
      },
    );
  }
}
