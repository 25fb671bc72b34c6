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

/** One of the conditions that the outermost `&&`, or `||`, of a filter joins; a filter without either is one. */
export interface ConditionValue {
  readonly text: string;
  /** Undefined: not known for this request. */
  readonly value: boolean | undefined;
  /** Why it is not known; never holds what the caller sent. */
  readonly reason?: string;
}

export interface Explanation {
  /** Undefined: only the body can tell. */
  readonly matched: boolean | undefined;
  readonly joined: "&&" | "||";
  readonly conditions: readonly ConditionValue[];
}

const overBudget = new Failure("unusable", `the evaluation took more than ${filterLimits.steps} steps`);

export class Filter {
  readonly text: string;
  /** Some requests are only decided with their body; `decide` says which. */
  readonly needsBody: boolean;
  readonly #syntax: Node;
  readonly #step: Step;
  #conditions: readonly { readonly text: string; readonly step: Step }[] | undefined;

  /** Throws a FilterProblem; `compileFilter` is for callers. */
  constructor(text: string) {
    const planner = new Planner();
    this.text = text;
    this.#syntax = parseFilter(text);
    this.#step = planner.plan(this.#syntax);
    this.needsBody = planner.needsBody;
  }

  /** For the overlap analysis. */
  get syntax(): Node {
    return this.#syntax;
  }

  evaluate(request: FilterRequest): boolean {
    return evaluateStep(this.#step, new RequestView(request)) === true;
  }

  /** As `evaluate`, but a request that only its body can decide is not decided: read it, evaluate. */
  decide(request: FilterRequest): boolean | "needs-body" {
    const value = evaluateStep(this.#step, new RequestView(request));
    return value instanceof Failure && value.kind === "needs-body" ? "needs-body" : value === true;
  }

  /** Why a request is taken or not; what that costs is taken from `total`, which several calls may share. */
  explain(request: FilterRequest, total: Meter = explanationMeter()): Explanation {
    const view = new RequestView(request);
    const evaluate = (step: Step): Value => {
      const steps = Math.min(filterLimits.steps, total.left);
      const meter = new Meter(steps);
      const value = evaluateStep(step, view, meter);
      total.left -= steps - Math.max(0, meter.left);
      return value;
    };
    const whole = evaluate(this.#step);
    const undecided = whole instanceof Failure && whole.kind === "needs-body";
    this.#conditions ??= this.#planConditions();
    return {
      matched: undecided ? undefined : whole === true,
      joined: this.#syntax.op === "||" ? "||" : "&&",
      conditions: this.#conditions.map(({ text, step }) => {
        const value = evaluate(step);
        if (typeof value === "boolean") return { text, value };
        return { text, value: undefined, ...(value instanceof Failure ? { reason: value.reason } : {}) };
      }),
    };
  }

  #planConditions(): readonly { readonly text: string; readonly step: Step }[] {
    const nodes = operandsOf(this.#syntax, this.#syntax.op === "||" ? "||" : "&&");
    return nodes.map((node) => ({ text: textOf(node), step: new Planner().plan(node) }));
  }
}

/** What all explanations of one question may cost together: some 15 ms. */
export function explanationMeter(): Meter {
  return new Meter(4 * filterLimits.steps);
}

/** Throws an AppError that points at the column. `subject` begins its sentence. */
export function compileFilter(text: string, subject = "the filter"): Filter {
  try {
    return new Filter(text);
  } catch (error) {
    throw error instanceof FilterProblem ? pointAt(subject, text, error) : error;
  }
}

function evaluateStep(step: Step, view: RequestView, meter = new Meter(filterLimits.steps)): Value {
  const { oversize } = view;
  if (oversize !== undefined) return oversize;
  try {
    const value = step({ view, meter, slots: [] });
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
