// Can one request satisfy two filters? Answered from what each filter demands at least ("the method is GET", "the path
// begins with /api"); what is not understood demands nothing, so "no" is certain and "yes" means "may be". One
// exception is a decision: two personal intercepts are apart, although a request could carry both of their ids.
import type { Filter } from "./compile.ts";
import { interceptIdHeader, matchAll } from "./flags.ts";
import { filterLimits } from "./limits.ts";
import { operandsOf } from "./plan.ts";
import { compileRegex } from "./regex.ts";
import type { Regex } from "./regex.ts";
import { requestFieldOf } from "./subject.ts";
import type { Subject } from "./subject.ts";
import type { Node, NodeOf } from "./syntax.ts";
import { Meter, OverBudget } from "./value.ts";

export interface Overlap {
  readonly mayOverlap: boolean;
  /** A sentence without a full stop; "this" is the first filter, "the other" the second. */
  readonly reason: string;
}

/** Something a request has to have. */
type Demand =
  | { readonly kind: "one-of"; readonly values: readonly string[] }
  | { readonly kind: "none-of"; readonly values: readonly string[] }
  | { readonly kind: "prefix"; readonly prefix: string }
  | { readonly kind: "regex"; readonly pattern: string }
  | { readonly kind: "present" }
  | { readonly kind: "absent" };

interface Fact {
  readonly subject: Subject;
  readonly demand: Demand;
}

/** All facts of one way to satisfy the filter; a filter has several when it says "or". */
type Way = readonly Fact[];

const mostWays = 24;
const anything: readonly Way[] = [[]];

export function mayOverlap(one: Filter, other: Filter): Overlap {
  if (one.text === matchAll) return { mayOverlap: true, reason: "this filter takes every request" };
  if (other.text === matchAll) return { mayOverlap: true, reason: "the other filter takes every request" };
  if (one.text === other.text) return { mayOverlap: true, reason: "both filters are the same" };
  const patterns = new Patterns();
  let reason = "one of the filters takes no request";
  const others = waysOf(other.syntax, true);
  for (const way of waysOf(one.syntax, true)) {
    for (const otherWay of others) {
      const found = findContradiction(way, otherWay, patterns);
      if (found === undefined) return { mayOverlap: true, reason: "nothing in the two filters excludes the other" };
      reason = found;
    }
  }
  return { mayOverlap: false, reason };
}

/** The ways in which `node` can be `wanted`. */
function waysOf(node: Node, wanted: boolean): readonly Way[] {
  if (node.op === "!_") return waysOf(node.args, !wanted);
  if (node.op === "&&" || node.op === "||") {
    const each = operandsOf(node, node.op).map((operand) => waysOf(operand, wanted));
    return (node.op === "&&") === wanted ? allOf(each) : anyOf(each);
  }
  if (node.op === "value") return node.args === wanted ? anything : [];
  const fact = factOf(node, wanted);
  return fact === undefined ? anything : [[fact]];
}

/** Too many ways are given up by forgetting conditions, which errs to "may overlap". */
function allOf(each: readonly (readonly Way[])[]): readonly Way[] {
  let ways = anything;
  for (const next of each) {
    const product = ways.flatMap((way) => next.map((more) => [...way, ...more]));
    if (product.length <= mostWays) ways = product;
  }
  return ways;
}

function anyOf(each: readonly (readonly Way[])[]): readonly Way[] {
  const ways = each.flat();
  return ways.length <= mostWays ? ways : anything;
}

function factOf(node: Node, wanted: boolean): Fact | undefined {
  if (node.op === "==" || node.op === "!=") return factOfEquality(node, (node.op === "==") === wanted);
  if (node.op === "in") return factOfMembership(node, wanted);
  if (node.op === "rcall" && wanted) return factOfCall(node);
  return undefined;
}

function factOfEquality(node: NodeOf<"=="> | NodeOf<"!=">, equal: boolean): Fact | undefined {
  for (const [field, constant] of [node.args, [node.args[1], node.args[0]] as const]) {
    const subject = requestFieldOf(field);
    const value = textOf(constant);
    if (subject !== undefined && value !== undefined) return oneOf(subject, [value], equal);
  }
  return undefined;
}

