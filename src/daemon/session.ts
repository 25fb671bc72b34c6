// One connection to one cluster: the manager link, the laptop's network and one's own intercepts, opened in this order
// and undone in reverse. The session ends by itself when the root helper is gone, since then the laptop's network is
// too; a lost manager link does not end it.
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, isAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { Scope } from "#base/scope.ts";
import type { TunnelSession } from "#tunnel/tunnel.ts";
import type { TransportWish } from "#wire/connect-choices.ts";
import type { Connection, controlApi, DaemonStatus, LocalOnlyInfo } from "#wire/control-api.ts";
import { linkSilenceMs } from "#wire/limits.ts";
import type { IngestInfo } from "#wire/ingest.ts";
import { managerAgentPort, workloadKey, type InterceptInfo } from "#wire/manager-api.ts";
import type { ParamsOf, ResultOf } from "#wire/rpc.ts";
import { Inspector } from "#daemon/inspector/inspector.ts";
import type { InspectorAddress } from "#daemon/inspector/inspector.ts";
import { inspectedPlaces } from "#daemon/inspector/places.ts";
import { Ingests, type IngestResult } from "#daemon/ingests/ingests.ts";
import { Intercepts, type CreateResult } from "#daemon/intercepts/intercepts.ts";
import { DirectWay } from "#daemon/link/direct-way.ts";
import { linkStatus } from "#daemon/link/link-status.ts";
import { depart } from "#daemon/link/link-talk.ts";
import { openLink } from "#daemon/link/session-link.ts";
import { LocalOnly, withLocalOnly } from "./local-only.ts";
import type { ManagerLink, ManagerConnection } from "#daemon/link/manager-link.ts";
import { chooseOthers, type Everybody } from "./named-intercepts.ts";
import { revokeIntercept } from "./revocation.ts";
import { askWhy } from "./why.ts";
import { WorkloadEvents } from "#daemon/intercepts/workload-events.ts";
import type { PodWants } from "#daemon/intercepts/pod-belongings.ts";
import type { Progress } from "#daemon/intercepts/workload-access.ts";
import { CloudSide } from "#daemon/previews/cloud-side.ts";
import type { LoginPlaces } from "#login/credentials.ts";
import type { ClusterAccess, RestoredManager } from "./session-access.ts";
import type { Ways } from "#daemon/private-networks/private-network.ts";
import { holdPodPorts, type PodDialer } from "#daemon/pod-ports/pod-ports.ts";

type SessionStatus = Omit<DaemonStatus, "version" | "executable" | "installId" | "pid">;
type LeaveParams = Omit<ParamsOf<typeof controlApi, "leave">, "name">;
type IngestParams = ParamsOf<typeof controlApi, "ingest">;
interface GivenEnvironment {
  readonly environment?: Record<string, string>;
}
type InterceptParams = ParamsOf<typeof controlApi, "intercept">;

/** The laptop's side of it; laptop-network.ts fulfils it. */
export interface SessionNetwork extends AsyncDisposable {
  /** Resolves when the helper or the device is gone. */
  readonly lost: Promise<AppError>;
  readonly warnings: readonly string[];
  /** Of a network without a device. */
  readonly proxy?: Connection["proxy"];
  /** For programs in networks of their own. */
  readonly ways?: Ways | undefined;
  setSession(session: TunnelSession | undefined): void;
  /** Short names are looked up in these as well, after the connection's own. */
  setAlsoNamespaces(namespaces: readonly string[]): void;
  /** A text of the cluster's, with addresses as this laptop sees them. */
  asSeenHere?(text: string): string;
  status(signal: AbortSignal): Promise<Pick<DaemonStatus, "helper" | "dns" | "routing" | "problem">>;
}

