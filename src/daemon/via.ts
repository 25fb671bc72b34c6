// `connect --via WORKLOAD`: the laptop's connections and look-ups leave the cluster's end from a pod of that workload,
// through its agent, by a session of their own over a port-forward to it. When the pod goes, another one is taken; what
// was open through it is lost, as it would be to a program in that pod.
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, isAppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { Scope } from "#base/scope.ts";
import { IngestedPods } from "#daemon/ingests/ingested-pods.ts";
import type { Progress, WorkloadAccess } from "#daemon/intercepts/workload-access.ts";
import { openRpc } from "#tunnel/rpc.ts";
import type { TunnelSession } from "#tunnel/tunnel.ts";
import type { ConnectOptions } from "#wire/control-api.ts";
import { introductionApi } from "#wire/introduction-api.ts";
import type { WorkloadRef } from "#wire/manager-api.ts";
import type { SessionNetwork } from "./session.ts";
import { openLaptopSession, type IntroductionRpc } from "#daemon/link/laptop-session.ts";

export interface ViaOptions {
  readonly access: WorkloadAccess;
  /** A workload, or a service of it. */
  readonly workload: NonNullable<ConnectOptions["via"]>;
  readonly namespace: string;
  readonly clock: Clock;
  readonly log: Logger;
}

/** chosen: to reach one agent. */
const reachMs = 10_000;
/** chosen: between two tries. */
const firstRetryMs = 100;
const maxRetryMs = 2000;

interface Way {
  readonly session: TunnelSession;
  readonly rpc: IntroductionRpc;
}

/** Its sessions come from the way through `via`, not from the link; what is wrong with that or with a detour is told. */
export function networkVia(
  network: SessionNetwork,
  via: Via | undefined,
  detours: readonly Via[] = [],
): SessionNetwork {
  const { proxy, asSeenHere } = network;
  const ways = via === undefined ? detours : [via, ...detours];
  via?.follow((session) => network.setSession(session));
  return {
    lost: network.lost,
    warnings: [...ways.flatMap(({ warnings }) => warnings), ...network.warnings],
    ...(proxy === undefined ? {} : { proxy }),
    ...(asSeenHere === undefined ? {} : { asSeenHere: asSeenHere.bind(network) }),
    get ways() {
      return network.ways;
    },
    setSession: (session) => {
      if (via === undefined) network.setSession(session);
    },
    setAlsoNamespaces: (namespaces) => network.setAlsoNamespaces(namespaces),
    status: async (signal) => {
      const status = await network.status(signal);
      const problem = ways.map((way) => way.problem).find((text) => text !== undefined);
      return problem === undefined ? status : { ...status, problem };
    },
    [Symbol.asyncDispose]: () => network[Symbol.asyncDispose](),
  };
}

export class Via implements AsyncDisposable {
  readonly workload: WorkloadRef;
  readonly warnings: readonly string[];
  readonly #options: ViaOptions;
  readonly #pods: IngestedPods;
  readonly #scope: Scope;
  #way: Way;
  #isUp = true;
  #problem: string | undefined;
  #onSession: (session: TunnelSession | undefined) => void = () => undefined;

