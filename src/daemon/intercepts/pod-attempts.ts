// Does something to each pod of a workload that wants it, again and again until it is done: what introductions.ts and
// attachments.ts have in common. Pods come and go meanwhile.
// Invariant: one attempt a pod at a time; at most `maxParallel` in all, those that wait for their turn not counted.
import type { Clock } from "#base/clock.ts";
import { deadline, linkSignals } from "#base/abort.ts";
import { toAppError, type AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { Scope } from "#base/scope.ts";

interface NamedPod {
  readonly name: string;
  readonly uid: string;
}

export interface PodEntry<Pod, State> {
  pod: Pod;
  /** What the maker of the attempts remembers of the pod. */
  readonly state: State;
  /** Why the last attempt failed. */
  failure: AppError | undefined;
  /** How long to wait after the next failure. */
  retryMs: number;
}

export interface AttemptOptions<Pod, State> {
  /** For messages, with the pod's name behind it. */
  readonly what: string;
  readonly initial: () => State;
  readonly isWanted: (entry: PodEntry<Pod, State>) => boolean;
  readonly attempt: (entry: PodEntry<Pod, State>, signal: AbortSignal) => Promise<void>;
  readonly firstRetryMs: number;
  /** How long a pod is left alone after an attempt that went well. */
  readonly restMs: number;
  readonly clock: Clock;
  readonly log: Logger;
  /** Called after each attempt. */
  readonly onChange: () => void;
}

type Slot<Pod, State> = PodEntry<Pod, State> & { busy: boolean };

/** chosen: enough for a large workload without flooding the API server. */
const maxParallel = 8;
const attemptMs = 10_000;
const lastRetryMs = 5000;

export class PodAttempts<Pod extends NamedPod, State> implements AsyncDisposable {
  readonly #options: AttemptOptions<Pod, State>;
  readonly #scope: Scope;
  readonly #slots = new Map<string, Slot<Pod, State>>();
  /** Of those that wait for their next attempt. */
  readonly #pauses = new Map<PodEntry<Pod, State>, AbortController>();
  #running = 0;

  constructor(options: AttemptOptions<Pod, State>) {
    this.#options = options;
    this.#scope = new Scope(options.log);
  }

  get entries(): readonly PodEntry<Pod, State>[] {
    return [...this.#slots.values()];
  }
  find(uid: string): PodEntry<Pod, State> | undefined {
    return this.#slots.get(uid);
  }

  /** Replaces the set of the workload's live pods. */
  setPods(pods: readonly Pod[]): void {
    const uids = new Set(pods.map((pod) => pod.uid));
    for (const uid of this.#slots.keys()) if (!uids.has(uid)) this.#slots.delete(uid);
    const { initial, firstRetryMs: retryMs } = this.#options;
    for (const pod of pods) {
      const slot = this.#slots.get(pod.uid);
      if (slot !== undefined) slot.pod = pod;
      else this.#slots.set(pod.uid, { pod, state: initial(), failure: undefined, busy: false, retryMs });
    }
    this.pump();
  }

  /** Its next attempt is not waited for any longer. */
  hasten(entry: PodEntry<Pod, State>): void {
    this.#pauses.get(entry)?.abort();
  }

  /** Begins whatever is wanted now. */
  pump(): void {
    for (const slot of this.#slots.values()) {
      if (this.#running >= maxParallel || this.#scope.disposed) return;
      if (slot.busy || !this.#options.isWanted(slot)) continue;
      slot.busy = true;
      this.#running += 1;
      this.#scope.background(this.#options.what, this.#once(slot));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#scope[Symbol.asyncDispose]();
  }

  async #once(slot: Slot<Pod, State>): Promise<void> {
    const { clock, onChange } = this.#options;
    const { signal } = this.#scope;
    const pauseMs = await this.#attempt(slot);
    this.#running -= 1; // a waiting pod must not hold up the others
    if (signal.aborted) return;
    onChange();
    if (pauseMs > 0) {
      this.pump();
      const pause = new AbortController();
      using either = linkSignals(signal, pause.signal);
      this.#pauses.set(slot, pause);
      await clock.sleep(pauseMs, either.signal).catch(() => undefined); // ended: the pump does nothing then
      this.#pauses.delete(slot);
    }
    slot.busy = false;
    this.pump();
  }

  /** Never rejects; how long to wait before the next one. */
  async #attempt(slot: Slot<Pod, State>): Promise<number> {
    const { what, attempt, firstRetryMs, restMs, clock, log } = this.#options;
    const { signal } = this.#scope;
    const podName = slot.pod.name;
    try {
      using limit = deadline(clock, attemptMs, `${what} ${podName}`, signal);
      await attempt(slot, limit.signal);
      slot.failure = undefined;
      slot.retryMs = firstRetryMs;
      return restMs;
    } catch (error) {
      const { retryMs } = slot;
      slot.retryMs = Math.min(retryMs * 1.5, lastRetryMs);
      if (signal.aborted) return 0;
      slot.failure = toAppError(error);
      log.warn(`${what} failed`, { podName, error: slot.failure.message, retryMs });
      return retryMs;
    }
  }
}
