// The rules of ARCHITECTURE.md and CONTRIBUTING.md, held against the project's text. Each guard is shown a planted
// violation first: a guard that cannot fail is decoration.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { bundle, programs } from "#scripts/bundle.ts";
import { checkBundle, checkStart } from "./architecture/bundles.ts";
import { checkDenials, checkHeaders, checkNames } from "./architecture/denials.ts";
import { checkDependencies, checkExitCodes, checkMap, checkVersion } from "./architecture/documents.ts";
import { checkDirections, checkImports, checkOutside } from "./architecture/ladder.ts";
import { checkReadmes, checkRungs, checkSpecifiers } from "./architecture/ladder.ts";
import { blank, importsOf, projectRoot, readTree, tree } from "./architecture/source.ts";
import type { Tree } from "./architecture/source.ts";
import { checkTraps } from "./architecture/traps.ts";
import { checkTags, checkWalks } from "./architecture/walks.ts";

interface Guard {
  readonly rule: string;
  readonly check: (files: Tree) => readonly string[];
  /** Violations, each a tree of its own with a piece of the complaint it must raise. */
  readonly planted: readonly (readonly [Readonly<Record<string, string>>, string])[];
}

const packageJson = (extra: object): string => JSON.stringify({ version: "1.0.0", ...extra });
const wireReadme = { "src/wire/README.md": "# wire\n\nImports: base\n" };
const agentReadme = { "src/agent/README.md": "# agent\n\nImports: wire, base\n" };

