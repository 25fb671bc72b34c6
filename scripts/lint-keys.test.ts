import { expect, test } from "vitest";
import { keysOf } from "./lint-keys.ts";

const project = {
  "src/base/error.ts": "export class AppError {}",
  "src/base/abort.ts": 'import { AppError } from "./error.ts";',
  "src/cli/main.ts": 'import type { Abort } from "#base/abort.ts";\nawait import("./late.ts");',
  "src/cli/late.ts": "export {};",
  "src/cli/alone.ts": 'export * from "node:fs";',
  "test/programs.ts": 'declare module "vitest" {}',
};
const aliases = new Map([["#base/", "./src/base/"]]);

/** The files whose keys differ from the project's. */
function differing(change: Record<string, string | undefined>, common = "rules"): readonly string[] {
  const now = Object.entries({ ...project, ...change }).flatMap(([path, text]) =>
    text === undefined ? [] : [[path, text] as const],
  );
  const before = keysOf(new Map(Object.entries(project)), aliases, "rules");
  const after = keysOf(new Map(now), aliases, common);
  return [...after].filter(([path, key]) => before.get(path) !== key).map(([path]) => path);
}

test("a file's key is another when it, what it imports, or what all depend on is another", () => {
  expect(differing({})).toEqual([]);
  expect(differing({ "src/cli/alone.ts": "export {};" })).toEqual(["src/cli/alone.ts"]);
  expect(differing({ "src/cli/late.ts": "await 1;" })).toEqual(["src/cli/main.ts", "src/cli/late.ts"]);
  expect(differing({ "src/base/error.ts": "export type AppError = any;" })).toEqual([
    "src/base/error.ts",
    "src/base/abort.ts",
    "src/cli/main.ts",
  ]);
  expect(differing({ "src/cli/late.ts": undefined })).toEqual(["src/cli/main.ts"]);
  expect(differing({ "src/cli/new.ts": "" })).toEqual(["src/cli/new.ts"]);
  expect(differing({ "test/programs.ts": 'declare module "vitest" { interface A {} }' })).toHaveLength(6);
  expect(differing({}, "other rules")).toHaveLength(6);
});
