// One's own intercepts: created at the manager first (a conflict is found before anything is touched), then the agent
// is injected, the pods are introduced, and only then is the intercept reported. Each failed step undoes those before
// it. On a new link all are announced again without a command.
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, isAppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import {
  workloadKey,
  type AgentKind,
  type EndedIntercept,
  type InterceptInfo,
  type InterceptPort,
  type InterceptSpec,
  type WorkloadRef,
} from "#wire/manager-api.ts";
import { activeTimeoutMs, Changes, waitActive } from "./active-wait.ts";
import { refuseTakenPorts } from "./taken-ports.ts";
import { requireTargetHost } from "./target-host.ts";
import { CallerPath } from "./caller-path.ts";
import { newCanarySecret } from "./canary.ts";
import { EndedByOthers, takeOverWarnings } from "./ended-by-others.ts";
import { createFiltered, renewed, specOf } from "./intercept-wish.ts";
import type { ManagerConnection, ManagerLink } from "#daemon/link/manager-link.ts";
import type { PodPorts } from "#daemon/pod-ports/pod-ports.ts";
import { readBelongings, toGiven, together, type GivenBelongings, type PodWants } from "./pod-belongings.ts";
import type { InterceptRequest, Progress, ResolvedIntercept, WorkloadAccess } from "./workload-access.ts";
import type { CopiedVolumes } from "#daemon/volumes/volume-copies.ts";
import { putBack } from "#daemon/replaced-containers.ts";
import { WorkloadFollower } from "./workload-follower.ts";

export interface InterceptsOptions {
  readonly access: WorkloadAccess;
  readonly link: () => ManagerLink;
  /** Where the manager's pod listens for agents. */
  readonly managerPort: number;
  /** Told after each change of one's own intercepts. */
  readonly onChange?: ((infos: readonly InterceptInfo[]) => void) | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface CreateResult extends GivenBelongings {
  readonly info: InterceptInfo;
  readonly warnings: string[];
}

interface Personal {
  /** What `--http-header auto` stands for: the id of the first session, whatever became of that. */
  readonly id: string;
  /** Team mates may see its requests. */
  readonly isShared: boolean;
}

interface Own {
  readonly spec: InterceptSpec;
  readonly personal: Personal;
  info: InterceptInfo;
  readonly follower: WorkloadFollower;
  readonly agent: AgentKind;
  readonly path: CallerPath;
  readonly volumes: CopiedVolumes | undefined;
  readonly ports: PodPorts;
  /** With why, when somebody else ended it. */
  readonly ended: PromiseWithResolvers<string | undefined>;
}

interface Creating {
  readonly spec: InterceptSpec;
  readonly personal: Personal;
  info: InterceptInfo | undefined;
}

/** chosen: agents confirm within 2 s. */
const answerTimeoutMs = 10_000;

export class Intercepts implements AsyncDisposable {
  readonly #options: InterceptsOptions;
  readonly #own = new Map<string, Own>();
  /** Names that a running create holds, with the manager's latest word on each. */
  readonly #creating = new Map<string, Creating>();
  readonly #followers = new Map<string, { follower: WorkloadFollower; users: number }>();
  readonly #changes = new Changes();
  readonly #endedByOthers: EndedByOthers;
  readonly #canarySecret = newCanarySecret();

  constructor(options: InterceptsOptions) {
    this.#options = options;
    this.#endedByOthers = new EndedByOthers(options.clock);
  }

