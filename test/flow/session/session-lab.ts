// The daemon's session with a real manager and real agents in one process; the Kubernetes API and the device are stood
// in for. What a test opens through `stack` is gone after it.
import { randomUUID } from "node:crypto";
import { connect } from "node:net";
import { onTestFinished } from "vitest";
import type { Agent } from "#agent/agent.ts";
import { askToRevoke } from "#agent/container-door.ts";
import { systemClock, type Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import type {
  IngestRequest,
  InterceptRequest,
  ResolvedIngest,
  ResolvedIntercept,
  WorkloadNews,
  WorkloadPod,
} from "#daemon/intercepts/workload-access.ts";
import type { DirectService } from "#daemon/link/direct-way.ts";
import { Session, type SessionOptions } from "#daemon/session.ts";
import type { ClusterAccess } from "#daemon/session-access.ts";
import type { LoginPlaces } from "#login/credentials.ts";
import type { Manager } from "#manager/manager.ts";
import { anything, namedServer, never, testAgent, testManager, workload } from "#test/flow/manager/harness.ts";

/** Pods and their agents; `manager` may be replaced. */
export class Cluster implements ClusterAccess {
  readonly context = "test";
  readonly server = "https://cluster.test";
  readonly namespace = workload.namespace;
  manager: Manager;
  readonly agents = new Map<string, Agent>();
  injectError: AppError | undefined;
  agentKind: "sidecar" | "ephemeral" = "sidecar";
  onAttach: (podName: string) => Promise<void> = () => Promise.resolve();
  environmentError: AppError | undefined;
  execError: AppError | undefined;
  readonly #id = randomUUID();
  volumesError: AppError | undefined;
  volumesCopied = 0;
  volumesRemoved = 0;
  introductionError: AppError | undefined;
  /** Events on the workload. */
  readonly news: string[] = [];
  /** Pods that have no agent yet. */
  readonly bare = new Set<string>();
  /** Pods whose agent only reads. */
  readonly readers = new Set<string>();
  /** Pods whose agent is not said to run. */
  readonly coming = new Set<string>();
  started: ((signal: AbortSignal) => Promise<void>) | undefined;
  /** Containers that came back. */
  restored = 0;
  onRestore: () => Promise<void> = () => Promise.resolve();
  readonly #watchers = new Set<() => void>();
  #toManager: ReturnType<typeof connect> | undefined;

  constructor(manager: Manager) {
    this.manager = manager;
  }
  async restore(): Promise<undefined> {
    await this.onRestore();
    this.restored += 1;
  }
  async openManager(_signal?: AbortSignal): ReturnType<ClusterAccess["openManager"]> {
    this.#toManager = await dial(this.manager.laptopPort);
    return this.#toManager;
  }
  /** Whether the direct port has been made reachable. */
  direct: DirectService | undefined;
  findDirect(): Promise<DirectService | undefined> {
    return Promise.resolve(this.direct);
  }
  describeTransport(): ReturnType<ClusterAccess["describeTransport"]> {
    return { name: "port-forward", protocol: "WebSocket" };
  }
  /** Nobody has noticed when it returns. */
  cutManager(): void {
    this.#toManager?.destroy();
  }
  /** Its end does not notice: nothing comes any more, and nothing arrives. */
  muteManager(): void {
    this.#toManager?.pause();
    if (this.#toManager !== undefined) this.#toManager._write = () => undefined;
    if (this.#toManager !== undefined) this.#toManager._writev = () => undefined;
  }
  findClusterId(): Promise<string> {
    return Promise.resolve(this.#id);
  }
  findIngress(): ReturnType<ClusterAccess["findIngress"]> {
    return Promise.resolve([]);
  }
  restoreManager(): ReturnType<ClusterAccess["restoreManager"]> {
    return Promise.reject(new AppError("manager_unavailable", "no pod of it is ready"));
  }
  listWorkloads(): ReturnType<ClusterAccess["listWorkloads"]> {
    return Promise.resolve([{ ...workload, agentVersion: "0.1.0" }]);
  }
  resolve(request: InterceptRequest): Promise<ResolvedIntercept> {
    const [targetPort = 0] = request.ports.map(Number);
    const containerPort = 8000;
    const port = { containerPort, protocol: "tcp" as const, targetHost: request.address, targetPort };
    return Promise.resolve({ workload, containerName: "app", ports: [port], warnings: [] });
  }
  /** Containers that have no programs. */
  readonly withoutPrograms = new Set<string>();
  readersInjected: string[] = [];
  resolveContainer(request: IngestRequest): Promise<ResolvedIngest> {
    return Promise.resolve({ workload, containerName: request.container ?? "app", warnings: [] });
  }
  injectReader(...[, mode]: Parameters<ClusterAccess["injectReader"]>): ReturnType<ClusterAccess["injectReader"]> {
    this.readersInjected.push(mode);
    const injected = { agent: this.agentKind, started: this.started, warnings: [] };
    return this.injectError === undefined ? Promise.resolve(injected) : Promise.reject(this.injectError);
  }
  hasPrograms(place: Parameters<ClusterAccess["hasPrograms"]>[0]): Promise<boolean> {
    return Promise.resolve(!this.withoutPrograms.has(place.containerName));
  }
  inject(): ReturnType<ClusterAccess["inject"]> {
    const injected = { agent: this.agentKind, started: this.started, warnings: [] };
    return this.injectError === undefined ? Promise.resolve(injected) : Promise.reject(this.injectError);
  }
  async attach(...[, { name }]: Parameters<ClusterAccess["attach"]>): Promise<void> {
    await this.onAttach(name);
  }
  followServices(_: string, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
  }
  async watchPods(_: unknown, onPods: (pods: readonly WorkloadPod[]) => void, signal: AbortSignal): Promise<void> {
    const tell = (): void =>
      onPods(
        [...this.agents.keys(), ...this.bare, ...this.readers].map((name) => {
          const wantsAgent = this.bare.has(name);
          const agentComing = this.coming.has(name);
          const agentRunning = !wantsAgent && !agentComing;
          return { name, uid: `uid-${name}`, ready: true, agentRunning, agentComing, wantsAgent };
        }),
      );
    this.#watchers.add(tell);
    tell();
    await ended(signal);
    this.#watchers.delete(tell);
  }
  /** What listens on the loopback of these pods, by port: where it is in this test. */
  readonly podPorts = new Map<string, number>();
  async openPodPort(_: string, podName: string, port: number): ReturnType<ClusterAccess["openPodPort"]> {
    return await dial(this.podPorts.get(`${podName}:${port}`) ?? 1);
  }
  async openIntroduction(_: string, podName: string): ReturnType<ClusterAccess["openIntroduction"]> {
    if (this.introductionError !== undefined) throw this.introductionError;
    return await dial(this.agents.get(podName)?.introductionPort ?? 1);
  }
  async recordEvent(news: WorkloadNews): Promise<void> {
    this.news.push(`${news.reason} on ${news.workload.name}`);
  }
  /** As a program in the pod's agent container does it, where the user may run one. */
  async revoke(...[, pod, revocation]: Parameters<ClusterAccess["revoke"]>): Promise<void> {
    if (this.execError !== undefined) throw this.execError;
    const { error } = await askToRevoke(this.doorOf(pod.name), revocation, systemClock);
    if (error !== undefined) throw new AppError(error.code, error.message);
  }
  doorOf(podName: string): string {
    return `telepresence-test-${this.#id}-${podName}`;
  }
  readEnvironment(): ReturnType<ClusterAccess["readEnvironment"]> {
    return this.environmentError === undefined
      ? Promise.resolve({ values: { GREETING: "hello" }, warnings: [] })
      : Promise.reject(this.environmentError);
  }
  copyVolumes(): ReturnType<ClusterAccess["copyVolumes"]> {
    if (this.volumesError !== undefined) return Promise.reject(this.volumesError);
    this.volumesCopied += 1;
    return Promise.resolve({
      root: "/run/copies",
      mounts: ["/etc/app"],
      warnings: [],
      [Symbol.asyncDispose]: async () => void (this.volumesRemoved += 1),
    });
  }
  findServicePods(): Promise<readonly string[]> {
    return Promise.resolve([...this.agents.keys(), ...this.bare].map((name) => `uid-${name}`));
  }
  explainByPass(): Promise<string> {
    return Promise.resolve("a mesh takes the port before the agent");
  }
  /** Pods are followed so many times. */
  get watchers(): number {
    return this.#watchers.size;
  }
  podsChanged(): void {
    for (const tell of this.#watchers) tell();
  }
}

export async function ended(signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

async function dial(port: number): Promise<ReturnType<typeof connect>> {
  const socket = connect({ port, host: "127.0.0.1", noDelay: true, allowHalfOpen: true });
  await new Promise((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", reject);
  });
  socket.on("error", () => undefined);
  return socket;
}

let opened: AsyncDisposableStack | undefined;
/** Closes what a test opened when it has finished. Files share this module, so a hook of its own would be one file's. */
export const stack = {
  use<T extends AsyncDisposable | Disposable>(value: T): T {
    if (opened === undefined) {
      opened = new AsyncDisposableStack();
      onTestFinished(async () => {
        const ending = opened;
        opened = undefined;
        await ending?.disposeAsync();
      });
    }
    return opened.use(value);
  },
};

export interface Lab {
  readonly cluster: Cluster;
  readonly session: Session;
  readonly processPort: number;
  addPod(name: string): Promise<Agent>;
}

export async function lab(
  pods: readonly string[] = ["hello-1"],
  idleOwnerMs?: number,
  clock: Clock = systemClock,
): Promise<Lab> {
  const application = stack.use(await namedServer("application"));
  const laptopProcess = stack.use(await namedServer("laptop"));
  const manager = stack.use(
    await testManager({ guard: anything, clock, ...(idleOwnerMs === undefined ? {} : { idleOwnerMs }) }),
  );
  const cluster = new Cluster(manager);
  const addPod = async (name: string): Promise<Agent> => {
    const number = Number(name.split("-")[1]);
    const doorName = cluster.doorOf(name);
    const agent = stack.use(await testAgent({ number, containerPort: application.port, doorName }));
    cluster.agents.set(name, agent);
    return agent;
  };
  for (const name of pods) await addPod(name);
  cluster.resolve = (request) => {
    const port = {
      containerPort: application.port,
      protocol: "tcp" as const,
      targetHost: request.address,
      targetPort: Number(request.ports[0]),
    };
    return Promise.resolve({ workload, containerName: "app", ports: [port], warnings: [] });
  };
  const session = stack.use(await openSession(cluster));
  return { cluster, session, processPort: laptopProcess.port, addPod };
}

export type OpenNetwork = SessionOptions["openNetwork"];
export const noNetwork: OpenNetwork = () =>
  Promise.resolve({
    lost: new Promise<AppError>(() => undefined),
    warnings: [],
    setSession: () => undefined,
    setAlsoNamespaces: () => undefined,
    status: () => Promise.resolve({}),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  });

const loggedOut: LoginPlaces = {
  file: "/nowhere/cloud.json",
  keyring: undefined,
  replaceFile: () => Promise.reject(new Error("nobody logs in here")),
  tryLock: () => Promise.resolve(undefined),
};

export async function openSession(
  cluster: Cluster,
  client = "ada@laptop",
  openNetwork = noNetwork,
  more: Partial<Pick<SessionOptions, "clock" | "login" | "pageFolder" | "transport">> = {},
): Promise<Session> {
  return await Session.open(
    {
      access: cluster,
      managerNamespace: "telepresence",
      managerImage: "image",
      mappedNamespaces: [],
      client,
      installId: `id-${client}`,
      login: loggedOut,
      warnings: [],
      managerPort: cluster.manager.agentPort,
      clock: systemClock,
      log: silentLogger,
      openNetwork,
      ...more,
    },
    never,
  );
}

export function params(port: number, name = "hello"): Parameters<Session["intercept"]>[0] {
  return { name, ports: [String(port)], address: "127.0.0.1", ownedByConnection: false, wantEnvironment: true };
}
export const quiet = (): void => undefined;
export const portOf = (agent: Agent | undefined): number => [...(agent?.agentPorts ?? [])][0] ?? 0;
