// The way in: text to a Filter, once; then one call per request, which never throws and always ends.
import { filterLimits } from "./limits.ts";
import { operandsOf, Planner } from "./plan.ts";
import type { Step } from "./plan.ts";
import { FilterProblem, pointAt } from "./problem.ts";
import { RequestView } from "./request-view.ts";
import type { FilterRequest } from "./request-view.ts";
import { parseFilter } from "./syntax.ts";
import type { Node } from "./syntax.ts";
import { Failure, Meter, OverBudget, wrongType } from "./value.ts";
import type { Value } from "./value.ts";

/** What a filter has seen since it was compiled. */
export interface FilterCounts {
  readonly matched: number;
  readonly unmatched: number;
  /** Of the unmatched: something that the expression names was not in the request. Common, and no fault. */
  readonly absent: number;
  /** Of the unmatched: could not be evaluated (budget, size, a body that was not read). */
  readonly failed: number;
}

export interface Explanation {
  readonly matched: boolean;
  /** The condition that decided: an operand of the outermost `&&` that is false, else one that is not known. */
  readonly condition?: string;
  /** Why it could not be evaluated; never holds what the caller sent. */
  readonly failure?: string;
}

const overBudget = new Failure("unusable", `the evaluation took more than ${filterLimits.steps} steps`);

export class Filter {
  readonly text: string;
  /** Some requests are only decided with their body; `decide` says which. */
  readonly needsBody: boolean;
  readonly #syntax: Node;
  readonly #step: Step;
  readonly #counts = { matched: 0, unmatched: 0, absent: 0, failed: 0 };
  #lastFailure: string | undefined;

  /** Throws a FilterProblem; `compileFilter` is for callers. */
  constructor(text: string) {
    const planner = new Planner();
    this.text = text;
    this.#syntax = parseFilter(text);
    this.#step = planner.plan(this.#syntax);
    this.needsBody = planner.needsBody;
  }

  get counts(): FilterCounts {
    return { ...this.#counts };
  }

  /** Of the last evaluation that failed. */
  get lastFailure(): string | undefined {
    return this.#lastFailure;
  }

  /** For the overlap analysis. */
  get syntax(): Node {
    return this.#syntax;
  }

  /** Counts the request. */
  evaluate(request: FilterRequest): boolean {
    return this.#count(evaluateStep(this.#step, new RequestView(request)));
  }

  /** As `evaluate`, but a request that only its body can decide is neither matched nor counted: read it, evaluate. */
  decide(request: FilterRequest): boolean | "needs-body" {
    const value = evaluateStep(this.#step, new RequestView(request));
    return value instanceof Failure && value.kind === "needs-body" ? "needs-body" : this.#count(value);
  }

  /** Why a request is taken or not; counts nothing. Compiles again, so not for each request. */
  explain(request: FilterRequest): Explanation {
    const view = new RequestView(request);
    const whole = evaluateStep(this.#step, view);
    if (whole === true) return { matched: true };
    const operands = operandsOf(this.#syntax, "&&").map((node) => ({
      node,
      value: evaluateStep(new Planner().plan(node), view),
    }));
    const decisive = operands.find(({ value }) => value === false) ?? operands.find(({ value }) => value !== true);
    const condition = decisive === undefined ? {} : { condition: textOf(decisive.node) };
    const failure = whole instanceof Failure ? { failure: whole.reason } : {};
    return { matched: false, ...condition, ...failure };
  }

  #count(value: Value): boolean {
    if (value === true) {
      this.#counts.matched++;
      return true;
    }
    this.#counts.unmatched++;
    if (value instanceof Failure) {
      this.#counts[value.kind === "absent" ? "absent" : "failed"]++;
      if (value.kind !== "absent") this.#lastFailure = value.reason;
    }
    return false;
  }
}

/** Throws an AppError that points at the column. `subject` begins its sentence. */
export function compileFilter(text: string, subject = "the filter"): Filter {
  try {
    return new Filter(text);
  } catch (error) {
    throw error instanceof FilterProblem ? pointAt(subject, text, error) : error;
  }
}

function evaluateStep(step: Step, view: RequestView): Value {
  const { oversize } = view;
  if (oversize !== undefined) return oversize;
  try {
    const value = step({ view, meter: new Meter(filterLimits.steps), slots: [] });
    return typeof value === "boolean" || value instanceof Failure ? value : wrongType;
  } catch (error) {
    if (error instanceof OverBudget) return overBudget;
    throw error;
  }
}

/** A node ends before the parentheses that close it; `!(a == b)` is to be shown whole. */
function textOf(node: Node): string {
  for (let end = node.end; end <= node.input.length; end++) {
    const text = node.input.slice(node.start, end);
    if (end > node.end && !/[)\s]$/.test(text)) break;
    if (isWhole(text)) return text;
  }
  return node.input.slice(node.start, node.end);
}

function isWhole(text: string): boolean {
  try {
    parseFilter(text);
    return true;
  } catch {
    return false; // a parenthesis is missing
  }
}
