// The operators with two sides, except `&&` and `||`. CEL's int has 64 bits; here it has the 53 that are exact, and
// what leaves them fails.
import type { Node } from "./syntax.ts";
import { areEqual, Failure, wrongType } from "./value.ts";
import type { Meter, Value } from "./value.ts";

const overflow = new Failure("unusable", "a number is too large, or divided by zero");
/** More than any request holds; texts only grow by `+`. */
const longestText = 256 * 1024;
const tooLong = new Failure("unusable", "a text has become too long");

export type Operator = (left: Value, right: Value, meter: Meter) => Value;

const addNumbers = onNumbers((left, right) => left + right);

export const operators: { readonly [Op in Node["op"]]?: Operator } = {
  "==": areEqual,
  "!=": (left, right, meter) => !areEqual(left, right, meter),
  in: isIn,
  "<": ordered((order) => order < 0),
  "<=": ordered((order) => order <= 0),
  ">": ordered((order) => order > 0),
  ">=": ordered((order) => order >= 0),
  "+": add,
  "-": onNumbers((left, right) => left - right),
  "*": onNumbers((left, right) => left * right),
  "/": onNumbers((left, right) => Math.trunc(left / right)),
  "%": onNumbers((left, right) => left % right),
};

function isIn(item: Value, container: Value, meter: Meter): Value {
  if (container instanceof Map) return typeof item === "string" ? container.has(item) : wrongType;
  return Array.isArray(container) ? container.some((other) => areEqual(item, other as Value, meter)) : wrongType;
}

function ordered(holds: (order: number) => boolean): Operator {
  return (left, right, meter) => {
    const order = orderOf(left, right, meter);
    return order === undefined ? wrongType : holds(order);
  };
}

function onNumbers(calculate: (left: number, right: number) => number): Operator {
  return (left, right) => {
    if (typeof left !== "number" || typeof right !== "number") return wrongType;
    const result = calculate(left, right);
    return Number.isSafeInteger(result) ? result : overflow;
  };
}

/** Texts by code point, numbers by value. */
function orderOf(left: Value, right: Value, meter: Meter): number | undefined {
  if (typeof left === "number" && typeof right === "number") return left - right;
  if (typeof left === "boolean" && typeof right === "boolean") return Number(left) - Number(right);
  if (typeof left !== "string" || typeof right !== "string") return undefined;
  meter.spend(Math.min(left.length, right.length) >> 2);
  return orderOfTexts(left, right);
}

function orderOfTexts(left: string, right: string): number {
  const shorter = Math.min(left.length, right.length);
  for (let at = 0; at < shorter; at++) {
    if (left.charCodeAt(at) === right.charCodeAt(at)) continue;
    return (left.codePointAt(at) as number) - (right.codePointAt(at) as number);
  }
  return left.length - right.length;
}

function add(left: Value, right: Value, meter: Meter): Value {
  if (typeof left === "string" && typeof right === "string") {
    meter.spend((left.length + right.length) >> 2);
    return left.length + right.length > longestText ? tooLong : left + right;
  }
  if (Array.isArray(left) && Array.isArray(right)) {
    meter.spend(4 * (left.length + right.length));
    return [...(left as readonly Value[]), ...(right as readonly Value[])];
  }
  return addNumbers(left, right, meter);
}
