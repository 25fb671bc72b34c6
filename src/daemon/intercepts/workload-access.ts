// What intercepts need from the cluster's API, as one small contract: cluster-access.ts fulfils it with the user's
// credentials, the flow tests with processes of their own.
import type { Duplex } from "node:stream";
import type { ContainerQuery } from "#kube/workloads/resolve-container.ts";
import type { InterceptQuery } from "#kube/workloads/resolve-workload.ts";
import type { AgentPort, AppPort } from "#wire/agent-api.ts";
import type { Revocation } from "#wire/agent-door.ts";
import type { AgentMode } from "#wire/connect-choices.ts";
import type { InterceptTls } from "#wire/intercept-tls.ts";
import type {
  AgentKind,
  ExistingMode,
  InterceptKind,
  InterceptPort,
  ProbeMode,
  RefusedMode,
  WorkloadRef,
} from "#wire/manager-api.ts";
import type { EnvironmentPlace, PodEnvironment } from "./pod-environment.ts";
import type { CopiedVolumes, VolumeTarget, VolumeWish } from "#daemon/volumes/volume-copies.ts";

/** A pod of an intercepted workload. */
export interface WorkloadPod {
  readonly name: string;
  readonly uid: string;
  readonly ip?: string | undefined;
  readonly ready: boolean;
  /** Its agent's container runs and has started. */
  readonly agentRunning: boolean;
  /** It is not said to run yet, and may answer any moment. */
  readonly agentComing?: boolean | undefined;
  /** Name of that container, also before it runs; a pod may have several one after the other. */
  readonly agent?: string | undefined;
  /** Its containers have finished, and will not start again. */
  readonly ended?: boolean | undefined;
  /** Lives without an agent; what that means depends on how agents come to this workload. */
  readonly wantsAgent?: boolean | undefined;
  /** The container whose environment its agent was given; undefined when that cannot be seen. */
  readonly environmentOf?: string | undefined;
}

export interface InterceptRequest extends InterceptQuery {
  /** What becomes of the traffic; an intercept when left out. */
  readonly attachment?: InterceptKind | undefined;
  /** Host on which the laptop's process listens. */
  readonly address: string;
  /** What becomes of connections that are older. */
  readonly existing?: ExistingMode | undefined;
  /** Who answers when the laptop's process does not take a connection. */
  readonly onRefused?: RefusedMode | undefined;
  /** Who answers the kubelet's probes. */
  readonly probes?: ProbeMode | undefined;
  /** Which requests of HTTP it takes, with `unknownSessionId` in place of the session's id; everything when left out. */
  readonly filter?: string | undefined;
  /** It may share requests with others' intercepts. */
  readonly allowOverlap?: boolean | undefined;
  /** How connections that speak TLS are read, for the filter. */
  readonly tls?: InterceptTls | undefined;
  /** Whether team mates may see its requests, by a cloud server; true when left out. */
  readonly inspect?: boolean | undefined;
  /** How the agent comes to the pods when there is none. */
  readonly agent?: AgentMode | undefined;
}

/** Where callers of a service connect, for one of the intercepted ports. */
export interface ServiceAddress {
  readonly name: string;
  readonly address: string;
  readonly port: number;
  readonly containerPort: number;
}

export interface ResolvedIntercept {
  readonly workload: WorkloadRef;
  readonly containerName: string;
  readonly ports: readonly InterceptPort[];
  /** With a filter: what the workload makes of the wish. */
  readonly tls?: InterceptTls | undefined;
  /** Without those that are headless. */
  readonly services?: readonly ServiceAddress[];
  readonly warnings: readonly string[];
}

/** A container whose environment and files are wanted. */
export interface IngestRequest extends ContainerQuery {
  /** How an agent comes to the pods; `auto` when left out. */
  readonly agent?: AgentMode | undefined;
}

export interface ResolvedIngest {
  readonly workload: WorkloadRef;
  readonly containerName: string;
  readonly warnings: readonly string[];
}

