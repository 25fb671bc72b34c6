// What became of the last requests and connections, for `telepresence why`. On the path of a request nothing is evaluated
// and nothing stays on the heap: entries are used again and again, and heads are copied into one block
// (kept-heads.ts), because what outlives its request is moved by each of the collector's runs. Why each of the asked
// intercepts refused is found out when somebody wants to know (why.ts), by the filters of that time: whoever asks with a
// filter of his own learns nothing of requests that were there before it.
// Invariants: entries and their text are bounded; header values and bodies never leave this process.
import type { Clock } from "#base/clock.ts";
import type { FilterRequest } from "#filter/request-view.ts";
import { KeptHeads } from "./kept-heads.ts";
import type { ReceivedHead, RequestLine } from "./kept-heads.ts";
import type { Taken } from "./served.ts";

/** chosen: what somebody can have sent before asking about it. */
export const maxDecisions = 256;
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
const nobody: readonly Taken[] = [];

/** What is known when it is decided. */
export interface Decided {
  readonly containerPort: number;
  /** Undefined for a connection that is no HTTP, or whose requests cannot be told apart. */
  readonly head?: ReceivedHead;
  /** The address of a connection's caller. */
  readonly source?: string | undefined;
  /** It is no connection, but datagrams of one caller. */
  readonly isUdp?: boolean;
  /** The intercepts of that moment, in the order in which they were asked. */
  readonly asked: readonly Taken[];
  /** Undefined: the application gets it. */
  readonly taken: Taken | undefined;
  /** Kubelet wants to know how the pod is: only intercepts that want to know of it are asked. */
  readonly isProbe?: boolean;
}

/** What is known of one, until it is the oldest and its place is needed. */
export class Decision {
  /** Which of all it is, counted from 1; none at first. */
  number = 0;
  isRequest = false;
  isProbe = false;
  isUdp = false;
  containerPort = 0;
  source: string | undefined;
  asked: readonly Taken[] = nobody;
  taken: Taken | undefined;
  /** Why the application got it, although an intercept took it. */
  left: string | undefined;
  status: number | undefined;
  /** Why it ended without an answer, or with one of ours. */
  failure: string | undefined;
  /** Filled while it lasts: those that have, or had, a copy. */
  copies: readonly CopyRecord[] = noCopies;
  /** Not a number as long as it lasts. */
  overMs = Number.NaN;
  atMs = Number.NaN;
  byAgent = false;
  readonly #at: number;
  readonly #heads: KeptHeads;

  constructor(at: number, heads: KeptHeads) {
    this.#at = at;
    this.#heads = heads;
  }

  begin(
    number: number,
    { containerPort, head, source, asked, taken, isProbe = false, isUdp = false }: Decided,
    atMs: number,
  ): void {
    this.number = number;
    this.isRequest = head !== undefined;
    this.isProbe = isProbe;
    this.isUdp = isUdp;
    this.containerPort = containerPort;
    this.source = source;
    this.asked = asked;
    this.taken = taken;
    this.left = this.status = this.failure = undefined;
    this.copies = noCopies;
    this.overMs = Number.NaN;
    this.atMs = atMs;
    this.byAgent = false;
    if (head !== undefined) this.#heads.keep(this.#at, head);
  }

  /** Undefined when it is too old, or was too long to be kept. */
  get request(): AskedRequest | undefined {
    return this.isRequest ? this.#heads.read(this.#at) : undefined;
  }
  /** Of the request. */
  get line(): RequestLine | undefined {
    return this.isRequest ? (this.request ?? this.#heads.readLine(this.#at)) : undefined;
  }
  get isOver(): boolean {
    return !Number.isNaN(this.overMs);
  }
  /** Undefined as long as it lasts. */
  get durationMs(): number | undefined {
    return this.isOver ? this.overMs - this.atMs : undefined;
  }
  /** Undefined while nobody has answered a request, or when nobody did. */
  get answeredBy(): Answerer | undefined {
    if (this.byAgent) return "agent";
    if (this.failure !== undefined || (this.isRequest && !this.isOver)) return undefined;
    return this.taken === undefined || this.left !== undefined ? "application" : "laptop";
  }
}

/** For whoever sees to a request or a connection: what becomes of it. Nothing once there is no place for it any more. */
export class Outcome {
  readonly #decision: Decision;
  readonly #number: number;
  readonly #clock: Clock;

  constructor(decision: Decision, clock: Clock) {
    this.#decision = decision;
    this.#number = decision.number;
    this.#clock = clock;
  }

  copiedTo(copies: readonly CopyRecord[] = noCopies): void {
    if (this.#isKept) this.#decision.copies = copies;
  }
  leftToApplication(reason: string): void {
    if (this.#isKept) this.#decision.left = ownCopy(reason);
  }
  /** The answer is whole, or goes on as a stream. */
  answered(status: number | undefined): void {
    if (!this.#end(undefined)) return;
    this.#decision.status = status;
  }
  /** `reason` is why nobody else did; without one it was the agent's to answer. */
  answeredByAgent(status: number | undefined, reason?: string): void {
    if (!this.#end(reason)) return;
    this.#decision.byAgent = true;
    this.#decision.status = status;
  }
  /** No answer, or not all of it. */
  cut(reason: string): void {
    this.#end(reason);
  }

  get #isKept(): boolean {
    return this.#decision.number === this.#number;
  }
  #end(reason: string | undefined): boolean {
    if (!this.#isKept || this.#decision.isOver) return false;
    this.#decision.overMs = this.#clock.now();
    this.#decision.failure = reason === undefined ? undefined : ownCopy(reason);
    return true;
  }
}

export class Decisions {
  readonly #clock: Clock;
  readonly #ring: readonly Decision[];
  #count = 0;

  constructor(clock: Clock) {
    const heads = new KeptHeads(maxDecisions);
    this.#clock = clock;
    this.#ring = Array.from({ length: maxDecisions }, (_, at) => new Decision(at, heads));
  }

  add(decided: Decided): Outcome {
    const decision = this.#at(this.#count);
    this.#count += 1;
    decision.begin(this.#count, decided, this.#clock.now());
    return new Outcome(decision, this.#clock);
  }

  /** The oldest first; to be read at once. */
  last(count: number): readonly Decision[] {
    const length = Math.min(count, this.#count, maxDecisions);
    return Array.from({ length }, (_, index) => this.#at(this.#count - length + index));
  }

  #at(number: number): Decision {
    const decision = this.#ring[number % maxDecisions];
    if (decision === undefined) throw new RangeError(`decision ${number} has no place`);
    return decision;
  }
}

/** A part of a text keeps the whole of it in memory. Put together anew it is a text of its own; very short ones are. */
function ownCopy(text: string): string {
  return text.length < 13 ? text : ` ${text.slice(0, maxReasonChars)}`.slice(1);
}
