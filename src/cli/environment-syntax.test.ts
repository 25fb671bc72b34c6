// Each text is read again by the real program where this machine has it: sh, bash and busybox. What csh, PowerShell,
// cmd, docker and compose read is held to their rules of quoting.
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { environmentSyntaxes, formatEnvironment, readEnvironmentSyntax, withoutNames } from "./environment-syntax.ts";
import type { Environment } from "./environment-syntax.ts";

const folder = mkdtempSync(join(tmpdir(), "syntax-"));
afterAll(() => rmSync(folder, { recursive: true }));

const hard: Environment = {
  EMPTY: "",
  SPACES: "  two  ",
  LINES: "a\nb\n",
  RETURN: "a\r\nb",
  QUOTES: `'"\`'\\'' \\"`,
  DOLLAR: "$HOME ${HOME} $(id) `id` $$ \\$",
  GLOB: "* ? [a] {a,b} ~ !! !x",
  COMMENT: "a #b; exit 1 & | < >",
  UNICODE: "žluťoučký 🐎 \u2028",
  ENDS: "back\\",
  JSON: '{"a": [1, "b\\n"]}',
  _under: "1",
};

/** What a shell has after it has read the text. */
function sourced(shell: readonly string[], text: string, names: readonly string[]): Environment {
  const path = join(folder, "env");
  const print = names.map((name) => `printf '%s\\0' "$${name}"`).join("; ");
  writeFileSync(path, text);
  const [file = "", ...args] = shell;
  const output = execFileSync(file, [...args, "-c", `. ${path}; ${print}`], { env: { PATH: process.env["PATH"] } });
  const values = output.toString("utf8").split("\0");
  return Object.fromEntries(names.map((name, index) => [name, values[index] ?? ""]));
}

const shells = [["sh"], ["bash", "--norc"], ["busybox", "sh"]];

describe("sh", () => {
  for (const shell of shells) {
    for (const syntax of ["sh", "sh:export"] as const) {
      test(`${shell[0]} reads ${syntax} as it was`, () => {
        const { text, leftOut } = formatEnvironment(hard, syntax);
        expect({ values: sourced(shell, text, Object.keys(hard)), leftOut }).toEqual({ values: hard, leftOut: [] });
      });
    }
  }
  test("any value comes back", () => {
    const character = fc.oneof(fc.integer({ min: 1, max: 127 }), fc.integer({ min: 1, max: 0x10ffff }));
    const value = fc.array(character, { maxLength: 50 }).map((codes) => String.fromCodePoint(...codes).toWellFormed());
    fc.assert(
      fc.property(fc.array(value, { minLength: 80, maxLength: 80 }), (values) => {
        const environment = Object.fromEntries(values.map((text, index) => [`V${index}`, text]));
        const { text } = formatEnvironment(environment, "sh:export");
        expect(sourced(["sh"], text, Object.keys(environment))).toEqual(environment);
      }),
      { numRuns: 5 },
    );
  });
  test("exports with :export only", () => {
    const shown = (syntax: "sh" | "sh:export"): string => {
      writeFileSync(join(folder, "x"), formatEnvironment({ SHOWN: "yes" }, syntax).text);
      return execFileSync("sh", ["-c", `. ${join(folder, "x")}; sh -c 'echo $SHOWN'`]).toString();
    };
    expect([shown("sh"), shown("sh:export")]).toEqual(["\n", "yes\n"]);
  });
});

const line = (value: string, syntax: string, key = "K"): string | undefined => {
  const { text, leftOut } = formatEnvironment({ [key]: value }, readEnvironmentSyntax(syntax));
  return leftOut.length > 0 ? undefined : text.slice(0, -1);
};

test.each([
  ["docker", "a b #c '\"$x", "K=a b #c '\"$x"],
  ["docker", "a\nb", undefined],
  ["csh", "a'b!c\nd", "set K='a'\\''b\\!c\\\nd'"],
  ["csh:export", "$x", "setenv K '$x'"],
  ["ps", "it's $x\n", "$Env:K='it''s $x\n'"],
  ["ps:export", "it's", "[Environment]::SetEnvironmentVariable('K', 'it''s', 'User')"],
  ["cmd", "100% & <x>", 'set "K=100%% & <x>"'],
  ["cmd", 'a"b', undefined],
  ["cmd", "a\nb", undefined],
  ["json", 'a\n"', '{\n  "K": "a\\n\\""\n}'],
])("%s says %j as %j", (syntax, value, expected) => {
  expect(line(value, syntax)).toBe(expected);
});

test.each([
  ["pa$$word", "'pa$$word'"],
  ["x # y", "'x # y'"],
  [" padded ", "' padded '"],
  ['"quoted"', "'\"quoted\"'"],
  ["two\nlines", "'two\nlines'"],
  ["it's $5", '"it\'s \\$5"'],
  ["it's\ntwo", '"it\'s\\ntwo"'],
  ['it\'s "both" $x', '"it\'s \\"both\\" \\$x"'],
  ["C:\\dir", "'C:\\dir'"],
  ["C:\\", '"C:\\\\"'],
])("compose quotes %j where it would read something else", (value, text) => {
  expect(line(value, "compose")).toBe(`K=${text}`);
});
test.each(["one two", "2", "", "http://x:1/?a=b#c"])("compose leaves the plain %j alone", (value) => {
  expect(line(value, "compose")).toBe(`K=${value}`);
});

test.each([
  ["sh", undefined],
  ["csh:export", undefined],
  ["ps", "$Env:{my.key-1}='v'"],
  ["docker", "my.key-1=v"],
])("a name that %s does not know is said as %s", (syntax, expected) => {
  expect(line("v", syntax, "my.key-1")).toBe(expected);
});

test("texts are sorted and name what they leave out", () => {
  expect(formatEnvironment({ B: "2", "a-b": "x", A: "1" }, "sh")).toEqual({ text: "A='1'\nB='2'\n", leftOut: ["a-b"] });
});

test("readEnvironmentSyntax() knows the names of 2.20, and compose where none is given", () => {
  const known = "compose docker sh sh:export csh csh:export ps ps:export cmd json".split(" ");
  expect(environmentSyntaxes).toEqual(known);
  expect(readEnvironmentSyntax(undefined)).toBe("compose");
  expect(() => readEnvironmentSyntax("fish")).toThrow('--env-syntax is "fish", expected one of compose, docker');
});

test.each([
  [["A"], { AB: "2", "a.b": "3" }],
  [["A*"], { "a.b": "3" }],
  [["a.b", "X"], { A: "1", AB: "2" }],
  [[], { A: "1", AB: "2", "a.b": "3" }],
])("withoutNames() leaves %j out", (patterns, expected) => {
  expect(withoutNames({ A: "1", AB: "2", "a.b": "3" }, patterns)).toEqual(expected);
});
