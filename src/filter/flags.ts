// The familiar flags as shorthand for CEL: all of them together are one expression, their conditions joined by `&&`.
// Values become literals through `quote`, so no value can end its literal and say something else. Every regular
// expression and every --match is compiled alone first: what is wrong is told with its flag, before anything is touched.
import { AppError } from "#base/error.ts";
import { compileFilter } from "./compile.ts";
import { FilterProblem, isPrintable, pointAt } from "./problem.ts";
import { compileRegex } from "./regex.ts";
import { isToken, normalizePath } from "./text.ts";

/** As typed; the names are those of the flags in camel case. */
export interface FilterFlags {
  /** `NAME=REGEX` (the whole value matches), `auto` or `all`; all of them must hold. */
  readonly httpHeader?: readonly string[];
  readonly httpPathEqual?: string;
  readonly httpPathPrefix?: string;
  /** The whole path matches. */
  readonly httpPathRegex?: string;
  /** One of them. */
  readonly httpMethod?: readonly string[];
  /** `NAME=REGEX`: one of the parameter's values matches as a whole; all of them must hold. */
  readonly httpQuery?: readonly string[];
  /** Some part of the body matches. */
  readonly httpBody?: string;
  /** `service/method` or `service/*`; one of them. */
  readonly grpcMethod?: readonly string[];
  /** CEL; all of them must hold. */
  readonly match?: readonly string[];
}

/** Names the one for whom a request is meant; services hand it on like a trace's identifier, or in `baggage`. */
export const interceptIdHeader = "x-telepresence-intercept-id";

/** Everything: what an intercept without any filter has. */
export const matchAll = "true";

/** Throws an AppError (`usage`). The text is compiled already, so it is a filter; `interceptId` is what `auto` means. */
export function compileFlags(flags: FilterFlags, interceptId?: string): string {
  const conditions = [
    ...(flags.httpMethod === undefined ? [] : methodCondition(flags.httpMethod)),
    ...pathConditions(flags),
    ...(flags.httpHeader ?? []).flatMap((value) => headerCondition(value, interceptId)),
    ...(flags.httpQuery ?? []).map(queryCondition),
    ...(flags.grpcMethod === undefined ? [] : grpcCondition(flags.grpcMethod)),
    ...(flags.match ?? []).map(matchCondition),
    // last, so that a request is decided without reading its body where possible
    ...(flags.httpBody === undefined
      ? []
      : [matches("request.body", checkRegex("--http-body", flags.httpBody, flags.httpBody))]),
  ];
  return compileFilter(joinConditions(conditions), "the filter of all flags together").text;
}

interface Condition {
  readonly text: string;
  /** Needs parentheses beside others. */
  readonly loose: boolean;
}

function joinConditions(conditions: readonly Condition[]): string {
  if (conditions.length === 0) return matchAll;
  const alone = conditions.length === 1;
  return conditions.map(({ text, loose }) => (loose && !alone ? inParentheses(text) : text)).join(" && ");
}

function tight(text: string): Condition {
  return { text, loose: false };
}

/** A comment at the end of a --match would swallow the parenthesis; then it stands on the next line. */
function inParentheses(text: string): string {
  return text.includes("//") ? `(${text}\n)` : `(${text})`;
}

function methodCondition(methods: readonly string[]): readonly Condition[] {
  const known = methods.map((method) => {
    if (!isToken(method)) throw usage("--http-method", method, "a method such as GET");
    const upper = method.toUpperCase();
    return standardMethods.has(upper) ? upper : method;
  });
  if (known.length === 0) return [];
  const [first = ""] = known;
  if (known.length === 1) return [tight(`request.method == ${quote(first)}`)];
  return [tight(`request.method in [${known.map((method) => quote(method)).join(", ")}]`)];
}