const guards: readonly Guard[] = [
  {
    rule: "each folder of src/ has a short README with its Imports line",
    check: checkReadmes,
    planted: [
      [{ "src/wire/frame.ts": "" }, "src/wire/README.md is missing"],
      [{ "src/wire/frame.ts": "", "src/wire/README.md": "# wire\n" }, "expected one"],
      [{ "src/wire/frame.ts": "", "src/wire/README.md": `Imports: base\n${"line\n".repeat(20)}` }, "has 21 lines"],
    ],
  },
  {
    rule: "a README points downward only",
    check: checkRungs,
    planted: [
      [{ "src/wire/a.ts": "", "src/wire/README.md": "Imports: tunnel\n" }, "may not import tunnel (rung 2)"],
      [{ "src/daemon/a.ts": "", "src/daemon/README.md": "Imports: manager\n" }, "may not import manager"],
      [{ "src/agent/a.ts": "", "src/agent/README.md": "Imports: kube\n" }, "src/agent may never import kube"],
      [{ "src/novel/a.ts": "", "src/novel/README.md": "Imports: base\n" }, "src/novel has no rung"],
      [{ "src/wire/a.ts": "", "src/wire/README.md": "Imports: bass\n" }, "no such rung"],
    ],
  },
  {
    rule: "imports keep to the README's line, types too",
    check: checkImports,
    planted: [
      [{ ...wireReadme, "src/wire/a.ts": 'import type { X } from "#kube/x.ts";' }, "does not allow kube"],
      [{ ...wireReadme, "src/wire/a.ts": 'await import("#kube/x.ts");' }, "does not allow kube"],
      [{ ...wireReadme, "src/wire/a.ts": 'export { x } from "#kube/x.ts";' }, "does not allow kube"],
      [{ ...agentReadme, "src/agent/a.ts": 'import {\n  x,\n} from "#testbed/x.ts";' }, "does not allow testbed"],
    ],
  },
  {
    rule: "imports are written one way",
    check: checkSpecifiers,
    planted: [
      [{ "src/wire/a.ts": 'import "../base/x.ts";' }, "write #folder/file.ts"],
      [{ "testbed/a.ts": 'import "../src/base/x.ts";' }, "write #folder/file.ts"],
      [{ "src/wire/a.ts": 'import "./sub/../x.ts";' }, "write #folder/file.ts"],
      [{ "src/wire/a.ts": 'import "#base/x";' }, "expected a file with its ending"],
    ],
  },
  {
    rule: "outbound, inbound and dns do not know each other",
    check: checkDirections,
    planted: [[{ "src/daemon/outbound/a.ts": 'import "#daemon/dns/b.ts";' }, "outbound and dns meet only"]],
  },
  {
    rule: "testbed and scripts do not import programs",
    check: checkOutside,
    planted: [[{ "testbed/a.ts": 'import "#daemon/session.ts";' }, "programs are started from dist/"]],
  },
  {
    rule: "what is denied stays in its one place",
    check: checkDenials,
    planted: [
      [{ "src/daemon/a.ts": 'import { spawn } from "node:child_process";' }, "starting processes is denied"],
      [{ "src/daemon/a.ts": 'if (process.platform === "linux") x();' }, "asking for the platform is denied"],
      [{ "src/host/a.ts": 'import koffi from "koffi";' }, "foreign functions is denied"],
      [
        { "src/host/a.ts": 'createRequire(import.meta.url)("koffi"); require("koffi");' },
        "foreign functions is denied",
      ],
      [{ "src/daemon/a.ts": 'import { KubeConfig } from "@kubernetes/client-node";' }, "a Kubernetes client is denied"],
      [{ "src/wire/a.ts": 'import { readFile } from "node:fs";' }, "Node's I/O in pure code is denied"],
      [{ "src/packet/a.ts": "const id = Math.random();" }, "time or randomness in pure code is denied"],
      [{ "src/daemon/a.ts": "setTimeout(() => {}, 5);" }, "reading time or setting timers is denied"],
      [{ "src/daemon/a.ts": "const text = `${Date.now()}`;" }, "reading time or setting timers is denied"],
      [{ "src/daemon/a.ts": 'import { setTimeout } from "node:timers/promises";' }, "promised timers is denied"],
      [{ "src/daemon/a.ts": 'const home = process.env["HOME"];' }, "the environment is denied"],
      [{ "src/daemon/a.ts": "process.exit(1);" }, "ending the process is denied"],
      [{ "src/daemon/a.ts": 'process.stdout.write("x");' }, "standard output is denied"],
    ],
  },
  {
    rule: "files are named for what they hold",
    check: checkNames,
    planted: [
      [{ "src/wire/index.ts": "" }, "name the file for what it holds"],
      [{ "src/wire/types.ts": "" }, "name the file for what it holds"],
      [{ "testbed/string-utils.ts": "" }, "name the file for what it holds"],
      [{ "src/wire/helpers.ts": "" }, "name the file for what it holds"],
      [{ "src/wire/frameCodec.ts": "" }, "kebab-case"],
    ],
  },
  {
    rule: "a file says what it is",
    check: checkHeaders,
    planted: [[{ "src/wire/a.ts": "export const a = 1;\n" }, "the first lines say what the file is"]],
  },
  {
    rule: "hops name each other",
    check: checkTags,
    planted: [
      [{ "src/a/x.ts": "// @to a/y.ts\n", "src/a/y.ts": "// y\n" }, "lacks the @from"],
      [{ "src/a/x.ts": "// x\n", "src/a/y.ts": "// @from a/x.ts\n" }, "lacks the @to"],
      [{ "src/a/x.ts": "// @to a/y.ts, a/z.ts\n", "src/a/y.ts": "// @from a/x.ts\n" }, "src/a/z.ts, which does not"],
    ],
  },
  {
    rule: "ARCHITECTURE.md draws the walks that the code has",
    check: checkWalks,
    planted: [
      [
        { "src/a/x.ts": "// @to a/y.ts\n", "src/a/y.ts": "// @from a/x.ts\n" },
        "does not show the step a/x.ts > a/y.ts",
      ],
      [{ "ARCHITECTURE.md": "| walk | hops |\n|---|---|\n| w | `a/x.ts` → `a/y.ts` |\n" }, "no @to says so"],
    ],
  },
  {
    rule: "one version everywhere",
    check: checkVersion,
    planted: [
      [
        { "package.json": packageJson({}), "src/base/version.ts": 'softwareVersion = "2.0.0"' },
        "package.json says 1.0.0",
      ],
      [{ "package.json": packageJson({}) }, 'lacks "## Unreleased"'],
    ],
  },
  {
    rule: "each dependency has its reason",
    check: checkDependencies,
    planted: [
      [{ "package.json": packageJson({ dependencies: { "left-pad": "1.0.0" } }) }, "no line for the dependency"],
    ],
  },
  {
    rule: "each exit code is explained",
    check: checkExitCodes,
    planted: [[{ "README.md": "| 0 | fine |\n| 1 | error |\n| 2 | usage |\n" }, "exit code 70"]],
  },
  {
    rule: "each trap has its tests",
    check: checkTraps,
    planted: [
      [{ "docs/traps.md": "## 26. Title\n- story\n" }, "lacks trap 27"],
      [{ "docs/traps.md": "## 26. Title\n" }, '"26. Title" has no story'],
      [{ "docs/traps.md": "## 26. Title\n- story\n- other\n  - `a.test.ts`: x\n" }, 'no test for "story"'],
      [{ "docs/traps.md": "## 26. Title\n- story\n  - `a.test.ts`: x\n" }, 'a.test.ts has no test "x"'],
      [
        { "docs/traps.md": "## 26. T\n- s\n  - `a.test.ts`: x\n", "a.test.ts": 'say("x"); test("xy", f);' },
        'no test "x"',
      ],
    ],
  },
  {
    rule: "the map is short and complete",
    check: checkMap,
    planted: [
      [{ "ARCHITECTURE.md": "\n".repeat(300) }, "has 301 lines"],
      [{ "package.json": packageJson({}), "src/novel/a.ts": "" }, "lacks #novel/*"],
    ],
  },
];

const project = readTree();

describe.each(guards)("$rule", ({ check, planted }) => {
  test.each(planted)("rejects %j", (files, complaint) => {
    expect(check(tree(files)).join("\n")).toContain(complaint);
  });
  test("holds for the project", () => {
    expect(check(project)).toEqual([]);
  });
});

