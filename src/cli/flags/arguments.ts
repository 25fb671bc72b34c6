// The command line before commander sees it: the user's own command after `--` is set aside, and booleans in the form
// that kubectl's flags allow, `--name=false`, become the switches that commander knows.

export interface SplitArguments {
  readonly own: readonly string[];
  /** Words after the first `--`; undefined without one. */
  readonly command: readonly string[] | undefined;
}

/** Switches that may be written `--name=true`; `off` is the opposite where leaving it out does not mean that. */
const switches: ReadonlyMap<string, string | undefined> = new Map([
  ["--insecure-skip-tls-verify", undefined],
  ["--verbose", undefined],
  ["--no-report", undefined],
  ["--debug", undefined],
  ["--intercepts", undefined],
  ["--ingests", undefined],
  ["--agents", undefined],
  ["--only-interceptable", "--no-only-interceptable"],
  ["-o", "--no-only-interceptable"],
  ["--detailed-output", undefined],
  ["--all-agents", undefined],
  ["--everything", undefined],
  ["--stop-daemons", undefined],
  ["--preview-url", "--no-preview-url"],
  ["-u", "--no-preview-url"],
  ["--preview-url-banner", "--no-preview-url-banner"],
  ["-b", "--no-banner"],
  ["--banner", "--no-banner"],
  ["--ingress-tls", "--no-ingress-tls"],
  ["--ingress-insecure", undefined],
]);

const truths = new Set(["true", "t", "1", "TRUE", "True", "T"]);
const falsehoods = new Set(["false", "f", "0", "FALSE", "False", "F"]);

export function splitArguments(argv: readonly string[]): SplitArguments {
  const end = argv.indexOf("--");
  const own = end === -1 ? argv : argv.slice(0, end);
  return { own: own.flatMap(normalizeSwitch), command: end === -1 ? undefined : argv.slice(end + 1) };
}

function normalizeSwitch(word: string): readonly string[] {
  const equals = word.indexOf("=");
  const name = word.slice(0, equals);
  if (equals === -1 || !switches.has(name)) return [word];
  const value = word.slice(equals + 1);
  if (truths.has(value)) return [name];
  const off = switches.get(name);
  if (falsehoods.has(value)) return off === undefined ? [] : [off];
  return [word];
}
