// What became of the last requests and connections, for `telepresence why`. On the path of a request nothing is evaluated
// and nothing copied: an entry holds the head as it was parsed, and the intercepts as they were asked. Why each of them
// refused is found out when somebody wants to know (why.ts), by the filters of that time: whoever asks with a
// filter of his own learns nothing of requests that were there before it.
// Invariants: entries and their text are bounded; header values and bodies never leave this process.
import type { Clock } from "#base/clock.ts";
import type { FilterRequest } from "#filter/request-view.ts";
import type { Taken } from "./served.ts";

/** chosen: what somebody can have sent before asking about it. */
export const maxDecisions = 256;
/** chosen: heads kept for explanations, all together; older ones are cut down to their request line … */
const maxHeadChars = 48 * 1024;
/** … whose target is this long at most. */
const maxTargetChars = 200;
const maxReasonChars = 200;

/** What is asked of a request, whatever the version of HTTP: names in lower case, no `:fields`. */
export type AskedRequest = Omit<FilterRequest, "body">;
export type Answerer = "laptop" | "application" | "agent";

/** A wiretap that got a copy. */
export interface CopyRecord {
  readonly tap: Taken;
  /** Why not all of it came. */
  cut?: string;
}
const noCopies: readonly CopyRecord[] = [];

/** What is known when it is decided. */
export interface Decided {
  readonly containerPort: number;
  /** Undefined for a connection that is no HTTP, or whose requests cannot be told apart. */
  readonly request?: AskedRequest;
  /** The address of a connection's caller. */
  readonly source?: string | undefined;
  /** The intercepts of that moment, in the order in which they were asked. */
  readonly asked: readonly Taken[];
  /** Undefined: the application gets it. */
  readonly taken: Taken | undefined;
  /** Kubelet wants to know how the pod is: only intercepts that want to know of it are asked. */
  readonly isProbe?: boolean;
}

export class Decision {
  readonly atMs: number;
  readonly containerPort: number;
  readonly source: string | undefined;
  readonly asked: readonly Taken[];
  readonly taken: Taken | undefined;
  readonly isProbe: boolean;
  readonly isRequest: boolean;
  readonly #clock: Clock;
  #request: AskedRequest | undefined;
  #line: { readonly method: string; readonly target: string } | undefined;
  #left: string | undefined;
  #copies: readonly CopyRecord[] = noCopies;
  #answeredBy: Answerer | undefined;
  #status: number | undefined;
  #failure: string | undefined;
  #overMs: number | undefined;

  constructor(decided: Decided, clock: Clock) {
    this.#clock = clock;
    this.atMs = clock.now();
    this.containerPort = decided.containerPort;
    this.source = decided.source;
    this.asked = decided.asked;
    this.taken = decided.taken;
    this.isProbe = decided.isProbe === true;
    this.isRequest = decided.request !== undefined;
    this.#request = decided.request;
  }

  /** Undefined when it is too old, or was too long to be kept. */
  get request(): AskedRequest | undefined {
    return this.#request;
  }
  /** Of the request. */
  get line(): { readonly method: string; readonly target: string } | undefined {
    return this.#request ?? this.#line;
  }
  /** Why the application got it, although an intercept took it. */
  get left(): string | undefined {
    return this.#left;
  }
  /** Undefined while nobody has answered a request, or when nobody did. */
  get answeredBy(): Answerer | undefined {
    const isOpen = !this.isRequest && this.#failure === undefined;
    return this.#answeredBy ?? (isOpen ? this.#owner : undefined);
  }
  get status(): number | undefined {
    return this.#status;
  }
  /** Why it ended without an answer, or with one of ours. */
  get failure(): string | undefined {
    return this.#failure;
  }
  /** Undefined as long as it lasts. */
  get durationMs(): number | undefined {
    return this.#overMs === undefined ? undefined : this.#overMs - this.atMs;
  }

  /** Filled while it lasts: those that have, or had, a copy. */
  get copies(): readonly CopyRecord[] {
    return this.#copies;
  }
  copiedTo(copies: readonly CopyRecord[] = noCopies): void {
    this.#copies = copies;
  }
  leftToApplication(reason: string): void {
    this.#left = ownCopy(reason, maxReasonChars);
  }
  /** The answer is whole, or goes on as a stream. */
  answered(status: number | undefined): void {
    if (this.#overMs !== undefined) return;
    this.#overMs = this.#clock.now();
    this.#answeredBy = this.#owner;
    this.#status = status;
  }
  /** `reason` is why nobody else did; without one it was the agent's to answer. */
  answeredByAgent(status: number | undefined, reason?: string): void {
    this.#end(reason);
    this.#answeredBy = "agent";
    this.#status = status;
  }
  /** No answer, or not all of it. */
  cut(reason: string): void {
    this.#end(reason);
  }

  /** How much of a head it holds. */
  get headChars(): number {
    if (this.#request === undefined) return 0;
    const { method, target, authority, headers } = this.#request;
    let chars = method.length + target.length + authority.length;
    for (const { name, value } of headers) chars += name.length + value.length;
    return chars;
  }
  /** The text of a head is one piece in memory, however little of it is held. */
  forgetHead(): void {
    if (this.#request === undefined) return;
    const { method, target } = this.#request;
    this.#line = { method: ownCopy(method, maxTargetChars), target: ownCopy(target, maxTargetChars) };
    this.#request = undefined;
  }

  get #owner(): Answerer {
    return this.taken === undefined || this.#left !== undefined ? "application" : "laptop";
  }

  #end(reason: string | undefined): void {
    if (this.#overMs !== undefined) return;
    this.#overMs = this.#clock.now();
    this.#failure = reason === undefined ? undefined : ownCopy(reason, maxReasonChars);
  }
}

export class Decisions {
  readonly #clock: Clock;
  readonly #ring: Decision[] = [];
  readonly #heads: number[] = [];
  #next = 0;
  #headChars = 0;
  /** Where the oldest entry is that still has its head. */
  #oldestHead = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(decided: Decided): Decision {
    const decision = new Decision(decided, this.#clock);
    const chars = decision.headChars;
    const at = this.#next % maxDecisions;
    if (this.#oldestHead <= this.#next - maxDecisions) this.#dropOldestHead();
    this.#ring[at] = decision;
    this.#heads[at] = chars;
    this.#headChars += chars;
    this.#next += 1;
    while (this.#headChars > maxHeadChars) this.#dropOldestHead();
    return decision;
  }

  /** The oldest first. */
  last(count: number): readonly Decision[] {
    const decisions: Decision[] = [];
    const oldest = Math.max(0, this.#next - maxDecisions, this.#next - count);
    for (let index = oldest; index < this.#next; index += 1) {
      const decision = this.#ring[index % maxDecisions];
      if (decision !== undefined) decisions.push(decision);
    }
    return decisions;
  }

  #dropOldestHead(): void {
    const at = this.#oldestHead % maxDecisions;
    this.#ring[at]?.forgetHead();
    this.#headChars -= this.#heads[at] ?? 0;
    this.#heads[at] = 0;
    this.#oldestHead += 1;
  }
}

/** A part of a text keeps the whole of it in memory. Put together anew it is a text of its own; very short ones are. */
function ownCopy(text: string, maxChars: number): string {
  return text.length < 13 ? text : ` ${text.slice(0, maxChars)}`.slice(1);
}
