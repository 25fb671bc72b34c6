// A checked syntax tree to steps: closures over what is known already, so that evaluating allocates little and looks
// nothing up twice. This is the subset of CEL that a filter may use; what is not here is refused at its place.
//
//   FilterProblem  while planning: the expression is wrong        Failure     while evaluating: not known for this request
//   OverBudget     while evaluating: thrown, ends the evaluation
import { functions, methods } from "./functions.ts";
import { filterLimits } from "./limits.ts";
import { planLoop } from "./loops.ts";
import { operators } from "./operators.ts";
import type { Operator } from "./operators.ts";
import { FilterProblem } from "./problem.ts";
import { compileRegex } from "./regex.ts";
import type { RequestView } from "./request-view.ts";
import { requestSchema } from "./request-view.ts";
import { unknownField, unknownFunction } from "./syntax.ts";
import type { Node, NodeOf } from "./syntax.ts";
import { Failure, graver, wrongType } from "./value.ts";
import type { Meter, Value } from "./value.ts";

/** What one evaluation carries along. */
export interface Run {
  readonly view: RequestView;
  readonly meter: Meter;
  /** The variables of the loops around a step, by depth. */
  readonly slots: Value[];
}

export type Step = (run: Run) => Value;

const nodeCost = 4;

export class Planner {
  #needsBody = false;
  #regexInstructions = 0;
  /** Loop variables in scope, outermost first. */
  readonly #variables: string[] = [];
  readonly #kinds: { readonly [Op in Node["op"]]?: (node: NodeOf<Op>) => Step } = {
    value: planConstant,
    id: (node) => this.#planVariable(node),
    ".": (node) => this.#planField(node),
    "[]": (node) => this.#planIndex(node),
    list: (node) => this.#planValues(node.args, (values) => values),
    call: (node) => this.#planCall(node),
    rcall: (node) => this.#planMethod(node),
    "&&": (node) => planJunction(this.#planChain(node, "&&"), false),
    "||": (node) => planJunction(this.#planChain(node, "||"), true),
    "!_": (node) => this.#planValues([node.args], ([value]) => (typeof value === "boolean" ? !value : wrongType)),
    "-_": (node) => this.#planValues([node.args], ([value]) => (typeof value === "number" ? -value : wrongType)),
    "?:": (node) => this.#planChoice(node),
  };

  get needsBody(): boolean {
    return this.#needsBody;
  }

  plan(node: Node): Step {
    const step = this.#planKind(node);
    return (run) => {
      run.meter.spend(nodeCost);
      return step(run);
    };
  }

  /** Plans with `name` standing for slot `depth`; called by loops. */
  planInside<T>(variable: Node, plan: (slot: number) => T): T {
    const name = variable.op === "id" ? variable.args : "";
    if (name === "" || name === "request") throw new FilterProblem(variable.start, "expected a name of your own here");
    if (this.#variables.length >= filterLimits.nestedLoops) {
      throw new FilterProblem(variable.start, `loops nest at most ${filterLimits.nestedLoops} deep in a filter`);
    }
    this.#variables.push(name);
    try {
      return plan(this.#variables.length - 1);
    } finally {
      this.#variables.pop();
    }
  }

  #planKind(node: Node): Step {
    const operator = operators[node.op];
    if (operator !== undefined) return this.#planBinary(node as NodeOf<"==">, operator);
    const kind = this.#kinds[node.op] as ((node: Node) => Step) | undefined;
    if (kind === undefined) throw new FilterProblem(node.start, "this is not a part of filters");
    return kind(node);
  }

  #planBinary(node: NodeOf<"==">, apply: Operator): Step {
    const left = this.plan(node.args[0]);
    const right = this.plan(node.args[1]);
    return (run) => {
      const a = left(run);
      if (a instanceof Failure) return a;
      const b = right(run);
      return b instanceof Failure ? b : apply(a, b, run.meter);
    };
  }

