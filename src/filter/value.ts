// What an expression can be at run time. A Failure is a value, not an exception, because `&&` and `||` go on past it
// (CEL: `failure || true` is true); only a spent budget is thrown, because nothing may go on after that.

/** `absent`: a key or index that is not there; `needs-body`: decidable only with the body; `unusable`: anything else. */
export type FailureKind = "absent" | "needs-body" | "unusable";

export class Failure {
  readonly kind: FailureKind;
  /** A clause for people: `request.headers["x-user"] is absent`. Never holds what a caller sent. */
  readonly reason: string;

  constructor(kind: FailureKind, reason: string) {
    this.kind = kind;
    this.reason = reason;
  }
}

export type Value = boolean | number | string | readonly Value[] | ReadonlyMap<string, Value> | Failure;

export const bodyNotRead = new Failure("needs-body", "request.body has not been read");
export const wrongType = new Failure("unusable", "a value has the wrong type");

/** Which of two failures is reported: one that the body could still settle wins. */
export function graver(first: Failure | undefined, second: Failure): Failure {
  if (first === undefined) return second;
  return first.kind !== "needs-body" && second.kind === "needs-body" ? second : first;
}

/** CEL's equality, deep for lists and maps. */
export function areEqual(left: Value, right: Value, meter: Meter): boolean {
  meter.spend(2);
  if (typeof left === "string" && typeof right === "string") {
    if (left.length === right.length) meter.spend(left.length >> 4);
    return left === right;
  }
  if (Array.isArray(left) && Array.isArray(right)) {
    return left.length === right.length && left.every((item, index) => areEqual(item, right[index], meter));
  }
  return left instanceof Map && right instanceof Map ? areEqualMaps(left, right, meter) : left === right;
}

function areEqualMaps(left: ReadonlyMap<string, Value>, right: ReadonlyMap<string, Value>, meter: Meter): boolean {
  if (left.size !== right.size) return false;
  for (const [key, value] of left) {
    const other = right.get(key);
    if (other === undefined || !areEqual(value, other, meter)) return false;
  }
  return true;
}

export class OverBudget extends Error {}

/** The budget of one evaluation. Thrown through everything when it is spent; `Filter` is where it ends. */
export class Meter {
  left: number;

  constructor(steps: number) {
    this.left = steps;
  }

  spend(steps: number): void {
    this.left -= steps;
    if (this.left < 0) throw new OverBudget();
  }
}
