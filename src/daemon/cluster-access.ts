// Fulfils ClusterAccess over the Kubernetes API with the user's own credentials.
import { isIP } from "node:net";
import type { Duplex } from "node:stream";
import { deadline } from "#base/abort.ts";
import { AppError, invariant, isAppError } from "#base/error.ts";
import { findAgent, planRemoval, readAgentConfig } from "#installer/agent.ts";
import type { ImageChoice } from "#installer/agent-container.ts";
import { findDirectService } from "#installer/direct-service.ts";
import { ensureManager, findManager, managerNamespaces } from "#installer/manager.ts";
import { findManagerPod } from "#installer/manager-wait.ts";
import { attachPod } from "#installer/attach.ts";
import { chooseTls } from "#installer/certificate-choice.ts";
import { currentAgent, lacksMemory } from "#installer/ephemeral.ts";
import { provideAgent } from "#installer/provide-agent.ts";
import { replacementOf } from "#installer/replacement.ts";
import { restoreContainer } from "#installer/rollout.ts";
import type { Kube } from "#kube/client.ts";
import { pods, services, type Pod, type Service } from "#kube/objects.ts";
import { isLive, isReady, isTerminating } from "#kube/workloads/pod-problems.ts";
import { forwardProtocol, openPortForward } from "#kube/streams/port-forward.ts";
import { resolveContainer } from "#kube/workloads/resolve-container.ts";
import {
  resolveWorkload,
  whyPodUnfit,
  type InterceptQuery,
  type ResolvedWorkload,
} from "#kube/workloads/resolve-workload.ts";
import { canBeTaken, routeDeclaredPorts } from "#kube/workloads/service-ports.ts";
import { FollowedServices } from "#kube/workloads/followed-services.ts";
import { recordWorkloadEvent } from "#kube/workloads/workload-event.ts";
import { watchWorkloadPods } from "#kube/workloads/workload-pods.ts";
import {
  allKinds,
  findWorkload,
  listWorkloads,
  selects,
  selectsPod,
  describeWorkload,
  whyEnded,
  type FoundWorkload,
} from "#kube/workloads/workloads.ts";
import { agentIntroductionPort, type AgentPort, type AppPort } from "#wire/agent-api.ts";
import type { Revocation } from "#wire/agent-door.ts";
import type { AgentMode } from "#wire/connect-choices.ts";
import type { ListedWorkload } from "#wire/control-api.ts";
import type { InterceptTls } from "#wire/intercept-tls.ts";
import { managerLaptopPort, type WorkloadRef } from "#wire/manager-api.ts";
import type { FoundIngress } from "#wire/preview.ts";
import { PolicyCheck } from "#daemon/intercepts/network-policies.ts";
import { explainByPass, findServicePods } from "#daemon/intercepts/by-pass.ts";
import type { DirectService } from "#daemon/link/direct-way.ts";
import { findClusterId, findIngress } from "#daemon/previews/find-ingress.ts";
import { requireNamespace } from "./missing-namespaces.ts";
import {
  hasPrograms,
  readPodEnvironment,
  readReplacedEnvironment,
  type EnvironmentPlace,
  type PodEnvironment,
} from "#daemon/intercepts/pod-environment.ts";
import { findEphemeralPods, type EphemeralPod } from "./retire-agents.ts";
import { execRevocation } from "./revocation.ts";
import type { ClusterAccess, RestoredManager } from "./session-access.ts";
import { copyVolumes } from "./volumes/volume-copies.ts";
import type { CopiedVolumes, VolumeOptions, VolumeTarget, VolumeWish } from "./volumes/volume-copies.ts";
import type {
  IngestRequest,
  InterceptRequest,
  Injected,
  Progress,
  ResolvedIngest,
  ResolvedIntercept,
  WorkloadNews,
  WorkloadPod,
} from "#daemon/intercepts/workload-access.ts";