export interface SessionOptions {
  readonly access: ClusterAccess;
  readonly managerNamespace: string;
  readonly managerImage: string;
  readonly mappedNamespaces: readonly string[];
  readonly rootless?: Connection["rootless"];
  readonly via?: string | undefined;
  readonly proxyVia?: Connection["proxyVia"];
  /** `user@host`. */
  readonly client: string;
  readonly installId: string;
  /** Where the user's login at a cloud server is, if there is one. */
  readonly login: LoginPlaces;
  readonly warnings: readonly string[];
  /** How the link goes; `auto` when left out. */
  readonly transport?: TransportWish | undefined;
  /** Opens the laptop's side once the link stands; owns nothing of it afterwards. */
  readonly openNetwork: (link: ManagerLink, first: ManagerConnection, scope: Scope) => Promise<SessionNetwork>;
  /** Where the manager's pod listens for agents; `managerAgentPort` but in tests. */
  readonly managerPort?: number;
  /** Where the dashboard's page lies; beside the program but in tests. */
  readonly pageFolder?: string;
  readonly clock: Clock;
  readonly log: Logger;
}

export class Session implements AsyncDisposable {
  readonly connection: Connection;
  readonly warnings: string[];
  /** Resolves when the session cannot go on. */
  readonly ended: Promise<AppError>;
  readonly #options: SessionOptions;
  readonly #scope: Scope;
  readonly #link: ManagerLink;
  readonly #network: SessionNetwork;
  readonly #intercepts: Intercepts;
  readonly #ingests: Ingests;
  readonly #localOnly: LocalOnly;
  readonly #events: WorkloadEvents;
  readonly #direct: DirectWay | undefined;
  readonly #inspector: Inspector;
  readonly cloud: CloudSide;

  private constructor(
    options: SessionOptions,
    parts: {
      scope: Scope;
      link: ManagerLink;
      network: SessionNetwork;
      intercepts: Intercepts;
      events: WorkloadEvents;
      direct: DirectWay | undefined;
      first: ManagerConnection;
      inspector: Inspector;
      cloud: CloudSide;
    },
  ) {
    this.#options = options;
    this.#scope = parts.scope;
    this.#link = parts.link;
    this.#network = parts.network;
    this.#intercepts = parts.intercepts;
    this.#events = parts.events;
    this.#direct = parts.direct;
    this.#inspector = parts.inspector;
    this.cloud = parts.cloud;
    const { access, clock, log } = options;
    this.#ingests = parts.scope.use(new Ingests({ access, clock, log }));
    this.#localOnly = parts.scope.use(new LocalOnly((namespaces) => parts.network.setAlsoNamespaces(namespaces)));
    this.ended = parts.network.lost;
    this.warnings = [...options.warnings, ...parts.network.warnings];
    this.connection = {
      context: options.access.context,
      server: options.access.server,
      namespace: options.access.namespace,
      managerNamespace: options.managerNamespace,
      managerVersion: parts.first.arrival.manager.version,
      mappedNamespaces: [...options.mappedNamespaces],
      ...(options.via === undefined ? {} : { via: options.via }),
      ...(options.proxyVia === undefined ? {} : { proxyVia: options.proxyVia }),
      ...(options.rootless === undefined ? {} : { rootless: options.rootless, proxy: parts.network.proxy }),
    };
  }

  /** A whole session, or every step undone. */
  static async open(options: SessionOptions, signal: AbortSignal): Promise<Session> {
    const { access, clock, log } = options;
    const scope = new Scope(log);
    let network: SessionNetwork | undefined;
    const events = new WorkloadEvents({ record: (news, recording) => access.recordEvent(news, recording), clock, log });
    const intercepts: Intercepts = new Intercepts({
      access,
      onChange: (infos) => {
        events.update(infos);
        cloud.previews.onChange(infos);
        inspector.shareOnly(intercepts.shared);
      },
      link: () => link,
      managerPort: options.managerPort ?? managerAgentPort,
      clock,
      log,
    });
    const places = inspectedPlaces(access, () => ({ infos: intercepts.infos, connected: link.current !== undefined }));
    const inspector = scope.use(new Inspector({ ...places, pageFolder: options.pageFolder, clock, log }));
    const manager = (): ManagerConnection | undefined => link.current;
    const find = (name: string): ReturnType<Intercepts["find"]> => intercepts.find(name);
    const cloud = new CloudSide({ access, login: options.login, find, manager, clock, log });
    const link: ManagerLink = openLink(options, { intercepts, inspector, cloud, scope, network: () => network });
    try {
      scope.use(intercepts);
      const first = await link.start(signal);
      network = scope.use(await options.openNetwork(link, first, scope));
      // Whoever lost or renewed the link meanwhile had no network to tell it to.
      if (link.current !== first) network.setSession(link.current?.session);
      const direct = DirectWay.begin(options, { link, network, scope });
      const parts = { scope, link, network, intercepts, events, inspector, cloud, direct, first };
      const session = new Session(options, parts);
      cloud.begin(scope);
      if (options.transport === "direct") session.warnings.push(...((await direct?.firstWarnings(signal)) ?? []));
      return session;
    } catch (error) {
      await depart(link, clock, log);
      await scope[Symbol.asyncDispose]();
      throw error;
    }
  }

