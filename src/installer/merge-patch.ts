// JSON merge patch (RFC 7386) between two JSON values: objects field by field, arrays whole, a removed field as null.

type Json = Readonly<Record<string, unknown>>;

/** Undefined when they are equal. */
export function mergePatch(before: unknown, after: unknown): unknown {
  if (equalJson(before, after)) return undefined;
  if (!isObject(before) || !isObject(after)) return after;
  const patch: Record<string, unknown> = {};
  for (const key of Object.keys(before)) if (after[key] === undefined && before[key] !== undefined) patch[key] = null;
  for (const [key, value] of Object.entries(after)) {
    const difference = mergePatch(before[key], value);
    if (difference !== undefined) patch[key] = difference;
  }
  return patch;
}

export function equalJson(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (Array.isArray(a) && Array.isArray(b)) {
    return a.length === b.length && a.every((item, index) => equalJson(item, b[index]));
  }
  if (!isObject(a) || !isObject(b)) return false;
  const keys = new Set([...Object.keys(a), ...Object.keys(b)]);
  return [...keys].every((key) => equalJson(a[key], b[key]));
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