export interface ClusterAccessOptions {
  readonly kube: Kube;
  readonly managerNamespace: string;
  /** Of a pod that is known to be ready before kubelet says so. */
  readonly managerPodUid?: string;
  readonly image: ImageChoice;
  /** Who replaces containers here. */
  readonly owner?: { readonly by: string; readonly installId: string };
  /** Without it no volume is copied. */
  readonly volumes?: Omit<VolumeOptions, "kube">;
}

interface Wish {
  readonly services: readonly Service[];
  readonly agent: AgentMode | undefined;
  readonly replaces: boolean;
  readonly policies: Promise<PolicyCheck>;
}

/** chosen: a person waits, perhaps without a network. */
const seekManagerMs = 10_000;
/** chosen: a large namespace's pods take a while, and are but an addition to `list`. */
const listPodsMs = 5000;

export class KubeAccess implements ClusterAccess {
  readonly context: string;
  readonly server: string;
  readonly namespace: string;
  readonly #kube: Kube;
  readonly #managerNamespace: string;
  readonly #image: ImageChoice;
  readonly #owner: ClusterAccessOptions["owner"];
  readonly #volumes: ClusterAccessOptions["volumes"];
  #managerOpened = false;
  #readyPodUid: string | undefined;
  #managerPod: Pod | undefined;
  /** What each resolved intercept wants, until it is injected. */
  readonly #wishes = new WeakMap<ResolvedIntercept, Wish>();
  /** What the pods were that watches told of. */
  readonly #watched = new WeakMap<WorkloadPod, Pod>();
  readonly #services: FollowedServices;

  constructor(options: ClusterAccessOptions) {
    this.#kube = options.kube;
    this.#services = new FollowedServices(options.kube);
    this.#managerNamespace = options.managerNamespace;
    this.#readyPodUid = options.managerPodUid;
    this.#image = options.image;
    this.#owner = options.owner;
    this.#volumes = options.volumes;
    const { contextName, server, namespace } = options.kube.target;
    this.context = contextName;
    this.server = server;
    this.namespace = namespace;
  }