  get intercepts(): readonly InterceptInfo[] {
    return this.cloud.previews.decorate(this.#intercepts.infos);
  }

  /**
   * On a user's command only: a link that is down is tried at once, and a manager that is gone installed again. A link
   * that looks up is asked, since that of a manager that was just deleted looks so for a few seconds.
   */
  async restore(progress: Progress, signal: AbortSignal): Promise<RestoredManager> {
    const { current: standing, ups } = this.#link;
    if (standing !== undefined && (await this.#answers(standing, signal))) return { installed: false, warnings: [] };
    progress("The link to the traffic-manager is down, trying it again");
    const restored = await this.#options.access.restoreManager(progress, signal);
    using limit = deadline(this.#options.clock, restoreMs, "the link to the traffic-manager", signal);
    try {
      await this.#link.restored(limit.signal, ups);
    } catch (error) {
      if (signal.aborted || !isAppError(error, "timeout")) throw error;
      this.#link.require(); // throws why there is none
    }
    return restored;
  }

  async intercept(params: InterceptParams, progress: Progress, signal: AbortSignal): Promise<CreateResult> {
    const namespace = params.namespace ?? this.connection.namespace;
    return await this.#holding(params, async (wants) => {
      const restored = await this.restore(progress, signal);
      const result = await this.#intercepts.create({ ...params, namespace }, wants, progress, signal);
      return { ...result, warnings: [...restored.warnings, ...result.warnings] };
    });
  }

  /** Without the traffic-manager: it has no part in it. */
  async ingest(params: IngestParams, progress: Progress, signal: AbortSignal): Promise<IngestResult> {
    const namespace = params.namespace ?? this.connection.namespace;
    const create = (wants: PodWants): Promise<IngestResult> =>
      this.#ingests.create({ ...params, namespace }, wants, progress, signal);
    return await this.#holding(params, create);
  }

  /** The laptop's ports are taken before anything is touched. */
  async #holding<T extends GivenEnvironment>(
    params: InterceptParams | IngestParams,
    create: (wants: PodWants) => Promise<T>,
  ): Promise<T> {
    const { wantEnvironment: environment, volumes, toPod = [] } = params;
    const { access, clock, log } = this.#options;
    const dialer: PodDialer = {
      openPodPort: (...where) => access.openPodPort(...where),
      openUdp: (target, signal) => this.#link.require().session.open({ kind: "udp", target }, signal),
    };
    const result = await holdPodPorts(toPod, { dialer, clock, log }, (ports) =>
      create({ environment, volumes, ports }),
    );
    return { ...result, ...this.#asSeenHere(result) };
  }

  #asSeenHere({ environment }: GivenEnvironment): GivenEnvironment {
    if (environment === undefined) return {};
    const seen = Object.entries(environment).map(([key, value]) => [key, this.#network.asSeenHere?.(value) ?? value]);
    return { environment: Object.fromEntries(seen) as Record<string, string> };
  }

  get ways(): Ways {
    const { ways } = this.#network;
    if (ways !== undefined) return ways;
    throw new AppError("unsupported", "this connection leads no programs of its own into the cluster");
  }

  /** Nothing was begun on it that has not ended. */
  get isIdle(): boolean {
    return this.intercepts.length + this.#ingests.infos.length + this.#localOnly.infos.length === 0;
  }

  /** Resolves when there is no such intercept of ours any more, with why when somebody else ended it; never rejects. */
  interceptEnded(name: string): Promise<string | undefined> {
    return this.#intercepts.ended(name);
  }

  /** Resolves when it is over; never rejects. */
  ingestEnded(info: IngestInfo): Promise<undefined> {
    return this.#ingests.ended(info);
  }

  beginLocalOnly(name: string, namespace = this.connection.namespace): LocalOnlyInfo {
    const info = { name, namespace };
    this.#localOnly.begin(info);
    return info;
  }
  /** Resolves when it is over; never rejects. */
  localOnlyEnded(name: string): Promise<undefined> {
    return this.#localOnly.ended(name);
  }

  /** Whatever has that name; `namespace`, when given, must be its own. Gives warnings. */
  async leave(name: string, signal: AbortSignal, { namespace, container, only }: LeaveParams = {}): Promise<string[]> {
    const isMeant = (what: typeof only): boolean =>
      (only ?? what) === what && (container === undefined || what === "ingest");
    const ingests = isMeant("ingest") ? await this.#ingests.end({ name, namespace, container }) : 0;
    const ended = ingests + (isMeant("local-only") ? this.#localOnly.end(name, namespace) : 0);
    const isThere = this.intercepts.some(
      ({ spec }) => spec.name === name && (namespace === undefined || spec.workload.namespace === namespace),
    );
    if (isMeant("intercept") && (ended === 0 || isThere)) return await this.#intercepts.remove(name, signal, namespace);
    if (ended === 0) {
      const which = container === undefined ? "" : `, container ${container},`;
      throw new AppError("intercept_not_found", `there is no ingest of ${name}${which} now`, {
        hint: "see `telepresence list --ingests`",
      });
    }
    return [];
  }

  /** Workloads of the namespace with everybody's intercepts; without the manager, with one's own only. */
  async list(namespace: string | undefined, signal: AbortSignal): Promise<ResultOf<typeof controlApi, "list">> {
    const warnings: string[] = [];
    const workloads = await this.#options.access.listWorkloads(namespace ?? this.connection.namespace, signal);
    const everybody = await this.#everybody(warnings, signal);
    const own = new Map(this.intercepts.map((info) => [info.id, info]));
    return {
      warnings,
      ...withLocalOnly(this.#localOnly.infos),
      workloads: workloads.map((workload) => ({
        ...workload,
        ...withIngests(this.#ingests.infos.filter((info) => workloadKey(info.workload) === workloadKey(workload))),
        intercepts: everybody
          .filter(({ spec }) => workloadKey(spec.workload) === workloadKey(workload))
          .map((info) => ({ ...info, ...own.get(info.id), mine: own.has(info.id) })),
      })),
    };
  }

  /** Everybody's intercepts, by the manager. */
  async everybody(signal: AbortSignal): Promise<readonly InterceptInfo[]> {
    return (await this.#link.require().rpc.call("intercept.list", {}, signal)).intercepts;
  }

  /** What became of requests, by the agents of the workload that they came to. */
  async why(
    question: ParamsOf<typeof controlApi, "why">,
    signal: AbortSignal,
  ): Promise<ResultOf<typeof controlApi, "why">> {
    const { access, clock } = this.#options;
    const namespace = question.namespace ?? this.connection.namespace;
    return await askWhy({ access, everybody: await this.#everybodys(signal), namespace, clock }, question, signal);
  }

  /** Ends somebody else's intercept, or only says which it would be. */
  async revoke(
    { name, user, namespace = this.connection.namespace, find }: ParamsOf<typeof controlApi, "revoke">,
    signal: AbortSignal,
  ): Promise<InterceptInfo> {
    const info = chooseOthers(await this.#everybodys(signal), { name, user, namespace });
    const { access, client: by, clock } = this.#options;
    if (!find) await revokeIntercept({ access, by, clock }, info, signal);
    return info;
  }

  /** The address of a page that shows the requests that come here, on this machine alone. */
  openInspector(hide: readonly string[]): Promise<InspectorAddress> {
    return this.#inspector.open(hide);
  }

  async #everybodys(signal: AbortSignal): Promise<Everybody> {
    return { infos: await this.everybody(signal), own: new Set(this.intercepts.map(({ id }) => id)) };
  }

  /** Every line is tried now: the link by a heart-beat out of turn, the device and the resolver by use. */
  async status(signal: AbortSignal): Promise<SessionStatus> {
    const asked = this.#link.current?.session.probe(statusTimeoutMs);
    const [network] = await Promise.all([this.#network.status(signal), asked]);
    const current = this.#link.current;
    const down = this.#link.problem;
    const problem = down === undefined ? network.problem : `${down.message}; ${nextStep}`;
    return {
      state: current === undefined ? "Reconnecting" : "Connected",
      connection: this.connection,
      ...linkStatus(this.#link, this.#direct, this.#options.access),
      intercepts: [...this.intercepts, ...this.#intercepts.endedByOthers],
      ...withIngests(this.#ingests.infos),
      ...withLocalOnly(this.#localOnly.infos),
      ...network,
      ...withCloud(this.cloud.membership.status),
      ...(problem === undefined ? {} : { problem }),
      ...(current === undefined
        ? {}
        : {
            manager: {
              version: current.arrival.manager.version,
              podName: current.arrival.manager.podName,
              image: this.#options.managerImage,
            },
          }),
    };
  }

  /** Agents drain first, while every part still works; then the laptop's side goes. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#intercepts.restoreAll();
    await this.#findLink();
    await depart(this.#link, this.#options.clock, this.#options.log);
    await this.#events[Symbol.asyncDispose](); // as long as the cluster can be reached
    await this.#scope[Symbol.asyncDispose]();
  }

  /** Without a word the cluster would keep this laptop's connections until it arrives again, or for 24 hours. */
  async #findLink(): Promise<void> {
    using limit = deadline(this.#options.clock, findLinkMs, "the link to the traffic-manager");
    await this.#link.restored(limit.signal, 0).catch(() => undefined); // then it hears of it when we connect again
  }

  /** False when the link turns out to be lost. */
  async #answers({ rpc }: ManagerConnection, signal: AbortSignal): Promise<boolean> {
    using limit = deadline(this.#options.clock, answerMs, "the traffic-manager's answer", signal);
    try {
      await rpc.call("intercept.list", {}, limit.signal);
      return true;
    } catch (error) {
      if (isAppError(error, "link_lost")) return false;
      throw error;
    }
  }

  async #everybody(warnings: string[], signal: AbortSignal): Promise<readonly InterceptInfo[]> {
    if (this.#link.current !== undefined) return await this.everybody(signal);
    warnings.push(
      "the traffic-manager cannot be reached now, only your own intercepts are shown (`telepresence connect` tries at once)",
    );
    return this.intercepts;
  }
}

function withIngests(infos: readonly IngestInfo[]): { ingests?: IngestInfo[] } {
  return infos.length === 0 ? {} : { ingests: [...infos] };
}

function withCloud(cloud: DaemonStatus["cloud"]): Pick<DaemonStatus, "cloud"> {
  return cloud === undefined ? {} : { cloud };
}

/** chosen: `status` must not make anybody wait. */
const statusTimeoutMs = 1000;
/** chosen: longer than a link may be silent before it is lost (PROTOCOL §6.3), so that a lost one is seen as such. */
const answerMs = linkSilenceMs + 1000;
/** The loop goes on by itself, but it installs nothing. */
const nextStep = "run `telepresence connect` to try at once, and to install the traffic-manager again if it is gone";
/** chosen: a person waits. */
const restoreMs = 10_000;
/** chosen: a link that was lost a moment ago is back by then; whoever ends a connection without a network waits so long. */
const findLinkMs = 500;