  get infos(): readonly InterceptInfo[] {
    return [...this.#own.values()].map(shown);
  }
  /** Those that are over by somebody else's hand. */
  get endedByOthers(): readonly InterceptInfo[] {
    return this.#endedByOthers.infos;
  }

  find(name: string): { readonly info: InterceptInfo; readonly personalId: string } | undefined {
    const own = this.#own.get(name);
    return own && { info: shown(own), personalId: own.personal.id };
  }
  /** Names of those whose requests team mates may see. */
  get shared(): ReadonlySet<string> {
    return new Set([...this.#own].flatMap(([name, { personal }]) => (personal.isShared ? [name] : [])));
  }

  async create(
    request: InterceptRequest,
    wants: PodWants,
    progress: Progress,
    signal: AbortSignal,
  ): Promise<CreateResult> {
    const manager = this.#options.link().require();
    const name = request.name;
    this.#refuseTaken(name);
    await requireTargetHost(request.address, this.#options, signal);
    const resolved = await this.#options.access.resolve(request, signal);
    this.#refuseTaken(name); // another command may have been quicker
    const spec = specOf(request, resolved, manager.arrival.sessionId);
    refuseTakenPorts(
      spec,
      [...this.#own.values(), ...this.#creating.values()].map((entry) => entry.spec),
    );
    const personal = { id: `${manager.arrival.sessionId}:${name}`, isShared: request.inspect !== false };
    const entry: Creating = { spec, personal, info: undefined };
    this.#creating.set(name, entry);
    try {
      const created = await this.#createAtManager(manager, spec, signal);
      entry.info ??= created; // news of it may have been quicker than the answer
      const result = await this.#establish({ entry, resolved, wants, progress, signal });
      return { ...result, warnings: [...takeOverWarnings(created, this.#options.clock.wallMs()), ...result.warnings] };
    } finally {
      this.#creating.delete(name);
    }
  }

  /**
   * Drains: resolves when agents send new connections to the application. What has begun is finished, also when its
   * caller is gone: half left, the intercept would be announced again on the next link. Gives warnings.
   */
  async remove(name: string, signal: AbortSignal, namespace?: string): Promise<string[]> {
    signal.throwIfAborted();
    const own = this.#own.get(name);
    if (own === undefined || (namespace !== undefined && own.spec.workload.namespace !== namespace)) {
      const why = this.#endedByOthers.forget(name);
      const where = namespace === undefined ? "" : ` in namespace ${namespace}`;
      const text = `there is no intercept named ${name}${where}${why === undefined ? "" : ` any more: it ${why}`}`;
      throw new AppError("intercept_not_found", text, { hint: "see `telepresence list --intercepts`" });
    }
    const warning = await this.#restore(own.spec);
    await this.#removeAtManager(own);
    await this.#letGo(own);
    return warning === undefined ? [] : [warning];
  }

  /** Before the session ends: who was replaced takes the traffic back while the laptop still answers. */
  async restoreAll(): Promise<void> {
    await Promise.all([...this.#own.values()].map(({ spec }) => this.#restore(spec)));
  }

  async #restore({ kind, workload }: InterceptSpec): Promise<string | undefined> {
    return kind === "replace" ? await putBack(workload, this.#options) : undefined;
  }

  /** Resolves when there is no such intercept any more, with why when somebody else ended it; never rejects. */
  ended(name: string): Promise<string | undefined> {
    return this.#own.get(name)?.ended.promise ?? Promise.resolve(undefined);
  }

  /** The manager's news of an intercept that somebody else ended: it is not announced again. */
  onEnded(ended: EndedIntercept): void {
    const own = [...this.#own.values()].find(({ info }) => info.id === ended.id);
    if (own === undefined) return;
    const reason = this.#endedByOthers.add(shown(own), ended);
    this.#options.log.warn("intercept ended by somebody else", { name: own.spec.name, reason });
    this.#letGo(own, reason).catch((error: unknown) => {
      this.#options.log.error("an intercept's parts could not be undone", { error: String(error) });
    });
  }

  async #letGo(own: Own, reason?: string): Promise<void> {
    const { name, workload } = own.spec;
    if (this.#own.get(name) !== own) return; // somebody was quicker, and has let go of the follower
    this.#own.delete(name);
    own.ended.resolve(reason);
    this.#told();
    if (reason !== undefined) await this.#restore(own.spec);
    await own.ports[Symbol.asyncDispose]();
    await own.volumes?.[Symbol.asyncDispose]();
    await own.path[Symbol.asyncDispose]();
    await this.#release(workload);
  }

  /** On each new link, before it is used: the manager may have been restarted and know nothing. */
  async announce(manager: ManagerConnection): Promise<void> {
    using limit = deadline(this.#options.clock, activeTimeoutMs, "announcing the intercepts");
    for (const ended of manager.arrival.ended ?? []) this.onEnded(ended);
    for (const { spec, info: known } of [...this.#own.values(), ...this.#creating.values()]) {
      if (known === undefined) continue; // its create is failing on the old link
      // Looked up anew: it may have been completed, or left, since.
      const holder = (): Own | Creating | undefined =>
        [this.#own.get(spec.name), this.#creating.get(spec.name)].find((item) => item?.spec === spec);
      try {
        const info = await createFiltered(manager, renewed(spec), limit.signal, known.createdAtMs);
        const entry = holder();
        if (entry !== undefined) entry.info = info;
        // Left meanwhile, when there was no link to say it through.
        else await manager.rpc.call("intercept.remove", { id: info.id }, limit.signal);
      } catch (error) {
        const { message } = toAppError(error);
        const entry = holder();
        if (entry !== undefined) entry.info = { ...known, state: "error", message };
        this.#options.log.error("intercept could not be announced again", { name: spec.name, error: message });
      }
    }
    this.#told();
  }
  /**
   * There is a link again. Where it goes on, the manager has everything it had, and what was asked for while it was being
   * lost may have been done all the same, and nobody waits for it any more; where it is new, what was left while others
   * were still announced may be there.
   */
  async reconcile(manager: ManagerConnection): Promise<void> {
    const { clock, log } = this.#options;
    using limit = deadline(clock, activeTimeoutMs, "comparing the intercepts with the manager's");
    try {
      const { intercepts } = await manager.rpc.call("intercept.list", {}, limit.signal);
      const ours = intercepts.filter(({ sessionId }) => sessionId === manager.arrival.sessionId);
      this.onChanged(ours);
      for (const { id, spec } of ours) {
        if (this.#own.has(spec.name) || this.#creating.has(spec.name)) continue;
        await manager.rpc.call("intercept.remove", { id }, limit.signal);
      }
    } catch (error) {
      log.warn("intercepts could not be compared with the manager's", { error: toAppError(error).message });
    }
  }
  /** After the new link has become current: agents must meet the new manager. */
  reintroduce(podUid?: string): void {
    for (const { follower } of this.#followers.values()) follower.again(podUid);
  }

  /** After the link's return: the manager says which agents were lost meanwhile. */
  goOn(): void {
    for (const { follower } of this.#followers.values()) follower.goOn();
  }

  /** The manager's news of one's own intercepts. */
  onChanged(infos: readonly InterceptInfo[]): void {
    for (const info of infos) {
      const entry = this.#own.get(info.spec.name) ?? this.#creating.get(info.spec.name);
      if (entry !== undefined && (entry.info === undefined || entry.info.id === info.id)) entry.info = info;
    }
    this.#changes.wake();
    this.#told();
  }
  onLinkDown(): void {
    for (const own of this.#own.values()) {
      if (own.info.state === "active" || own.info.state === "waiting") {
        own.info = { ...own.info, state: "suspended", message: "the link to the traffic-manager is down" };
      }
    }
    this.#told();
  }

  findPort(interceptId: string, containerPort: number, protocol: "tcp" | "udp"): InterceptPort | undefined {
    const name = interceptId.slice(interceptId.indexOf(":") + 1);
    const spec = this.#own.get(name)?.spec ?? this.#creating.get(name)?.spec;
    return spec?.ports.find((port) => port.containerPort === containerPort && port.protocol === protocol);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const paths = [...this.#own.values()].map(({ path }) => path);
    const given = [...this.#own.values()].flatMap((own) => [own.ports, own.volumes]);
    const belongings = given.map((item) => item?.[Symbol.asyncDispose]());
    for (const own of this.#own.values()) own.ended.resolve(undefined);
    this.#own.clear();
    await Promise.all(paths.map((path) => path[Symbol.asyncDispose]()));
    const followers = [...this.#followers.values()];
    this.#followers.clear();
    await Promise.all([...belongings, ...followers.map(({ follower }) => follower[Symbol.asyncDispose]())]);
  }

  #told(): void {
    this.#options.onChange?.(this.infos);
  }

  async #establish(step: {
    entry: Creating;
    resolved: ResolvedIntercept;
    wants: PodWants;
    progress: Progress;
    signal: AbortSignal;
  }): Promise<CreateResult> {
    const { entry, resolved, wants, progress, signal } = step;
    const { spec, personal } = entry;
    try {
      // Before the agents come: each is introduced as soon as it runs.
      const follower = this.#acquire(spec.workload);
      const path = this.#openPath(entry, resolved, follower);
      try {
        const injected = await this.#options.access.inject(resolved, progress, signal);
        if (injected.agent === "ephemeral") follower.attachTo(spec.ports);
        progress(`Waiting for the traffic-agents of ${spec.workload.kind} ${spec.workload.name}`);
        const { started, obstacles } = injected;
        const active = await waitActive(
          { info: () => entry.info, started, obstacles, follower, changes: this.#changes, clock: this.#options.clock },
          signal,
        );
        const { access } = this.#options;
        const [given, astray] = await together(
          readBelongings({ access, spec, follower, wants, before: injected.environment, progress }, signal),
          path.start(signal),
          signal,
        );
        const { volumes } = given;
        const info = entry.info ?? active;
        const parts = { follower, path, volumes, agent: injected.agent, ports: wants.ports };
        const own: Own = { spec, personal, info, ...parts, ended: Promise.withResolvers() };
        this.#own.set(spec.name, own);
        this.#told();
        this.#endedByOthers.forget(spec.name);
        const warnings = [...resolved.warnings, ...injected.warnings, ...given.warnings, ...astray];
        const { replacedPods = 0 } = injected;
        return {
          info: { ...shown(own), ...(replacedPods > 0 ? { replacedPods } : {}) },
          warnings,
          ...toGiven(given),
        };
      } catch (error) {
        await this.#restore(spec);
        await path[Symbol.asyncDispose]();
        await this.#release(spec.workload);
        throw error;
      }
    } catch (error) {
      if (entry.info !== undefined) await this.#undoCreate(entry.info.id);
      throw error;
    }
  }

  #openPath(entry: Creating, { services = [] }: ResolvedIntercept, follower: WorkloadFollower): CallerPath {
    const { access, link, clock, log } = this.#options;
    const { name, workload, ports } = entry.spec;
    return new CallerPath({
      name,
      namespace: workload.namespace,
      ports,
      services,
      agents: () => {
        const info = this.#own.get(name)?.info ?? entry.info;
        if (info?.state !== "active") return undefined;
        return follower.agents.filter(({ podUid }) => info.pods.some(({ uid }) => uid === podUid));
      },
      expect: (podName, signal) => follower.expectCanaries(podName, signal),
      manager: () => link().current,
      changes: this.#changes,
      onVerdict: () => this.#told(),
      access,
      secret: this.#canarySecret,
      clock,
      log,
    });
  }

  async #createAtManager(manager: ManagerConnection, spec: InterceptSpec, signal: AbortSignal): Promise<InterceptInfo> {
    using limit = deadline(this.#options.clock, answerTimeoutMs, "the traffic-manager's answer", signal);
    try {
      return await createFiltered(manager, spec, limit.signal);
    } catch (error) {
      // The manager may have made it all the same: its answer was not waited for, or lost.
      await this.#undoCreate(`${manager.arrival.sessionId}:${spec.name}`);
      throw error;
    }
  }

  async #undoCreate(id: string): Promise<void> {
    const current = this.#options.link().current;
    if (current === undefined) return; // a lost link suspends it, and it is not announced again
    try {
      using limit = deadline(this.#options.clock, 5000, "removing a failed intercept");
      await current.rpc.call("intercept.remove", { id }, limit.signal);
    } catch (error) {
      if (isAppError(error, "intercept_not_found")) return; // there never was one
      this.#options.log.warn("failed intercept could not be removed", { id, error: String(error) });
    }
  }

  async #removeAtManager(own: Own): Promise<void> {
    const manager = this.#options.link().current;
    // Without a link the manager has suspended it, agents pass to the application, and we do not announce it again.
    if (manager === undefined) return;
    using limit = deadline(this.#options.clock, answerTimeoutMs, `ending the intercept ${own.spec.name}`);
    try {
      await manager.rpc.call("intercept.remove", { id: own.info.id }, limit.signal);
    } catch (error) {
      // A link that is lost before the answer: as without one.
      const gone = (["intercept_not_found", "not_found", "link_lost"] as const).some((code) => isAppError(error, code));
      if (!gone) throw error;
    }
  }

  #refuseTaken(name: string): void {
    if (!this.#own.has(name) && !this.#creating.has(name)) return;
    throw new AppError("intercept_exists", `there is already an intercept named ${name}`, {
      hint: `end it with \`telepresence leave ${name}\``,
    });
  }

  #acquire(workload: WorkloadRef): WorkloadFollower {
    const key = workloadKey(workload);
    const existing = this.#followers.get(key);
    if (existing !== undefined) {
      existing.users += 1;
      return existing.follower;
    }
    const follower = new WorkloadFollower({
      workload,
      access: this.#options.access,
      manager: () => this.#options.link().current,
      managerPort: this.#options.managerPort,
      canarySecret: this.#canarySecret,
      clock: this.#options.clock,
      log: this.#options.log,
      onChange: () => this.#changes.wake(),
    });
    this.#followers.set(key, { follower, users: 1 });
    return follower;
  }

  async #release(workload: WorkloadRef): Promise<void> {
    const key = workloadKey(workload);
    const entry = this.#followers.get(key);
    if (entry === undefined) return;
    entry.users -= 1;
    if (entry.users > 0) return;
    this.#followers.delete(key);
    await entry.follower[Symbol.asyncDispose]();
  }
}

function shown({ info, agent, follower, path, volumes, ports }: Own): InterceptInfo {
  const { state: callerPath } = path;
  const known = callerPath === undefined ? {} : { callerPath };
  const { absence } = follower;
  const why = info.state === "waiting" && absence !== undefined ? { message: absence } : {};
  const mount = volumes === undefined ? {} : { mountPoint: volumes.root };
  const toPod = ports.ports.length === 0 ? {} : { toPod: [...ports.ports] };
  return { ...info, agent, pods: follower.liveFirst(info.pods), ...known, ...why, ...mount, ...toPod };
}
