// The project's text as the guards see it: a map from path to content, so that a planted violation is a map of one
// file. Scanning text covers type imports too, which a module graph does not.
import { globSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";

/** Path from the project's root to text. */
export type Tree = ReadonlyMap<string, string>;

export const projectRoot = join(import.meta.dirname, "..", "..");

export function readTree(): Tree {
  const patterns = ["{src,test,testbed,scripts,bench}/**/*.{ts,mjs,md}", "*.{md,json}", "docs/**/*.md"];
  const paths = globSync(patterns, { cwd: projectRoot, exclude: ["**/node_modules/**"] });
  const files = paths.filter((path) => path !== "package-lock.json" && statSync(join(projectRoot, path)).isFile());
  return new Map(files.sort().map((path) => [path, readFileSync(join(projectRoot, path), "utf8")]));
}

export function tree(files: Readonly<Record<string, string>>): Tree {
  return new Map(Object.entries(files));
}

export function isCode(path: string): boolean {
  return path.endsWith(".ts") || path.endsWith(".mjs");
}

/** Code that can end up in a bundle. */
export function isProduct(path: string): boolean {
  return path.startsWith("src/") && path.endsWith(".ts") && !/\.(test|fake|contract)\.ts$/.test(path);
}

/** The files of `tree` that `choose` takes, with their code but without comments and the insides of strings. */
export function codeOf(files: Tree, choose: (path: string) => boolean): readonly (readonly [string, string])[] {
  return [...files].filter(([path]) => choose(path)).map(([path, text]) => [path, blank(text, true)] as const);
}

/** Every module a file names: import, import type, export from, import(), require(); none that stands in a string. */
export const importsOf = once((text: string): readonly string[] => {
  const [code, withStrings] = [blank(text, true), blank(text, false)];
  const forms = /(?:\bfrom\s*|\bimport\s*\(?\s*|\brequire\w*\s*\(\s*)(["'])([^"'\n]+)\1/g;
  const matches = [...withStrings.matchAll(forms)].filter((match) => code.charAt(match.index) !== " ");
  return matches.map((match) => match[2] ?? "");
});

/** A slash after one of these begins a regular expression. */
const regexMayFollow = /(?:^|[(,=:[!&|?{};>+\n]|\breturn|\btypeof|\bcase)\s*$/;
/** Neither opens nor closes anything. */
const plain = /[^/"'`{}]+/y;
const comment = /\/\/[^\n]*|\/\*[^]*?(?:\*\/|$)/y;
const quoted = /"(?:\\[^]|[^"\\\n])*"?|'(?:\\[^]|[^'\\\n])*'?/y;
const regex = /\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+\/[a-z]*/y;
/** From a back-tick, or from the brace that closes a hole, to the next back-tick or hole. */
const template = /[`}](?:\\[^]|\$(?!\{)|[^`\\$])*(?:`|\$\{)?/y;

const withoutComments = once((text: string) => scan(text, false));
const withoutStrings = once((text: string) => scan(text, true));

/** Puts blanks for comments and, if asked, for what strings and regular expressions hold; lines stay where they are. */
export function blank(text: string, stringsToo: boolean): string {
  return stringsToo ? withoutStrings(text) : withoutComments(text);
}

/** Each guard, and each denial of one, looks at the same files: a text is scanned once. */
function once<T>(compute: (text: string) => T): (text: string) => T {
  const known = new Map<string, T>();
  return (text) => {
    const found = known.get(text);
    if (found !== undefined) return found;
    const computed = compute(text);
    known.set(text, computed);
    return computed;
  };
}

function scan(text: string, stringsToo: boolean): string {
  let out = "";
  /** One entry for each `${` that is open: the depth of braces inside it. */
  const holes: number[] = [];
  for (let at = 0; at < text.length;) {
    const inert = matchAt(plain, text, at);
    if (inert !== undefined) {
      out += inert;
      at += inert.length;
      continue;
    }
    const remark = matchAt(comment, text, at);
    const literal = remark === undefined ? literalAt(text, at, holes.at(-1) === 0, out) : undefined;
    const part = remark ?? literal ?? text.charAt(at);
    if (literal !== undefined) trackHole(holes, literal);
    else if (remark === undefined) trackBrace(holes, part);
    const hidden = remark !== undefined || (literal !== undefined && stringsToo);
    out += hidden ? part.replace(/[^\n]/g, " ") : part;
    at += part.length;
  }
  return out;
}

function literalAt(text: string, at: number, closesHole: boolean, before: string): string | undefined {
  const first = text.charAt(at);
  if (first === "`" || (first === "}" && closesHole)) return matchAt(template, text, at);
  if (first === "/") return regexMayFollow.test(before.slice(-20)) ? matchAt(regex, text, at) : undefined;
  return matchAt(quoted, text, at);
}

function trackHole(holes: number[], literal: string): void {
  if (literal.startsWith("}")) holes.pop();
  if (/^[`}][^]*\$\{$/.test(literal)) holes.push(0);
}

function trackBrace(holes: number[], part: string): void {
  const depth = holes.pop();
  if (depth === undefined) return;
  holes.push(depth + (part === "{" ? 1 : 0) - (part === "}" ? 1 : 0));
}

function matchAt(pattern: RegExp, text: string, at: number): string | undefined {
  pattern.lastIndex = at;
  return pattern.exec(text)?.[0];
}