describe("bundles", () => {
  const plantedInputs = [
    ["agent", "src/kube/client.ts"],
    ["agent", "src/host/exec.ts"],
    ["manager", "node_modules/@kubernetes/client-node/dist/index.js"],
    ["cli", "src/kube/client.ts"],
    ["helper", "src/daemon/session.ts"],
    ["daemon", "src/base/clock.fake.ts"],
  ] as const;
  test.each(plantedInputs)("%s rejects %s", (program, path) => {
    expect(checkBundle(program, { inputs: { [path]: {} } })).toHaveLength(1);
  });
  test("a start evaluates what it imports, however far away, and nothing lazy", () => {
    const inputs = (kind: string) => ({
      "src/cli/main.ts": { imports: [{ path: "src/cli/far.ts", kind: "import-statement" }] },
      "src/cli/far.ts": { imports: [{ path: "node_modules/yaml/index.js", kind }] },
    });
    expect(checkStart("cli", { inputs: inputs("import-statement") })).toHaveLength(1);
    expect(checkStart("cli", { inputs: inputs("dynamic-import") })).toEqual([]);
  });
  // A whole build each, in another process: most of a second on a machine with nothing else to do.
  test.each(programs)("%s holds and evaluates only what it may", { timeout: 60_000 }, async (program) => {
    const content = await bundle(program);
    expect([...checkBundle(program, content), ...checkStart(program, content)]).toEqual([]);
  });
});

describe("the scanner", () => {
  test("blank() hides comments and strings and sees code in template holes", () => {
    const text =
      'a(); // b()\nconst s = "c()"; /* d()\n */ const t = `e() ${f({ g: `${h()}` })} i()`; const r = /j["\'`]\\//; k();';
    const code = blank(text, true);
    expect(code.split("\n")).toHaveLength(text.split("\n").length);
    expect(code.match(/[a-k]\(/g)).toEqual(["a(", "f(", "h(", "k("]);
  });
  test("importsOf() finds every form and none in a comment", () => {
    const text =
      'import a from "a";\nimport "b";\nexport * from "c";\nimport type { D } from "d";\nawait import("e"); // import "f"';
    expect(importsOf(text)).toEqual(["a", "b", "c", "d", "e"]);
  });
});

describe("lint", () => {
  // The linter's own rules are guards too: a plug-in that does not load, or a type check that silently stays off,
  // would pass everything.
  const planted = {
    "cycle-a.ts": 'import { b } from "./cycle-b.ts";\nexport const a = (): number => b();\n',
    "cycle-b.ts": 'import { a } from "./cycle-a.ts";\nexport const b = (): number => a();\n',
    "floating.ts": "async function f(): Promise<void> {}\nf();\n",
    "switch.ts":
      'export function s(k: "x" | "y"): number {\n  switch (k) {\n    case "x":\n      return 1;\n  }\n  return 2;\n}\n',
    "any.ts": "export const s = AbortSignal.any([]);\n",
    "params.ts":
      "export const p = (a: number, b: number, c: number, d: number, e: number): number => a + b + c + d + e;\n",
    "long-function.ts": `export function l(): void {\n${"  l();\n".repeat(61)}}\n`,
    "long-file.ts": "export {};\n".repeat(401),
    "complex.ts": `export function c(n: number): number {\n${"  if (n > 1) n++;\n".repeat(13)}  return n;\n}\n`,
    "default.ts": "export default 1;\n",
  };
  const expected = [
    ["no-cycle", "cycle-a.ts"],
    ["no-floating-promises", "floating.ts"],
    ["switch-exhaustiveness-check", "switch.ts"],
    ["no-restricted-properties", "any.ts"],
    ["max-params", "params.ts"],
    ["max-lines-per-function", "long-function.ts"],
    ["max-lines", "long-file.ts"],
    ["complexity", "complex.ts"],
    ["no-default-export", "default.ts"],
  ] as const;
  const found = lint(planted);
  test.each(expected)("%s rejects %s", (rule, file) => {
    expect(found.filter((each) => each.file === file).map((each) => each.rule)).toContain(rule);
  });
});

function lint(files: Readonly<Record<string, string>>): readonly { readonly file: string; readonly rule: string }[] {
  const folder = mkdtempSync(join(tmpdir(), "telepresence-lint-"));
  try {
    const { compilerOptions } = JSON.parse(readFileSync(join(projectRoot, "tsconfig.json"), "utf8")) as {
      readonly compilerOptions: object;
    };
    const options = { ...compilerOptions, types: [] };
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions: options, include: ["*.ts"] }));
    for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
    const config = join(projectRoot, ".oxlintrc.json");
    const program = join(projectRoot, "node_modules", ".bin", "oxlint");
    const run = spawnSync(program, ["-c", config, "--format=json", "."], { cwd: folder, encoding: "utf8" });
    const { diagnostics } = JSON.parse(run.stdout) as {
      readonly diagnostics: readonly { readonly code?: string; readonly filename: string }[];
    };
    return diagnostics.map((each) => ({
      file: each.filename.replace(/^\.\//, ""),
      rule: /\(([^)]+)\)/.exec(each.code ?? "")?.[1] ?? "",
    }));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
