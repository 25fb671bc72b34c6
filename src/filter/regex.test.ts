// Matching is ours and the parser is not: everything here that compares with the library holds the two together.
import fc from "fast-check";
import { RE2JS } from "re2js";
import { describe, expect, test } from "vitest";
import { randomInputs } from "#base/random-inputs.fake.ts";
import { anyText, Picker } from "./any-text.fake.ts";
import { filterLimits } from "./limits.ts";
import { FilterProblem } from "./problem.ts";
import { estimateInstructions } from "./regex-size.ts";
import { compileRegex } from "./regex.ts";
import { Meter, OverBudget } from "./value.ts";

const plenty = (): Meter => new Meter(Number.MAX_SAFE_INTEGER);

function problem(pattern: string): FilterProblem {
  try {
    compileRegex(pattern);
  } catch (error) {
    if (error instanceof FilterProblem) return error;
    throw error;
  }
  throw new Error(`${pattern} compiled`);
}

const pieces =
  "a b c ä € 😀 \\d \\w \\b \\B ^ $ (?i) (?m) (?s) . [ab] [^a] * + ? *? {2} {1,3} {2,} | ( (?: ) \\pL [[:alpha:]] \\n \\z \\A \\Qa.b\\E";
const piece = pieces.split(" ");
const chars = ["a", "b", "c", "A", "ä", "Ä", "€", "😀", "1", " ", "\n", "_", "K", "\u212a"];

describe("regular expressions", () => {
  test("match what the library matches", () => {
    const inputs = randomInputs(5000);
    let compiled = 0;
    fc.assert(
      fc.property(fc.integer(), (seed) => {
        const picker = new Picker(seed);
        const pattern = picker.someOf(piece, 9).join("");
        const library = compileByLibrary(pattern);
        if (library === undefined) {
          expect(() => compileRegex(pattern)).toThrow(FilterProblem);
          return;
        }
        compiled++;
        const ours = compileRegex(pattern);
        for (let count = 0; count < 6; count++) {
          const text = picker.someOf(chars, 14).join("");
          expect([pattern, text, ours.test(text, plenty())]).toEqual([pattern, text, library.test(text)]);
        }
      }),
      { numRuns: inputs },
    );
    expect(compiled).toBeGreaterThan(inputs / 10);
  });

  test("quoted text matches exactly itself", () => {
    fc.assert(
      fc.property(anyText, anyText, (value, other) => {
        const regex = compileRegex(`^(?:${RE2JS.quote(value)})$`);
        expect(regex.test(value, plenty())).toBe(true);
        expect(regex.test(other, plenty())).toBe(other === value);
      }),
    );
  });

  test.each([
    ["(?=x)", 0, "look-ahead and look-behind cannot be matched in linear time: (?="],
    ["a(?!x)", 1, "look-ahead and look-behind cannot be matched in linear time: (?!"],
    ["(?<=x)", 0, "look-ahead and look-behind cannot be matched in linear time: (?<=x)"],
    ["(?<!x)y", 0, "look-ahead and look-behind cannot be matched in linear time: (?<!x)y"],
    ["(a)\\1", 3, "back-references cannot be matched in linear time: \\1"],
    ["(?P<n>a)\\k<n>", 8, "back-references cannot be matched in linear time: \\k"],
    ["ab(?>x)", 2, "atomic groups and possessive repeats are not in RE2: (?>"],
    ["xa++", 2, "atomic groups and possessive repeats are not in RE2: ++"],
    ["a(b", 0, "the regular expression has no closing ): a(b"],
    ["[b-a]", 1, "the regular expression has an invalid character class range: b-a"],
    ["a\\", 2, "the regular expression has a trailing backslash at end of expression"],
  ])("%s is refused at its place with the reason", (pattern, at, reason) => {
    expect(problem(pattern)).toMatchObject({ at, message: reason });
  });

  test("expressions that would compile to a great size are refused before they are compiled", () => {
    const large = "too large";
    expect(problem(`(${"[a-z]x".repeat(80)}){1000}`).message).toContain(large);
    expect(problem(`${"a{900}".repeat(8)}b`).message).toContain(large);
    expect(problem("((((a{10}){10}){10}b){3}c{900}){0,2}").message).toContain(large);
    expect(compileRegex("[ab]{1,500}c").instructions).toBeLessThan(filterLimits.regexInstructions);
  });

  test("the estimate is never far below what is compiled", () => {
    fc.assert(
      fc.property(fc.integer(), (seed) => {
        const pattern = new Picker(seed).someOf([...piece, "{99}", "{7,80}"], 12).join("");
        const size = (compileByLibrary(pattern)?.re2Input.prog.inst.length ?? 0) as number;
        if (size > 4 * filterLimits.regexInstructions) expect(estimateInstructions(pattern)).toBeGreaterThan(size / 4);
      }),
      { numRuns: 500 },
    );
  });

  test("matching ends at the budget, and what was spent is what was done", () => {
    const hostile = compileRegex("a(a|b){30}$");
    const subject = "ab".repeat(30_000);
    expect(() => hostile.test(subject, new Meter(100_000))).toThrow(OverBudget);
    const easy = new Meter(1000);
    expect(compileRegex("^/api/v[12]/").test("/api/v2/things", easy)).toBe(true);
    expect(easy.left).toBeGreaterThan(900);
  });

  test("an expression tied to the beginning does not read on", () => {
    const meter = new Meter(100);
    expect(compileRegex("^abc").test("x".repeat(60_000), meter)).toBe(false);
    expect(meter.left).toBeGreaterThan(80);
  });
});

function compileByLibrary(pattern: string): RE2JS | undefined {
  try {
    return RE2JS.compile(pattern);
  } catch {
    return undefined;
  }
}
