// exists(), all(), exists_one(), filter() and map(): the loops of CEL, over a list or the keys of a map. Each round is
// paid for; the first two go on past failures as `||` and `&&` do, the others end with the first.
import { FilterProblem } from "./problem.ts";
import type { Planner, Run, Step } from "./plan.ts";
import type { Node, NodeOf } from "./syntax.ts";
import { Failure, graver, wrongType } from "./value.ts";
import type { Value } from "./value.ts";

/** What a loop does with the items that it is given. */
type Fold = (items: readonly Value[], body: (item: Value) => Value) => Value;

const folds: ReadonlyMap<string, Fold> = new Map<string, Fold>([
  ["exists", (items, body) => untilDecided(items, body, true)],
  ["all", (items, body) => untilDecided(items, body, false)],
  ["exists_one", existsOne],
  ["filter", keep],
  ["map", change],
]);

/** Undefined when `node` is no loop. */
export function planLoop(planner: Planner, node: NodeOf<"rcall">): Step | undefined {
  const [name, receiver, args] = node.args;
  const fold = folds.get(name);
  const [variable, ...rest] = args;
  if (fold === undefined || variable === undefined) return undefined;
  if (rest.length !== 1) throw new FilterProblem(node.start, `${name}() takes a name and an expression in a filter`);
  const list = planner.plan(receiver);
  return planner.planInside(variable, (slot) => {
    const body = planner.plan(rest[0] as Node);
    return (run) => loop(run, list(run), fold, (item) => ((run.slots[slot] = item), body(run)));
  });
}

function loop(run: Run, container: Value, fold: Fold, body: (item: Value) => Value): Value {
  if (container instanceof Failure) return container;
  if (container instanceof Map) {
    run.meter.spend(4 * container.size);
    return fold([...(container.keys() as Iterable<string>)], body);
  }
  return Array.isArray(container) ? fold(container as readonly Value[], body) : wrongType;
}

function untilDecided(items: readonly Value[], body: (item: Value) => Value, decisive: boolean): Value {
  let failure: Failure | undefined;
  for (const item of items) {
    const value = body(item);
    if (value === decisive) return decisive;
    if (value !== !decisive) failure = graver(failure, value instanceof Failure ? value : wrongType);
  }
  return failure ?? !decisive;
}

function existsOne(items: readonly Value[], body: (item: Value) => Value): Value {
  const kept = keep(items, body);
  return kept instanceof Failure ? kept : Array.isArray(kept) && kept.length === 1;
}

function keep(items: readonly Value[], body: (item: Value) => Value): Value {
  const kept: Value[] = [];
  for (const item of items) {
    const value = body(item);
    if (typeof value !== "boolean") return value instanceof Failure ? value : wrongType;
    if (value) kept.push(item);
  }
  return kept;
}

function change(items: readonly Value[], body: (item: Value) => Value): Value {
  const changed: Value[] = [];
  for (const item of items) {
    const value = body(item);
    if (value instanceof Failure) return value;
    changed.push(value);
  }
  return changed;
}