export interface Injected {
  /** What would keep its agents from the manager, as far as the cluster tells: a sentence each, also in the warnings. */
  readonly obstacles?: readonly string[] | undefined;
  /** `ephemeral`: pods that come later want an `attach` each. */
  readonly agent: AgentKind;
  /** Pods that a rollout replaced for it; none when left out. */
  readonly replacedPods?: number | undefined;
  /** Of a replaced container, what it had said of itself, its image's variables too. */
  readonly environment?: Readonly<Record<string, string>> | undefined;
  /** Where agents do not run yet: resolves when they are said to, rejects when one will not. They may serve before. */
  readonly started?: ((signal: AbortSignal) => Promise<void>) | undefined;
  readonly warnings: readonly string[];
}

/** What happened to an intercept of a workload, for people. */
export interface WorkloadNews {
  readonly workload: WorkloadRef;
  readonly reason: string;
  readonly message: string;
  readonly type: "Normal" | "Warning";
  /** When it happened, by the wall clock: it may be told much later. */
  readonly atMs: number;
}

export type Progress = (text: string) => void;

export interface WorkloadAccess {
  resolve(request: InterceptRequest, signal: AbortSignal): Promise<ResolvedIntercept>;
  /** Makes sure that the workload's pods have an agent which takes these ports. */
  inject(resolved: ResolvedIntercept, progress: Progress, signal: AbortSignal): Promise<Injected>;
  resolveContainer(request: IngestRequest, signal: AbortSignal): Promise<ResolvedIngest>;
  /** Makes sure that the workload's pods have an agent to read with, whatever its ports. `auto`: never by a rollout. */
  injectReader(
    workload: WorkloadRef,
    mode: AgentMode,
    progress: Progress,
    signal: AbortSignal,
  ): Promise<Pick<Injected, "agent" | "started" | "warnings">>;
  /** An ephemeral agent for one more pod; none of `needed`: to read with. */
  attach(workload: WorkloadRef, pod: WorkloadPod, needed: readonly AppPort[], signal: AbortSignal): Promise<void>;
  /** Until the signal aborts `attach` knows the namespace's services without asking; rejects when it will have to ask. */
  followServices(namespace: string, signal: AbortSignal): Promise<void>;
  /** Puts a container back that this laptop has replaced, and waits for its pods; false when there is none. */
  restore(workload: WorkloadRef, progress: Progress, signal: AbortSignal): Promise<string | undefined>;
  /** Calls back with all live pods of the workload, at once and after each change, until the signal aborts. */
  watchPods(workload: WorkloadRef, onPods: (pods: readonly WorkloadPod[]) => void, signal: AbortSignal): Promise<void>;
  /** A connection to a port of the pod's own loopback. */
  openPodPort(namespace: string, podName: string, port: number, signal: AbortSignal): Promise<Duplex>;
  openIntroduction(namespace: string, podName: string, signal: AbortSignal): Promise<Duplex>;
  /** Whether there are programs in the container that its files can be read by. */
  hasPrograms(place: EnvironmentPlace, signal: AbortSignal): Promise<boolean>;
  /** `before`: what `inject` found of a container that stands no more. */
  readEnvironment(
    place: EnvironmentPlace,
    signal: AbortSignal,
    before?: Readonly<Record<string, string>>,
  ): Promise<PodEnvironment>;
  /** Undefined when the container has no volume that would be copied. */
  copyVolumes(
    target: VolumeTarget,
    wish: VolumeWish,
    progress: Progress,
    signal: AbortSignal,
  ): Promise<CopiedVolumes | undefined>;
  /** Uids of all pods that a service leads to, or did a moment ago. */
  findServicePods(namespace: string, service: string, signal: AbortSignal): Promise<readonly string[]>;
  /** Who may take a port of the pod before its agent, and what to do about it: half a sentence. */
  explainByPass(namespace: string, podName: string, port: AgentPort, signal: AbortSignal): Promise<string>;
  /** Has the agent in this pod end an intercept of its workload, by a program in the agent's container. */
  revoke(namespace: string, pod: WorkloadPod, revocation: Revocation, signal: AbortSignal): Promise<void>;
  /** An event on the workload, where the user may write one. */
  recordEvent(news: WorkloadNews, signal: AbortSignal): Promise<unknown>;
}
