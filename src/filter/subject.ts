// Which single value of a request an expression names, for the overlap analysis: `request.method`,
// `request.headers["x-user"]`, `request.cookies.session`. A query parameter has several values and is none.
import { interceptIdHeader } from "./flags.ts";
import type { Node } from "./syntax.ts";

export interface Subject {
  /** Equal for equal subjects. */
  readonly key: string;
  /** The name within headers, cookies or baggage; else that of the field. */
  readonly name: string;
  /** For people. */
  readonly text: string;
}

const singleFields = new Set(["method", "path", "host"]);
const maps: Readonly<Record<string, string>> = { headers: "header", cookies: "cookie", baggage: "baggage" };

/** With `key`, `node` is the map that holds it. */
export function requestFieldOf(node: Node, key?: string): Subject | undefined {
  if (key !== undefined) {
    const map = fieldOf(node);
    return map === undefined ? undefined : entryOf(map, key);
  }
  const field = fieldOf(node);
  if (field !== undefined)
    return singleFields.has(field) ? { key: field, name: field, text: `the ${field}` } : undefined;
  if (node.op === "[]") {
    const [map, index] = node.args;
    return index.op === "value" && typeof index.args === "string" ? requestFieldOf(map, index.args) : undefined;
  }
  if (node.op !== ".") return undefined;
  const [owner, name] = node.args;
  if (fieldOf(owner) === "grpc") return { key: `grpc.${name}`, name, text: `the gRPC ${name}` };
  return requestFieldOf(owner, name);
}

function entryOf(map: string, key: string): Subject | undefined {
  const kind = maps[map];
  if (kind === undefined) return undefined;
  const name = map === "headers" ? key.toLowerCase() : key;
  if (name === interceptIdHeader && map !== "cookies") return { key: name, name, text: "the intercept's id" };
  return { key: `${map}.${name}`, name, text: `${kind} ${name}` };
}

/** `request.NAME` */
function fieldOf(node: Node): string | undefined {
  if (node.op !== "." || node.args[0].op !== "id" || node.args[0].args !== "request") return undefined;
  return node.args[1];
}
