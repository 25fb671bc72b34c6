// Lint for `npm run check`: of the files that may have become wrong since it passed. After a change of one part that is a
// tenth of the time; after one of what all use, as much as ever. `oxlint` alone looks at everything.
import { globSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { projectRoot } from "./bundle.ts";
import { keysOf } from "./lint-keys.ts";
import { runInherited } from "./process.ts";

const passedFile = join(projectRoot, "node_modules", ".cache", "lint-passed.json");
/** Rules, options, and the types of packages. */
const commonFiles = [
  ".oxlintrc.json",
  "tsconfig.json",
  "src/dashboard/tsconfig.json",
  "package.json",
  "package-lock.json",
];

const textOf = (path: string): string => readFileSync(join(projectRoot, path), "utf8");
const paths = globSync("**/*.{ts,tsx,mjs}", { cwd: projectRoot, exclude: ["node_modules", "dist", "coverage"] });
const sources = new Map(paths.map((path) => [path, textOf(path)]));
const { imports } = JSON.parse(textOf("package.json")) as { readonly imports: Readonly<Record<string, string>> };
const aliases = new Map(Object.entries(imports).map(([name, target]) => [name.slice(0, -1), target.slice(0, -1)]));
const keys = keysOf(sources, aliases, commonFiles.map(textOf).join("\n"));

const passed = new Set(readPassed());
const changed = [...keys].filter(([, key]) => !passed.has(key)).map(([path]) => path);
process.exitCode = changed.length === 0 ? 0 : await runInherited("oxlint", changed.length === keys.size ? [] : changed);
if (process.exitCode === 0) {
  mkdirSync(dirname(passedFile), { recursive: true });
  writeFileSync(passedFile, JSON.stringify([...keys.values()]));
}

function readPassed(): readonly string[] {
  try {
    return JSON.parse(readFileSync(passedFile, "utf8")) as readonly string[];
  } catch {
    return []; // not there yet, or half written
  }
}
