// docs/traps.md says which tests keep each trap shut; what it names is there. A test that gets another name takes its
// line along.
//
//   ## 26. Title
//   - what went wrong
//     - `test/x.test.ts`: name of a test or of a describe(), as it stands in the file
import type { Tree } from "./source.ts";

const page = "docs/traps.md";
const [first, last] = [1, 58];

/** Each trap has its stories, each story its tests, and each test exists. */
export function checkTraps(files: Tree): readonly string[] {
  const sections = (files.get(page) ?? "").split(/^## /m).slice(1);
  const numbers = new Set(sections.map((section) => Number.parseInt(section, 10)));
  const wanted = Array.from({ length: last - first + 1 }, (_, index) => first + index);
  const missing = wanted.filter((number) => !numbers.has(number)).map((number) => `${page} lacks trap ${number}`);
  return [...missing, ...sections.flatMap((section) => checkSection(section, files))];
}

function checkSection(section: string, files: Tree): readonly string[] {
  const [title = "", ...stories] = section.split(/^- /m);
  if (stories.length === 0) return [`${page}: "${title.trim()}" has no story`];
  return stories.flatMap((story) => {
    const tests = [...story.matchAll(/^ {2}- `([^`]+)`: (.+)$/gm)];
    if (tests.length === 0) return [`${page}: no test for "${story.split("\n")[0]}"`];
    return tests.flatMap(([, path = "", name = ""]) =>
      hasTest(files.get(path), name) ? [] : [`${page}: ${path} has no test "${name}"`],
    );
  });
}

/** As the first argument of a call that defines tests: `test("…`, `describe.each(…)("…`. */
function hasTest(text: string | undefined, name: string): boolean {
  const quoted = [`"${name}"`, `\`${name}\``].map((literal) => literal.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return text !== undefined && new RegExp(`(?:\\b(?:test|describe)|\\))\\(\\s*(?:${quoted.join("|")})`).test(text);
}