/** `request.method in ["GET"]`, `"x" in request.headers` */
function factOfMembership(node: NodeOf<"in">, wanted: boolean): Fact | undefined {
  const [item, container] = node.args;
  const key = textOf(item);
  if (key !== undefined) {
    const subject = requestFieldOf(container, key);
    // the id of an intercept may stand in another place, so its absence here says nothing
    if (subject === undefined || (subject.name === interceptIdHeader && !wanted)) return undefined;
    return { subject, demand: { kind: wanted ? "present" : "absent" } };
  }
  const subject = requestFieldOf(item);
  const values = container.op === "list" ? container.args.map(textOf) : [undefined];
  if (subject === undefined || values.includes(undefined)) return undefined;
  return oneOf(subject, values as readonly string[], wanted);
}

function factOfCall(node: NodeOf<"rcall">): Fact | undefined {
  const [name, receiver, args] = node.args;
  const subject = requestFieldOf(receiver);
  const value = args[0] === undefined ? undefined : textOf(args[0]);
  if (subject === undefined || value === undefined) return undefined;
  if (name === "startsWith") return { subject, demand: { kind: "prefix", prefix: value } };
  return name === "matches" ? { subject, demand: { kind: "regex", pattern: value } } : undefined;
}

function oneOf(subject: Subject, values: readonly string[], wanted: boolean): Fact | undefined {
  if (wanted) return { subject, demand: { kind: "one-of", values } };
  return subject.name === interceptIdHeader ? undefined : { subject, demand: { kind: "none-of", values } };
}

function textOf(node: Node): string | undefined {
  return node.op === "value" && typeof node.args === "string" ? node.args : undefined;
}

function findContradiction(way: Way, other: Way, patterns: Patterns): string | undefined {
  for (const { subject, demand } of way) {
    for (const { subject: otherSubject, demand: otherDemand } of other) {
      if (subject.key !== otherSubject.key) continue;
      if (!excludes(demand, otherDemand, patterns) && !excludes(otherDemand, demand, patterns)) continue;
      return `${subject.text} ${inWords(demand)} here and ${inWords(otherDemand)} in the other filter`;
    }
  }
  return undefined;
}

function excludes(demand: Demand, other: Demand, patterns: Patterns): boolean {
  if (demand.kind === "absent") return other.kind !== "absent"; // every other demand is one on a value
  if (demand.kind === "one-of") return demand.values.every((value) => !satisfies(value, other, patterns));
  if (demand.kind !== "prefix" || other.kind !== "prefix") return false;
  return !demand.prefix.startsWith(other.prefix) && !other.prefix.startsWith(demand.prefix);
}

function satisfies(value: string, demand: Demand, patterns: Patterns): boolean {
  if (demand.kind === "one-of") return demand.values.includes(value);
  if (demand.kind === "none-of") return !demand.values.includes(value);
  if (demand.kind === "prefix") return value.startsWith(demand.prefix);
  return demand.kind === "regex" ? patterns.mayMatch(demand.pattern, value) : demand.kind === "present";
}

/** All patterns of one comparison, on one budget: whoever writes a filter must not hold up everybody's manager. */
class Patterns {
  readonly #meter = new Meter(filterLimits.steps);
  readonly #compiled = new Map<string, Regex>();

  /** True also when the budget is used up. */
  mayMatch(pattern: string, value: string): boolean {
    try {
      let regex = this.#compiled.get(pattern);
      if (regex === undefined) {
        this.#meter.spend(compileSteps);
        regex = compileRegex(pattern);
        this.#compiled.set(pattern, regex);
      }
      return regex.test(value, this.#meter);
    } catch (error) {
      if (error instanceof OverBudget) return true;
      throw error;
    }
  }
}

/** chosen: a compilation takes as long as so many steps of a match, or less. */
const compileSteps = 20_000;

function inWords(demand: Demand): string {
  switch (demand.kind) {
    case "one-of":
      return `is ${demand.values.map((value) => JSON.stringify(value)).join(" or ")}`;
    case "none-of":
      return `is not ${demand.values.map((value) => JSON.stringify(value)).join(" or ")}`;
    case "prefix":
      return `begins with ${JSON.stringify(demand.prefix)}`;
    case "regex":
      return `matches ${JSON.stringify(demand.pattern)}`;
    case "present":
      return "is there";
    case "absent":
      return "is absent";
  }
}
