// One's own ingests, from the command that asks for one to its end. Several containers of a workload may be ingested at
// once, each only once.
import { linkSignals } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, formatError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { Scope } from "#base/scope.ts";
import { readBelongings, toGiven } from "#daemon/intercepts/pod-belongings.ts";
import type { Belongings, GivenBelongings, PodWants } from "#daemon/intercepts/pod-belongings.ts";
import type {
  IngestRequest,
  Progress,
  ResolvedIngest,
  WorkloadAccess,
  WorkloadPod,
} from "#daemon/intercepts/workload-access.ts";
import type { PodPorts } from "#daemon/pod-ports/pod-ports.ts";
import type { IngestInfo } from "#wire/ingest.ts";
import { workloadKey } from "#wire/manager-api.ts";
import { IngestedPods } from "./ingested-pods.ts";

export interface IngestsOptions {
  readonly access: WorkloadAccess;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface IngestResult extends GivenBelongings {
  readonly info: IngestInfo;
  readonly warnings: string[];
}

/** Which ingests a command means. */
export interface IngestChoice {
  /** Of the workload, or what it was asked for by. */
  readonly name: string;
  readonly namespace?: string | undefined;
  readonly container?: string | undefined;
}

interface Own extends ResolvedIngest {
  /** What was asked for: a workload, or a service of it. */
  readonly name: string;
  readonly pods: IngestedPods;
  readonly belongings: Belongings;
  readonly ports: PodPorts;
  /** Ends with it. */
  readonly scope: Scope;
  readonly ended: PromiseWithResolvers<undefined>;
}

export class Ingests implements AsyncDisposable {
  readonly #options: IngestsOptions;
  readonly #own = new Map<string, Own>();
  readonly #creating = new Set<string>();
  readonly #ending = new AbortController();

  constructor(options: IngestsOptions) {
    this.#options = options;
  }

  get infos(): readonly IngestInfo[] {
    return [...this.#own.values()].map(shown);
  }

  async create(
    request: IngestRequest,
    wants: PodWants,
    progress: Progress,
    signal: AbortSignal,
  ): Promise<IngestResult> {
    const resolved = await this.#options.access.resolveContainer(request, signal);
    const key = keyOf(resolved);
    this.#refuseTaken(resolved, key);
    this.#creating.add(key);
    const scope = new Scope(this.#options.log);
    using either = linkSignals(signal, this.#ending.signal);
    try {
      const { own, warnings } = await this.#read({ request, resolved, wants, progress, scope }, either.signal);
      either.signal.throwIfAborted(); // nobody would end it
      this.#own.set(key, own);
      return {
        info: shown(own),
        ...toGiven(own.belongings),
        warnings: [...resolved.warnings, ...warnings, ...own.belongings.warnings],
      };
    } catch (error) {
      await scope[Symbol.asyncDispose]();
      throw error;
    } finally {
      this.#creating.delete(key);
    }
  }

  /** Resolves when it is over; never rejects. */
  ended(info: IngestInfo): Promise<undefined> {
    return this.#own.get(keyOf(info))?.ended.promise ?? Promise.resolve(undefined);
  }

  /** How many there were. */
  async end(choice: IngestChoice): Promise<number> {
    const meant = [...this.#own].filter(([, own]) => isMeant(own, choice));
    for (const [key] of meant) this.#own.delete(key);
    await Promise.all(meant.map(([, own]) => letGo(own)));
    return meant.length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort(new AppError("cancelled", "the connection has ended"));
    const all = [...this.#own.values()];
    this.#own.clear();
    await Promise.all(all.map(letGo));
  }

  async #read(
    step: {
      readonly request: IngestRequest;
      readonly resolved: ResolvedIngest;
      readonly wants: PodWants;
      readonly progress: Progress;
      readonly scope: Scope;
    },
    signal: AbortSignal,
  ): Promise<{ readonly own: Own; readonly warnings: readonly string[] }> {
    const { access, clock, log } = this.#options;
    const { request, resolved, wants, progress, scope } = step;
    const { workload, containerName } = resolved;
    const pods = scope.use(new IngestedPods({ access, workload, clock, log }));
    const pod = await pods.first(signal);
    const warnings = await this.#provideReader({ request, resolved, pods, pod, progress }, signal);
    progress(`Reading container ${containerName} of ${workload.kind} ${workload.name}`);
    const spec = { name: `${workload.name}-${containerName}`, workload, containerName };
    const belongings = await readBelongings({ access, spec, follower: pods, wants, insists: true, progress }, signal);
    scope.use(wants.ports);
    const { volumes } = belongings;
    if (volumes !== undefined) scope.use(volumes);
    const own = { ...resolved, name: request.name, pods, belongings, ports: wants.ports, scope };
    return { own: { ...own, ended: Promise.withResolvers<undefined>() }, warnings };
  }

  /** An agent where one was asked for, or where the container has nothing that could be run. Warnings. */
  async #provideReader(
    step: {
      readonly request: IngestRequest;
      readonly resolved: ResolvedIngest;
      readonly pods: IngestedPods;
      readonly pod: WorkloadPod;
      readonly progress: Progress;
    },
    signal: AbortSignal,
  ): Promise<readonly string[]> {
    const { access } = this.#options;
    const { request, resolved, pods, pod, progress } = step;
    const { workload, containerName } = resolved;
    const { agent: mode = "auto" } = request;
    const place = { namespace: workload.namespace, pod, containerName };
    if (mode === "auto" && (pod.agentRunning || (await access.hasPrograms(place, signal)))) return [];
    try {
      const { agent, started, warnings } = await access.injectReader(workload, mode, progress, signal);
      if (agent === "ephemeral") pods.attachAgents();
      await started?.(signal);
      await pods.untilAgent(signal);
      return warnings;
    } catch (error) {
      if (signal.aborted || mode !== "auto") throw error;
      return [`no traffic-agent could be brought to read the container with: ${formatError(toAppError(error))}`];
    }
  }

  #refuseTaken({ workload, containerName }: ResolvedIngest, key: string): void {
    if (!this.#own.has(key) && !this.#creating.has(key)) return;
    const what = `container ${containerName} of ${workload.kind} ${workload.name}`;
    throw new AppError("intercept_exists", `${what} is ingested already`, {
      hint: `end it with \`telepresence leave ${workload.name} --container ${containerName}\``,
    });
  }
}

const keyOf = ({ workload, containerName }: Pick<IngestInfo, "workload" | "containerName">): string =>
  `${workloadKey(workload)}/${containerName}`;

function isMeant(own: Own, { name, namespace, container }: IngestChoice): boolean {
  const { workload, containerName } = own;
  if (workload.name !== name && own.name !== name) return false;
  if (namespace !== undefined && workload.namespace !== namespace) return false;
  return container === undefined || containerName === container;
}

async function letGo({ scope, ended }: Own): Promise<void> {
  ended.resolve(undefined);
  await scope[Symbol.asyncDispose]();
}

function shown({ workload, containerName, pods, ports: { ports }, belongings: { volumes } }: Own): IngestInfo {
  const podName = pods.somePod?.name;
  return {
    workload,
    containerName,
    ...(podName === undefined ? {} : { podName }),
    ...(volumes === undefined ? {} : { mountPoint: volumes.root }),
    ...(ports.length === 0 ? {} : { toPod: [...ports] }),
  };
}
