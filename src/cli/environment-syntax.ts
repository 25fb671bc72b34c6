// Pure: the pod's environment in the languages that read it again, by the names of 2.20. A value comes out of each as it
// went in, or it is left out and named: not every language can say everything.
import { AppError } from "#base/error.ts";

export type Environment = Readonly<Record<string, string>>;

export interface EnvironmentText {
  readonly text: string;
  /** Variables that the language cannot express. */
  readonly leftOut: readonly string[];
}

/** A line; undefined where it cannot be said. */
type Line = (key: string, value: string) => string | undefined;

/** What shells take for the name of a variable. */
const shellName = /^[A-Za-z_]\w*$/;
const named =
  (name: RegExp, line: Line): Line =>
  (key, value) =>
    name.test(key) ? line(key, value) : undefined;

/** Between single quotes everything stands for itself but the single quote. */
const quoteSh = (value: string): string => `'${value.replaceAll("'", "'\\''")}'`;
/** As sh; history and line ends want a backslash there too. */
const quoteCsh = (value: string): string => `'${value.replaceAll("'", "'\\''").replace(/[!\n]/g, "\\$&")}'`;
const quotePs = (value: string): string => `'${value.replaceAll("'", "''")}'`;

const lines = {
  compose: (key, value) => `${key}=${quoteCompose(value)}`,
  // `docker run --env-file` takes a line as it is: no quotes, no escapes
  docker: (key, value) => (/[\r\n]/.test(value) || /^#|\s/.test(key) ? undefined : `${key}=${value}`),
  sh: named(shellName, (key, value) => `${key}=${quoteSh(value)}`),
  "sh:export": named(shellName, (key, value) => `export ${key}=${quoteSh(value)}`),
  csh: named(shellName, (key, value) => `set ${key}=${quoteCsh(value)}`),
  "csh:export": named(shellName, (key, value) => `setenv ${key} ${quoteCsh(value)}`),
  ps: (key, value) => `$Env:${shellName.test(key) ? key : `{${key}}`}=${quotePs(value)}`,
  "ps:export": (key, value) => `[Environment]::SetEnvironmentVariable(${quotePs(key)}, ${quotePs(value)}, 'User')`,
  cmd: (key, value) => (/[\r\n"]/.test(value) ? undefined : `set "${key}=${value.replaceAll("%", "%%")}"`),
} as const satisfies Readonly<Record<string, Line>>;

export const environmentSyntaxes = [...Object.keys(lines), "json"];
export type EnvironmentSyntax = keyof typeof lines | "json";

/** The flag; compose when it is left out, as versions 2.0 and 2.1 wrote it. */
export function readEnvironmentSyntax(flag: string | undefined): EnvironmentSyntax {
  const syntax = environmentSyntaxes.find((name) => name === (flag ?? "compose"));
  if (syntax !== undefined) return syntax as EnvironmentSyntax;
  throw new AppError("usage", `--env-syntax is "${flag}", expected one of ${environmentSyntaxes.join(", ")}`);
}

/** Sorted by name. */
export function formatEnvironment(environment: Environment, syntax: EnvironmentSyntax): EnvironmentText {
  const sorted = Object.entries(environment).toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  if (syntax === "json") {
    return { text: `${JSON.stringify(Object.fromEntries(sorted), undefined, 2)}\n`, leftOut: [] };
  }
  const line: Line = lines[syntax];
  const said = sorted.map(([key, value]) => [key, line(key, value)] as const);
  return {
    text: said.map(([, text]) => (text === undefined ? "" : `${text}\n`)).join(""),
    leftOut: said.filter(([, text]) => text === undefined).map(([key]) => key),
  };
}

/**
 * Compose reads an unquoted value up to ` #`, trims it and replaces `$NAME`. Single quotes keep everything but a single
 * quote itself; double quotes keep that, with backslash, dollar, quote and line end escaped.
 */
function quoteCompose(value: string): string {
  if (!/[\n\r$`\\]|^\s|\s$|^["']|(^|\s)#/.test(value)) return value;
  if (!/['\r]|\\$/.test(value)) return `'${value}'`;
  const escaped = value
    .replace(/["\\$]/g, "\\$&")
    .replaceAll("\n", "\\n")
    .replaceAll("\r", "\\r");
  return `"${escaped}"`;
}

/** Without the variables of these names, `*` standing for any letters. */
export function withoutNames(environment: Environment, patterns: readonly string[]): Environment {
  const texts = patterns.map((pattern) => pattern.replace(/[^\w*]/g, "\\$&").replaceAll("*", ".*"));
  const excluded = new RegExp(`^(${texts.join("|")})$`, "s");
  if (patterns.length === 0) return environment;
  return Object.fromEntries(Object.entries(environment).filter(([key]) => !excluded.test(key)));
}
