// CEL text to a checked syntax tree, by the library: grammar, macros and static types. What it says is put into words
// that fit a filter. The library's own evaluator is not used, see plan.ts.
import { Environment, ParseError, TypeError as CelTypeError } from "@marcbachmann/cel-js";
import type { ASTNode } from "@marcbachmann/cel-js";
import { functions, methods } from "./functions.ts";
import { filterLimits } from "./limits.ts";
import { FilterProblem } from "./problem.ts";
import { requestSchema } from "./request-view.ts";
import { utf8Length } from "./text.ts";

export type Node = ASTNode;
export type NodeOf<Op extends Node["op"]> = Extract<Node, { readonly op: Op }>;

const environment = new Environment({
  limits: {
    maxAstNodes: filterLimits.nodes,
    maxDepth: filterLimits.depth,
    maxListElements: filterLimits.listElements,
    maxMapEntries: 1,
    maxCallArguments: 4,
  },
}).registerVariable({ name: "request", schema: requestSchema });

const fieldNames = Object.keys(requestSchema).join(", ");

/** Throws a FilterProblem. What is returned is an expression whose value is a bool. */
export function parseFilter(text: string): Node {
  const bytes = utf8Length(text);
  if (bytes > filterLimits.textBytes) {
    throw new FilterProblem(0, `the filter has ${bytes} bytes; expected at most ${filterLimits.textBytes}`);
  }
  if (text.trim() === "") throw new FilterProblem(0, "the filter is empty; expected an expression, or true for all");
  const parsed = parse(text);
  const { type, error } = parsed.check();
  if (error !== undefined) throw translate(error, text);
  if (type !== "bool") {
    throw new FilterProblem(parsed.ast.start, `the filter gives ${nameOfType(type)}; expected true or false`);
  }
  return parsed.ast;
}

function parse(text: string): ReturnType<Environment["parse"]> {
  try {
    return environment.parse(text);
  } catch (error) {
    throw translate(error, text);
  }
}

function translate(error: unknown, text: string): FilterProblem {
  if (!(error instanceof ParseError) && !(error instanceof CelTypeError)) throw error;
  const at = error.range?.start ?? 0;
  const { code, summary } = error;
  if (code === "unexpected_character" && text[at] === "=") return new FilterProblem(at, "expected == to compare");
  const reason = reasons[code];
  return new FilterProblem(at, reason === undefined ? inWords(summary) : reason(summary));
}

const afterColon = (summary: string): string => summary.slice(summary.indexOf(": ") + 2);

/** By the library's codes; all others are put into words. */
const reasons: Readonly<Record<string, (summary: string) => string>> = {
  unknown_variable: (summary) => unknownName(afterColon(summary)),
  no_such_key: (summary) => unknownField(afterColon(summary)),
  no_matching_overload: wrongCall,
  limit_exceeded: (summary) => `the filter is too large (${summary})`,
};

function unknownName(name: string): string {
  return Object.hasOwn(requestSchema, name)
    ? `${name} is not known by itself; expected request.${name}`
    : `${name.slice(0, 40)} is not known; a filter looks at request.…: ${fieldNames}`;
}

export function unknownField(name: string): string {
  return `a request has no field ${name.slice(0, 40)}; it has ${fieldNames}`;
}

const functionNames = new Set([
  "matches",
  ...methods.keys(),
  ...functions.keys(),
  "exists",
  "all",
  "filter",
  "map",
  "has",
]);

export function unknownFunction(name: string): string {
  return `${name.slice(0, 40)}() is not a function of filters; those are ${[...functionNames].join(", ")}`;
}

/** `found no matching overload for 'string.contains(int)'` */
function wrongCall(summary: string): string {
  const [, call = "", name = ""] = /'((?:.*\.)?(\w+)\(.*\))'$/.exec(summary) ?? [];
  return functionNames.has(name) ? `${name}() does not take this: ${call.slice(0, 80)}` : unknownFunction(name);
}

const tokens: Readonly<Record<string, string>> = {
  EOF: "the end",
  NUMBER: "a number",
  STRING: "a text",
  BOOLEAN: "true or false",
  NULL: "null",
  IDENTIFIER: "a name",
  BYTES: "bytes",
  IN: "in",
  NOT: "!",
  AND: "&&",
  OR: "||",
  EQ: "==",
  NE: "!=",
  LT: "<",
  LE: "<=",
  GT: ">",
  GE: ">=",
  PLUS: "+",
  MINUS: "-",
  MULTIPLY: "*",
  DIVIDE: "/",
  MODULO: "%",
  LPAREN: "(",
  RPAREN: ")",
  LBRACKET: "[",
  RBRACKET: "]",
  LBRACE: "{",
  RBRACE: "}",
  DOT: ".",
  COMMA: ",",
  COLON: ":",
  QUESTION: "?",
};

/** The library speaks of tokens; people see characters. */
function inWords(summary: string): string {
  const words = summary
    .replace("Unexpected token: EOF", "unexpected end")
    .replace("Unexpected token: ", "unexpected ")
    .replace(/\b[A-Z]{2,}\b/g, (name) => tokens[name] ?? name);
  return `${words.charAt(0).toLowerCase()}${words.slice(1, 200)}`;
}

function nameOfType(type: string | undefined): string {
  return type === undefined || type === "dyn" ? "a value of any type" : `${/^[aeiou]/.test(type) ? "an" : "a"} ${type}`;
}
