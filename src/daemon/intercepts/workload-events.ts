// What happens to one's own intercepts, as events on their workloads: whoever wonders why an application answers
// strangely finds the intercept, and whose it is, with `kubectl describe`. Best effort, after the fact: an event that
// cannot be written changes nothing else. Nobody but the laptop may write them, and a laptop that is away is what some
// of them tell of: those wait until the cluster can be reached, and keep the time at which it happened.
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { isAppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { Scope } from "#base/scope.ts";
import type { InterceptInfo, InterceptState } from "#wire/manager-api.ts";
import type { WorkloadNews } from "./workload-access.ts";

export interface WorkloadEventsOptions {
  readonly record: (news: WorkloadNews, signal: AbortSignal) => Promise<unknown>;
  readonly clock: Clock;
  readonly log: Logger;
}

/** chosen: a cluster that does not take them for so long has lost the older ones. */
const maxWaiting = 64;
const recordMs = 5000;
/** chosen: what tells of an hour ago is of no use any more; the cluster itself forgets events after that time. */
const oldestMs = 3_600_000;
/** How it shows that the cluster cannot be reached for now. */
const awayCodes = ["cluster_unreachable", "timeout", "link_lost"] as const;
const firstRetryMs = 500;
const lastRetryMs = 10_000;
/** chosen: the last events of a session must not hold up `quit`. */
const flushMs = 1000;

const isTap = ({ spec }: InterceptInfo): boolean => spec.kind === "wiretap";

interface Told {
  readonly state: InterceptState;
  readonly info: InterceptInfo;
  byPassed: boolean;
}

export class WorkloadEvents implements AsyncDisposable {
  readonly #options: WorkloadEventsOptions;
  readonly #scope: Scope;
  readonly #waiting: WorkloadNews[] = [];
  readonly #refused = new Set<string>();
  readonly #told = new Map<string, Told>();
  #writing: Promise<void> | undefined;

  constructor(options: WorkloadEventsOptions) {
    this.#options = options;
    this.#scope = new Scope(options.log);
  }

  /** All intercepts of one's own as they are now; what is not among them any more has ended. */
  update(infos: readonly InterceptInfo[]): void {
    const now = new Map(infos.map((info) => [info.spec.name, info]));
    for (const [name, { info }] of this.#told) {
      if (now.has(name)) continue;
      this.#told.delete(name);
      const since = isTap(info) ? "nothing is copied any more" : "the application answers all callers again";
      this.#add(info, "InterceptRemoved", `has ended: ${since}`, "Normal");
    }
    for (const [name, info] of now) {
      const told = this.#told.get(name);
      if (told?.state === info.state || info.state === "waiting" || info.state === "removed")
        this.#tellPath(info, told);
      else {
        this.#told.set(name, { state: info.state, info, byPassed: told?.byPassed ?? false });
        this.#tell(info, told?.state);
        this.#tellPath(info, this.#told.get(name));
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.update([]);
    if (this.#writing !== undefined) {
      using limit = deadline(this.#options.clock, flushMs, "writing the last events");
      const { promise, resolve } = Promise.withResolvers<void>();
      limit.signal.addEventListener("abort", () => resolve(), { once: true });
      await Promise.race([this.#writing, promise]);
    }
    await this.#scope[Symbol.asyncDispose]();
  }

  #tell(info: InterceptInfo, before: InterceptState | undefined): void {
    const ports = info.spec.ports.map((port) => port.servicePort ?? port.containerPort).join(", ");
    if (info.state === "active") {
      const again = before === undefined ? "" : " again";
      const how = isTap(info) ? "that laptop gets copies of what comes to port" : "port";
      const then = isTap(info) ? "" : " is answered from that laptop";
      this.#add(info, "InterceptActive", `is active${again}: ${how} ${ports}${then}`, "Normal");
    } else if (info.state === "suspended") {
      const meanwhile = isTap(info) ? "nothing is copied" : "the application answers";
      this.#add(info, "InterceptSuspended", `is suspended: ${meanwhile} until the laptop is back`, "Normal");
    } else {
      this.#add(info, "InterceptError", `failed: ${info.message}`, "Warning");
    }
  }

  /** Whether callers reach the agents may turn out long after it began, and change again. */
  #tellPath(info: InterceptInfo, told: Told | undefined): void {
    const { verdict, reason = "" } = info.callerPath ?? {};
    if (told === undefined || verdict === undefined || verdict === "unknown") return;
    const byPassed = verdict === "by-passed";
    if (byPassed === told.byPassed) return;
    told.byPassed = byPassed;
    if (byPassed) this.#add(info, "InterceptByPassed", `may not be reached by its callers: ${reason}`, "Warning");
    else this.#add(info, "InterceptReached", "is reached by its callers again", "Normal");
  }

  /** A wiretap's reasons are called after it. */
  #add(info: InterceptInfo, reason: `Intercept${string}`, text: string, type: WorkloadNews["type"]): void {
    const { workload, name } = info.spec;
    const [noun, named] = isTap(info) ? ["wiretap", reason.replace("Intercept", "Wiretap")] : ["intercept", reason];
    if (this.#scope.disposed) return;
    if (this.#waiting.length >= maxWaiting) this.#waiting.shift();
    const atMs = this.#options.clock.wallMs();
    this.#waiting.push({ workload, reason: named, message: `${noun} ${name} of ${info.client} ${text}`, type, atMs });
    if (this.#writing !== undefined) return;
    this.#writing = this.#write().finally(() => (this.#writing = undefined));
    this.#scope.background("events", this.#writing);
  }

  /** In order: each waits for the one before it. */
  async #write(): Promise<void> {
    let retryMs = firstRetryMs;
    for (let news = this.#waiting[0]; news !== undefined; news = this.#waiting[0]) {
      const later = await this.#writeOne(news);
      if (this.#scope.signal.aborted) return;
      if (!later) {
        if (this.#waiting[0] === news) this.#waiting.shift(); // it is gone when there were too many
        retryMs = firstRetryMs;
        continue;
      }
      await this.#options.clock.sleep(retryMs, this.#scope.signal).catch(() => undefined); // ended: seen above
      retryMs = Math.min(retryMs * 2, lastRetryMs);
    }
  }

  /** Whether it has to be tried again. */
  async #writeOne(news: WorkloadNews): Promise<boolean> {
    const { clock, log, record } = this.#options;
    if (this.#refused.has(news.workload.namespace)) return false;
    try {
      using limit = deadline(clock, recordMs, "writing an event", this.#scope.signal);
      await record(news, limit.signal);
      return false;
    } catch (error) {
      if (this.#scope.signal.aborted) return false;
      const away = awayCodes.some((code) => isAppError(error, code)) && clock.wallMs() - news.atMs < oldestMs;
      if (away) return true;
      if (isAppError(error, "forbidden")) this.#refused.add(news.workload.namespace);
      log.info("event not written", { workload: news.workload.name, reason: toAppError(error).message });
      return false;
    }
  }
}