  private constructor(
    options: ViaOptions,
    parts: { workload: WorkloadRef; pods: IngestedPods; scope: Scope; way: Way; warnings: readonly string[] },
  ) {
    this.#options = options;
    this.workload = parts.workload;
    this.warnings = parts.warnings;
    this.#pods = parts.pods;
    this.#scope = parts.scope;
    this.#way = parts.way;
    parts.scope.background("the way through the workload", this.#keep());
  }

  /** A way that stands; the agent comes without a restart where there is none. */
  static async open(options: ViaOptions, progress: Progress, signal: AbortSignal): Promise<Via> {
    const { access, namespace, clock, log } = options;
    const scope = new Scope(log);
    try {
      const { workload } = await access.resolveContainer({ ...options.workload, namespace }, signal);
      const pods = scope.use(new IngestedPods({ access, workload, clock, log }));
      await pods.first(signal);
      const { agent, started, warnings } = await access.injectReader(workload, "auto", progress, signal);
      if (agent === "ephemeral") pods.attachAgents();
      await started?.(signal);
      await pods.untilAgent(signal);
      const way = await knock(options, { workload, pods }, signal);
      return new Via(options, { workload, pods, scope, way, warnings });
    } catch (error) {
      await scope[Symbol.asyncDispose]();
      throw error;
    }
  }

  get session(): TunnelSession {
    return this.#way.session;
  }
  /** Why nothing gets anywhere now. */
  get problem(): string | undefined {
    return this.#problem;
  }
  /** Each session that comes, and undefined while there is none. */
  follow(onSession: (session: TunnelSession | undefined) => void): void {
    this.#onSession = onSession;
    onSession(this.#isUp ? this.#way.session : undefined);
  }

  /** One DNS message to the pod's own resolver and back. */
  async exchange(message: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    const query = Buffer.from(message.buffer, message.byteOffset, message.byteLength).toString("base64");
    const answer = await this.#way.rpc.call("dns.exchange", { message: query }, signal);
    return Buffer.from(answer.message, "base64");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#onSession = () => undefined;
    this.#way.session.destroy();
    await this.#scope[Symbol.asyncDispose]();
  }

  async #keep(): Promise<void> {
    const { clock } = this.#options;
    const { signal } = this.#scope;
    let retryMs = firstRetryMs;
    while (!signal.aborted) {
      if (this.#isUp) {
        await this.#way.session.closed;
        this.#isUp = false;
        this.#complain("the way to its pod was lost a moment ago");
        this.#onSession(undefined);
        continue;
      }
      try {
        this.#way = await reach(this.#options, { workload: this.workload, pods: this.#pods }, signal);
        this.#isUp = true;
        this.#problem = undefined;
        retryMs = firstRetryMs;
        if (signal.aborted) this.#way.session.destroy();
        else this.#onSession(this.#way.session);
      } catch (error) {
        if (signal.aborted) return;
        this.#complain(toAppError(error).message);
        await clock.sleep(retryMs, signal).catch(() => undefined); // ended: the loop's condition ends it
        retryMs = Math.min(retryMs * 2, maxRetryMs);
      }
    }
  }

  /** It may be tried for hours: what is the same is logged once. */
  #complain(reason: string): void {
    const problem = `connections leave through ${this.workload.kind} ${this.workload.name}, and cannot now: ${reason}`;
    if (problem === this.#problem) return;
    this.#problem = problem;
    this.#options.log.info("no way through the workload", { reason });
  }
}

/** A container is said to run a moment before its agent listens. */
async function knock(options: ViaOptions, where: Where, signal: AbortSignal): Promise<Way> {
  const { clock } = options;
  const untilMs = clock.now() + reachMs;
  for (;;) {
    try {
      return await reach(options, where, signal);
    } catch (error) {
      if (signal.aborted || isAppError(error, "unsupported") || isAppError(error, "busy")) throw error;
      if (clock.now() < untilMs) await clock.sleep(firstRetryMs, signal);
      else
        throw new AppError("unreachable", `no way through the workload: ${toAppError(error).message}`, {
          cause: error,
        });
    }
  }
}

interface Where {
  readonly workload: WorkloadRef;
  readonly pods: IngestedPods;
}

async function reach({ access, clock, log }: ViaOptions, { workload, pods }: Where, signal: AbortSignal): Promise<Way> {
  const pod = pods.somePod;
  if (pod?.agentRunning !== true) {
    throw new AppError("unreachable", `${workload.kind} ${workload.name} has no pod with a traffic-agent now`);
  }
  using limit = deadline(clock, reachMs, `reaching the traffic-agent in pod ${pod.name}`, signal);
  const transport = await access.openIntroduction(workload.namespace, pod.name, limit.signal);
  const session = await openLaptopSession(transport, { clock, log }, limit.signal);
  try {
    const stream = await session.open({ kind: "rpc", api: "introduction" }, limit.signal);
    const rpc = openRpc({ stream, calls: introductionApi, log });
    await rpc.call("dial.begin", {}, limit.signal);
    return { session, rpc };
  } catch (error) {
    session.destroy();
    if (!isAppError(error, "unsupported")) throw error;
    throw new AppError("unsupported", `the traffic-agent in pod ${pod.name} is of an older version without --via`, {
      cause: error,
      hint: `take it out with \`telepresence uninstall --agent ${workload.name}\` and connect again`,
    });
  }
}