const standardMethods = new Set(["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]);

function pathConditions(flags: FilterFlags): readonly Condition[] {
  const { httpPathEqual: equal, httpPathPrefix: prefix, httpPathRegex: regex } = flags;
  const conditions: Condition[] = [];
  if (equal !== undefined) {
    conditions.push(tight(`request.path == ${quote(checkPath("--http-path-equal", equal))}`));
  }
  if (prefix !== undefined) {
    conditions.push(tight(`request.path.startsWith(${quote(checkPath("--http-path-prefix", prefix))})`));
  }
  if (regex !== undefined) {
    conditions.push(matches("request.path", checkRegex("--http-path-regex", regex, regex), "whole"));
  }
  return conditions;
}

function checkPath(flag: string, path: string): string {
  if (!path.startsWith("/")) throw usage(flag, path, 'a path beginning with "/"');
  if (path.includes("?")) throw usage(flag, path, "a path without a query; see --http-query");
  checkText(flag, path);
  return normalizePath(path);
}

function headerCondition(flag: string, interceptId: string | undefined): readonly Condition[] {
  if (flag === "all") return [];
  if (flag === "auto") return [autoCondition(interceptId)];
  const [, name = "", value] = /^([^=:]*)(?:=|:[ \t]*)([^]*)$/.exec(flag) ?? [];
  if (value === undefined || !isToken(name)) throw usage("--http-header", flag, "NAME=REGEX, auto or all");
  const header = `request.headers[${quote(name.toLowerCase())}]`;
  if (value === ".*") return [tight(`${quote(name.toLowerCase())} in request.headers`)];
  const regex = checkRegex("--http-header", flag, value);
  return [isPlain(regex) ? tight(`${header} == ${quote(regex)}`) : matches(header, regex, "whole")];
}

function autoCondition(interceptId: string | undefined): Condition {
  if (interceptId === undefined || interceptId === "") {
    throw usage("--http-header", "auto", "an intercept that has an id already");
  }
  const id = quote(interceptId);
  const name = quote(interceptIdHeader);
  return { text: `request.headers[${name}] == ${id} || request.baggage[${name}] == ${id}`, loose: true };
}

function queryCondition(flag: string): Condition {
  const at = flag.indexOf("=");
  if (at < 1) throw usage("--http-query", flag, "NAME=REGEX");
  const name = checkText("--http-query", flag.slice(0, at));
  const regex = checkRegex("--http-query", flag, flag.slice(at + 1));
  const parameter = `request.query[${quote(name)}]`;
  if (isPlain(regex)) return tight(`${parameter}.exists(v, v == ${quote(regex)})`);
  return tight(`${parameter}.exists(v, ${matches("v", regex, "whole").text})`);
}

function grpcCondition(values: readonly string[]): readonly Condition[] {
  const each = values.map((value) => {
    const [, service = "", method = ""] = /^\/?([^/\s]+)\/([^/\s]+)$/.exec(value) ?? [];
    if (service === "" || service === "*") throw usage("--grpc-method", value, "SERVICE/METHOD or SERVICE/*");
    checkText("--grpc-method", value);
    const isService = `request.grpc.service == ${quote(normalizePath(service))}`;
    return method === "*" ? isService : `${isService} && request.grpc.method == ${quote(normalizePath(method))}`;
  });
  const [first] = each;
  if (first === undefined) return [];
  return each.length === 1 ? [tight(first)] : [{ text: each.join(" || "), loose: true }];
}

function matchCondition(text: string): Condition {
  const filter = compileFilter(text.trim(), "--match");
  return { text: filter.text, loose: filter.syntax.op === "||" || filter.syntax.op === "?:" || text.includes("//") };
}

function matches(subject: string, regex: string, part: "whole" | "some" = "some"): Condition {
  return tight(`${subject}.matches(${quoteRegex(part === "whole" ? wholeOf(regex) : regex)})`);
}

/** A regular expression may leave a \Q open, which would take the parenthesis for text. */
function wholeOf(regex: string): string {
  const whole = `^(?:${regex})$`;
  try {
    compileRegex(whole);
    return whole;
  } catch {
    return `^(?:${regex}\\E)$`; // alone it is right, `checkRegex` has seen to that
  }
}

/** `shown` is the flag's value, at whose end the expression stands. Compiled alone: "a)|(b" is wrong, not clever. */
function checkRegex(flag: string, shown: string, regex: string): string {
  checkText(flag, regex);
  try {
    compileRegex(regex);
    return regex;
  } catch (error) {
    if (!(error instanceof FilterProblem)) throw error;
    const offset = shown.length - regex.length;
    throw pointAt(flag, shown, new FilterProblem(offset + error.at, error.message));
  }
}

/** No character with a meaning in a regular expression. */
function isPlain(regex: string): boolean {
  return !/[\\^$.|?*+()[\]{}]/.test(regex);
}

function checkText(flag: string, value: string): string {
  if (!value.isWellFormed()) throw usage(flag, JSON.stringify(value), "well-formed Unicode");
  return value;
}

function usage(flag: string, value: string, expected: string): AppError {
  return new AppError("usage", `${flag} is ${JSON.stringify(value.slice(0, 200))}; expected ${expected}`);
}

/** Backslashes are common in regular expressions, and easier to read in a raw literal. */
function quoteRegex(regex: string): string {
  return regex.includes("\\") && /^[\x20-\x7e]*$/.test(regex) && !regex.includes('"') ? `r"${regex}"` : quote(regex);
}

/** A CEL literal that means exactly `text`; what a terminal would not show as it is, is escaped. */
export function quote(text: string): string {
  let literal = "";
  for (const char of text) {
    if (char === '"' || char === "\\") literal += `\\${char}`;
    else if (isPrintable(char)) literal += char;
    else literal += escapeOf(char.codePointAt(0) as number);
  }
  return `"${literal}"`;
}

function escapeOf(point: number): string {
  if (point === 10) return "\\n";
  if (point === 9) return "\\t";
  const hex = point.toString(16).toUpperCase();
  return point > 0xffff ? `\\U${hex.padStart(8, "0")}` : `\\u${hex.padStart(4, "0")}`;
}