  async openManager(signal: AbortSignal): Promise<Duplex> {
    const namespace = this.#managerNamespace;
    // Asked again: the link before was lost, perhaps with the whole network.
    if (this.#managerOpened) this.#kube.transport.renew();
    this.#managerOpened = true;
    const pod = await findManagerPod(this.#kube, namespace, this.#readyPodUid, signal);
    this.#managerPod = pod;
    const name = pod.metadata.name ?? "";
    return await openPortForward(this.#kube, { namespace, pod: name, port: managerLaptopPort, signal });
  }

  findDirect(signal: AbortSignal): Promise<DirectService | undefined> {
    return findDirectService(this.#kube, this.#managerNamespace, signal);
  }

  describeTransport(transport: Duplex): { readonly name: string; readonly protocol: string } {
    return { name: "port-forward", protocol: forwardProtocol(transport) };
  }

  findClusterId(signal: AbortSignal): Promise<string> {
    return findClusterId({ kube: this.#kube, managerNamespace: this.#managerNamespace }, signal);
  }
  findIngress(query: InterceptQuery, signal: AbortSignal): Promise<FoundIngress[]> {
    return findIngress({ kube: this.#kube, managerNamespace: this.#managerNamespace }, query, signal);
  }

  async restoreManager(progress: Progress, signal: AbortSignal): Promise<RestoredManager> {
    const namespace = this.#managerNamespace;
    const what = `looking for the traffic-manager in namespace ${namespace}`;
    using limit = deadline(this.#kube.clock, seekManagerMs, what, signal);
    const found = await findManager(this.#kube, managerNamespaces(this.#kube, namespace), limit.signal);
    if (found !== undefined) return { installed: false, warnings: [] };
    const manager = await ensureManager(this.#kube, { namespace, image: this.#image, onProgress: progress, signal });
    this.#readyPodUid = manager.podUid;
    return manager;
  }

  async listWorkloads(namespace: string, signal: AbortSignal): Promise<readonly Omit<ListedWorkload, "intercepts">[]> {
    const [found, attached, known] = await Promise.all([
      listWorkloads(this.#kube, namespace, signal, allKinds),
      this.#listAttached(namespace, signal),
      this.#kube.list(services, { namespace }, signal).catch((error: unknown) => {
        if (isAppError(error, "forbidden")) return undefined;
        throw error;
      }),
    ]);
    if (found.length === 0) await requireNamespace(this.#kube, namespace, signal);
    return found
      .filter((item) => !(item.name === "traffic-manager" && item.namespace === this.#managerNamespace))
      .map((item) => ({
        ...this.#toListed(item, attached, whyNotInterceptable(item, known?.items)),
        ...(known === undefined ? {} : { services: servicesOf(item, known.items) }),
      }));
  }

  /** Pods with an ephemeral agent, where they can be seen. */
  async #listAttached(namespace: string, signal: AbortSignal): Promise<readonly EphemeralPod[]> {
    using limit = deadline(this.#kube.clock, listPodsMs, "listing the pods", signal);
    return await findEphemeralPods(this.#kube, namespace, limit.signal).catch((error: unknown) => {
      if (signal.aborted || !(isAppError(error, "forbidden") || isAppError(error, "timeout"))) throw error;
      return [];
    });
  }

  async resolve(request: InterceptRequest, signal: AbortSignal): Promise<ResolvedIntercept> {
    const found = resolveWorkload(this.#kube, request, { signal, withoutAgent: planRemoval });
    const resolved = await found.catch(async (error: unknown) => {
      if (isAppError(error, "workload_not_found")) await requireNamespace(this.#kube, request.namespace, signal);
      throw error;
    });
    const { kind, name, namespace } = resolved.workload;
    // A wiretap has TLS read where it can be, also without a filter.
    const isRead = request.filter !== undefined || (request.attachment === "wiretap" && request.tls !== undefined);
    const tls = isRead ? this.#chooseTls(resolved, request) : undefined;
    const answer: ResolvedIntercept = {
      workload: { kind, name, namespace },
      containerName: resolved.containerName,
      warnings: resolved.affected,
      ...(tls === undefined ? {} : { tls }),
      ports: resolved.ports.map((port) => ({
        containerPort: port.containerPort,
        protocol: port.protocol,
        serviceName: port.serviceName,
        serviceUid: port.serviceUid,
        servicePort: port.servicePort,
        servicePortName: port.servicePortName,
        targetHost: request.address,
        targetPort: port.localPort,
      })),
      services: resolved.ports.flatMap(({ serviceName: name, servicePort: port, containerPort }) => {
        const address = resolved.services.find(({ metadata }) => metadata.name === name)?.spec.clusterIP ?? "";
        const isThere = isIP(address) !== 0 && name !== undefined && port !== undefined;
        return isThere ? [{ name, address, port, containerPort }] : [];
      }),
    };
    const { metadata, spec: podSpec } = resolved.workload.object.spec.template;
    const { workload } = answer;
    const judged = { workload, labels: metadata?.labels ?? {}, spec: podSpec, services: resolved.services };
    const manager = { namespace: this.#managerNamespace, pod: this.#managerPod };
    // Read while the traffic-manager is asked.
    const policies = PolicyCheck.read(this.#kube, judged, manager, signal);
    policies.catch(() => undefined); // told when it is injected, if it comes to that
    const { agent, attachment } = request;
    this.#wishes.set(answer, { services: resolved.services, agent, replaces: attachment === "replace", policies });
    return answer;
  }

  #chooseTls(
    { workload, services: selecting, ports }: ResolvedWorkload,
    { tls }: InterceptRequest,
  ): InterceptTls | undefined {
    return chooseTls({
      what: describeWorkload(workload),
      template: workload.object.spec.template,
      services: selecting,
      containerPorts: ports.map((port) => port.containerPort),
      wish: tls,
    });
  }

  async inject(resolved: ResolvedIntercept, progress: Progress, signal: AbortSignal): Promise<Injected> {
    const wish = this.#wishes.get(resolved);
    invariant(wish !== undefined, "what is injected was resolved here");
    const policies = await wish.policies;
    const obstacles = policies.cuts;
    for (const text of obstacles) progress(text);
    const environment = wish.replaces ? await readReplacedEnvironment(this.#kube, resolved, signal) : undefined;
    const { kind, started, replaced, warnings } = await provideAgent(this.#kube, {
      workload: resolved.workload,
      services: wish.services,
      needed: resolved.ports,
      image: this.#image,
      mode: wish.agent ?? "auto",
      replace: wish.replaces ? { containerName: resolved.containerName, ...this.#requireOwner() } : undefined,
      beforeRollout: () => policies.lost,
      onProgress: progress,
      signal,
    });
    const told = [...obstacles, ...warnings];
    return { agent: kind, started, replacedPods: replaced, environment, obstacles, warnings: told };
  }

  async restore(workload: WorkloadRef, onProgress: Progress, signal: AbortSignal): Promise<string | undefined> {
    const { installId } = this.#requireOwner();
    return await restoreContainer(this.#kube, { workload, installId, onProgress, signal });
  }

  #requireOwner(): NonNullable<ClusterAccessOptions["owner"]> {
    invariant(this.#owner !== undefined, "who replaces containers is known");
    return this.#owner;
  }

  async resolveContainer(request: IngestRequest, signal: AbortSignal): Promise<ResolvedIngest> {
    const options = { signal, withoutAgent: planRemoval };
    const { workload, containerName, others } = await resolveContainer(this.#kube, request, options);
    const { kind, name, namespace } = workload;
    const which = `container ${containerName} of ${describeWorkload(workload)} is taken, --container chooses another`;
    const warnings = others.length === 0 ? [] : [`${which}: ${others.join(", ")}`];
    return { workload: { kind, name, namespace }, containerName, warnings };
  }

  async injectReader(
    workload: WorkloadRef,
    mode: AgentMode,
    onProgress: Progress,
    signal: AbortSignal,
  ): Promise<Pick<Injected, "agent" | "started" | "warnings">> {
    const found = await findWorkload(this.#kube, workload, signal);
    const known = await this.#kube.list(services, { namespace: workload.namespace }, signal);
    const { kind, started, warnings } = await provideAgent(this.#kube, {
      workload,
      services: known.items.filter((service) => found !== undefined && selects(service, found.object)),
      needed: [],
      image: this.#image,
      mode,
      withoutRollout: mode === "auto",
      onProgress,
      signal,
    });
    return { agent: kind, started, warnings };
  }

  followServices(namespace: string, signal: AbortSignal): Promise<void> {
    return this.#services.follow(namespace, signal);
  }

  async attach(workload: WorkloadRef, of: WorkloadPod, needed: readonly AppPort[], signal: AbortSignal): Promise<void> {
    const { namespace } = workload;
    const known = await this.#services.in(namespace, signal);
    // As the watch showed it: `attachPod` looks again where it has changed since.
    const pod = this.#watched.get(of) ?? (await this.#kube.get(pods, { namespace, name: of.name }, signal));
    const selecting = known.filter((service) => selectsPod(service, pod));
    const options = { workload, services: selecting, image: this.#image, needed };
    await attachPod(this.#kube, pod, options, signal);
  }

  async watchPods(
    workload: WorkloadRef,
    onPods: (items: readonly WorkloadPod[]) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const found = await findWorkload(this.#kube, workload, signal);
    if (found === undefined) {
      onPods([]);
      throw new AppError("workload_not_found", `${workload.kind} ${workload.name} is gone`);
    }
    const toPods = (pod: Pod): WorkloadPod[] => {
      const made = toWorkloadPod(pod);
      for (const item of made) this.#watched.set(item, pod);
      return made;
    };
    await watchWorkloadPods(this.#kube, found, (items) => onPods(items.flatMap(toPods)), signal);
  }

  openIntroduction(namespace: string, podName: string, signal: AbortSignal): Promise<Duplex> {
    return this.openPodPort(namespace, podName, agentIntroductionPort, signal);
  }
  openPodPort(namespace: string, pod: string, port: number, signal: AbortSignal): Promise<Duplex> {
    return openPortForward(this.#kube, { namespace, pod, port, signal });
  }

  findServicePods(namespace: string, service: string, signal: AbortSignal): Promise<readonly string[]> {
    return findServicePods(this.#kube, { namespace, service }, signal);
  }
  explainByPass(namespace: string, podName: string, port: AgentPort, signal: AbortSignal): Promise<string> {
    return explainByPass(this.#kube, { namespace, podName, port }, signal);
  }

  revoke(namespace: string, pod: WorkloadPod, revocation: Revocation, signal: AbortSignal): Promise<void> {
    return execRevocation(this.#kube, { namespace, pod }, revocation, signal);
  }

  recordEvent(news: WorkloadNews, signal: AbortSignal): Promise<boolean> {
    return recordWorkloadEvent(this.#kube, news, signal);
  }

  hasPrograms(place: EnvironmentPlace, signal: AbortSignal): Promise<boolean> {
    return hasPrograms(this.#kube, place, signal);
  }

  readEnvironment(...[place, signal, before]: Parameters<ClusterAccess["readEnvironment"]>): Promise<PodEnvironment> {
    return readPodEnvironment(this.#kube, place, signal, before);
  }

  copyVolumes(
    target: VolumeTarget,
    wish: VolumeWish,
    progress: Progress,
    signal: AbortSignal,
  ): Promise<CopiedVolumes | undefined> {
    if (this.#volumes === undefined) return Promise.resolve(undefined);
    return copyVolumes({ kube: this.#kube, ...this.#volumes }, { target, wish, progress }, signal);
  }

  #toListed(
    item: FoundWorkload,
    attached: readonly EphemeralPod[],
    reason: string | undefined,
  ): Omit<ListedWorkload, "intercepts"> {
    const { kind, name, namespace } = item;
    const agent =
      findAgent(item.object.spec.template.spec) ??
      attached.find(({ workload }) => workload.kind === kind && workload.name === name);
    const config = readAgentConfig(item.object.spec.template.spec);
    const { container, by } = replacementOf(item) ?? {};
    return {
      kind,
      name,
      namespace,
      ...(reason === undefined ? {} : { notInterceptableReason: reason }),
      ...(agent === undefined && config === undefined ? {} : { agentVersion: tagOf(agent?.image ?? "") }),
      ...(container === undefined || by === undefined ? {} : { replaced: { container, by } }),
    };
  }
}

/** In the words of the original's `list`; undefined when nothing is in the way, or when services may not be listed. */
function whyNotInterceptable(item: FoundWorkload, known: readonly Service[] | undefined): string | undefined {
  const object = planRemoval(item.object);
  const pod = object.spec.template.spec;
  const unfit = whyPodUnfit(pod)?.why ?? whyEnded(item);
  if (unfit !== undefined) return `it ${unfit}`;
  if (known === undefined || known.some((service) => selects(service, object))) return undefined;
  return routeDeclaredPorts(pod).some(canBeTaken) ? undefined : "No service with matching selector";
}

function servicesOf({ object }: FoundWorkload, known: readonly Service[]): string[] {
  const workload = planRemoval(object);
  return known.filter((service) => selects(service, workload)).map((service) => service.metadata.name ?? "");
}

/** Live pods only: one that is being deleted takes no new connections that are worth introducing it for. */
function toWorkloadPod(pod: Pod): WorkloadPod[] {
  const { name, uid } = pod.metadata;
  if (name === undefined || uid === undefined || isTerminating(pod)) return [];
  const agent = currentAgent(pod);
  const state =
    agent === undefined
      ? { agentRunning: false, wantsAgent: isLive(pod) && !lacksMemory(pod) }
      : {
          agent: agent.container,
          agentRunning: agent.state === "running",
          agentComing: agent.kind === "ephemeral" && agent.state === "waiting" && pod.status?.phase === "Running",
          environmentOf: agent.config?.containerName,
        };
  return [{ name, uid, ip: pod.status?.podIP, ready: isReady(pod), ended: !isLive(pod), ...state }];
}

function tagOf(image: string): string {
  const tag = /:([^/:@]+)(@.*)?$/.exec(image)?.[1];
  return tag ?? "unknown";
}
