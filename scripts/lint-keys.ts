// What lint says of a file depends on the file and on all that it imports, because rules ask for types and for circles.
// A file whose key was known when lint passed passes again.
import { createHash } from "node:crypto";
import { posix } from "node:path";

const specifier = /(?:\bfrom|\bimport)\s*\(?\s*["']([#.][^"']+)["']/g;
/** Types that reach files which do not import them. */
const reachesAll = /\bdeclare (?:module|global)\b/;

/**
 * A key for each source by its path from the project's root. `aliases` are package.json's `imports` that end in "*",
 * without it, and the folders they stand for. `common` is what every file depends on besides.
 */
export function keysOf(
  sources: ReadonlyMap<string, string>,
  aliases: ReadonlyMap<string, string>,
  common: string,
): ReadonlyMap<string, string> {
  const hashes = new Map([...sources].map(([path, text]) => [path, hashOf(text)]));
  const global = [...sources].filter(([, text]) => reachesAll.test(text)).map(([path]) => path);
  const imports = new Map([...sources].map(([path, text]) => [path, importsOf(path, text, aliases)]));
  const keyOf = (path: string): string => {
    const reached = new Set([path, ...global]);
    for (const each of reached) for (const imported of imports.get(each) ?? []) reached.add(imported);
    const parts = [...reached].toSorted().map((each) => `${each} ${hashes.get(each) ?? "missing"}`);
    return hashOf([common, path, ...parts].join("\n"));
  };
  return new Map([...sources.keys()].map((path) => [path, keyOf(path)]));
}

function importsOf(path: string, text: string, aliases: ReadonlyMap<string, string>): readonly string[] {
  return [...text.matchAll(specifier)].flatMap(([, name = ""]) => {
    if (name.startsWith(".")) return [posix.join(posix.dirname(path), name)];
    const end = name.indexOf("/") + 1;
    const folder = aliases.get(name.slice(0, end));
    return folder === undefined ? [] : [posix.join(folder, name.slice(end))];
  });
}

function hashOf(text: string): string {
  return createHash("sha1").update(text).digest("base64");
}