  /** `a && b && c` is one junction, whichever way it was parsed. */
  #planChain(node: Node, op: "&&" | "||"): readonly Step[] {
    return operandsOf(node, op).map((operand) => this.plan(operand));
  }

  #planChoice(node: NodeOf<"?:">): Step {
    const [condition, whenTrue, whenFalse] = node.args.map((part) => this.plan(part)) as [Step, Step, Step];
    return (run) => {
      const chosen = condition(run);
      if (typeof chosen !== "boolean") return chosen instanceof Failure ? chosen : wrongType;
      return chosen ? whenTrue(run) : whenFalse(run);
    };
  }

  #planVariable(node: NodeOf<"id">): Step {
    const slot = this.#variables.lastIndexOf(node.args);
    if (slot >= 0) return (run) => run.slots[slot] ?? wrongType;
    throw new FilterProblem(
      node.start,
      node.args === "request" ? "expected a field: request.…" : "this is not a value",
    );
  }

  #planField(node: NodeOf<".">): Step {
    const [owner, name] = node.args;
    if (isRequest(owner)) return this.#planRequestField(node, name);
    if (isGrpc(owner)) {
      if (name === "service") return (run) => run.view.grpc.service;
      if (name === "method") return (run) => run.view.grpc.method;
      throw new FilterProblem(node.pos, "request.grpc has service and method");
    }
    return planLookup(this.plan(owner), () => name, absent(node));
  }

  #planRequestField(node: Node, name: string): Step {
    if (name === "body") this.#needsBody = true;
    if (name === "grpc") throw new FilterProblem(node.pos, "expected request.grpc.service or request.grpc.method");
    const field = name as Exclude<keyof typeof requestSchema, "grpc">;
    if (!Object.hasOwn(requestSchema, field)) throw new FilterProblem(node.pos, unknownField(name));
    return (run) => run.view[field];
  }

  #planIndex(node: NodeOf<"[]">): Step {
    const [owner, index] = node.args;
    if (isRequest(owner) || isGrpc(owner)) throw new FilterProblem(index.start, "expected a field after a dot here");
    const key = this.plan(index);
    return planLookup(this.plan(owner), key, absent(node));
  }

  #planValues(nodes: readonly Node[], apply: (values: readonly Value[], meter: Meter) => Value): Step {
    return planOnValues(
      nodes.map((node) => this.plan(node)),
      apply,
    );
  }

  #planCall(node: NodeOf<"call">): Step {
    const [name, args] = node.args;
    if (name === "has") return this.#planHas(node);
    const apply = functions.get(name);
    if (apply === undefined) throw notAFunction(node, name);
    return this.#planValues(args, (values, meter) => apply(meter, ...values));
  }

  /** `has(request.headers.host)`: the last name is there. */
  #planHas(node: NodeOf<"call">): Step {
    const field = node.args[1][0];
    if (field?.op !== ".") throw new FilterProblem(node.start, "has() takes a field: has(request.headers.host)");
    const [owner, name] = field.args;
    if (isRequest(owner) || isGrpc(owner)) {
      if (!(isRequest(owner) && name === "grpc")) this.#planField(field); // for what it refuses
      return () => true;
    }
    return this.#planValues([owner], ([map]) => (map instanceof Map ? map.has(name) : wrongType));
  }

  #planMethod(node: NodeOf<"rcall">): Step {
    const [name, receiver, args] = node.args;
    const loop = planLoop(this, node);
    if (loop !== undefined) return loop;
    if (name === "matches") return this.#planMatches(receiver, args);
    const apply = methods.get(name);
    if (apply === undefined) throw notAFunction(node, name);
    return this.#planValues([receiver, ...args], (values, meter) => apply(meter, ...values));
  }

  /** A constant, so that it is compiled once, and so that no caller can send one. */
  #planMatches(receiver: Node, args: readonly Node[]): Step {
    const pattern = args[0];
    if (pattern?.op !== "value" || typeof pattern.args !== "string") {
      throw new FilterProblem(pattern?.start ?? receiver.end, "matches() takes its expression as a text in quotes");
    }
    const regex = compileRegexOf(pattern, pattern.args);
    this.#regexInstructions += regex.instructions;
    if (this.#regexInstructions > filterLimits.regexInstructions) {
      throw new FilterProblem(pattern.start, "the regular expressions of the filter are too large together");
    }
    return this.#planValues([receiver], ([value], meter) =>
      typeof value === "string" ? regex.test(value, meter) : wrongType,
    );
  }
}

/** The operands of a chain of `op`, flat. */
export function operandsOf(node: Node, op: "&&" | "||"): readonly Node[] {
  const flat: Node[] = [];
  const open: Node[] = [node];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    if (next.op === op) open.push(next.args[1], next.args[0]);
    else flat.push(next);
  }
  return flat;
}

export function isRequest(node: Node): boolean {
  return node.op === "id" && node.args === "request";
}

function isGrpc(node: Node): boolean {
  return node.op === "." && node.args[1] === "grpc" && isRequest(node.args[0]);
}

function planConstant(node: NodeOf<"value">): Step {
  const constant = node.args;
  if (typeof constant === "string" || typeof constant === "boolean") return () => constant;
  const number = typeof constant === "bigint" ? Number(constant) : Number.NaN;
  if (Number.isSafeInteger(number)) return () => number;
  throw new FilterProblem(node.start, "filters know texts, true and false, and whole numbers of up to 15 digits");
}

/** CEL's `&&` and `||`: the decisive value wins over failures on either side. */
function planJunction(steps: readonly Step[], decisive: boolean): Step {
  return (run) => {
    let failure: Failure | undefined;
    for (const step of steps) {
      const value = step(run);
      if (value === decisive) return decisive;
      if (value !== !decisive) failure = graver(failure, value instanceof Failure ? value : wrongType);
    }
    return failure ?? !decisive;
  };
}

function planOnValues(steps: readonly Step[], apply: (values: readonly Value[], meter: Meter) => Value): Step {
  return (run) => {
    const values: Value[] = [];
    for (const step of steps) {
      const value = step(run);
      if (value instanceof Failure) return value;
      values.push(value);
    }
    return apply(values, run.meter);
  };
}

function planLookup(owner: Step, key: Step, missing: Failure): Step {
  return (run) => {
    const container = owner(run);
    if (container instanceof Failure) return container;
    const at = key(run);
    if (at instanceof Failure) return at;
    if (container instanceof Map && typeof at === "string") return (container.get(at) as Value | undefined) ?? missing;
    if (Array.isArray(container) && typeof at === "number") return (container[at] as Value | undefined) ?? missing;
    return wrongType;
  };
}

function absent(node: Node): Failure {
  return new Failure("absent", `${node.input.slice(node.start, node.end).slice(0, 120)} is absent`);
}

function notAFunction(node: Node, name: string): FilterProblem {
  return new FilterProblem(node.start, unknownFunction(name));
}

function compileRegexOf(node: Node, pattern: string): ReturnType<typeof compileRegex> {
  try {
    return compileRegex(pattern);
  } catch (error) {
    if (!(error instanceof FilterProblem)) throw error;
    // the offset counts the expression's characters; in the quotes, escapes make it longer
    const source = node.input.slice(node.start, node.end);
    const part = pattern.slice(error.at, error.at + 2);
    const from = source.indexOf(part, error.at + 1);
    throw new FilterProblem(node.start + (from < 0 ? 0 : from), error.message);
  }
}
