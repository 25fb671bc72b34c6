// Texts that look like CEL: each is a filter, or an error of use that points into the text; a filter gives an
// answer for any request. Nothing else is thrown and nothing hangs.
import fc from "fast-check";
import { expect, test } from "vitest";
import { isAppError } from "#base/error.ts";
import { randomInputs } from "#base/random-inputs.fake.ts";
import { Picker } from "./any-text.fake.ts";
import { compileFilter } from "./compile.ts";
import type { Filter } from "./compile.ts";
import { mayOverlap } from "./overlap.ts";
import type { FilterRequest } from "./request-view.ts";
import { hostileRequest, request } from "./requests.fake.ts";

const words = `request . method path query headers cookies baggage host body grpc service ( ) [ ] { } , : ? ! - + * / % &&
  || == != < <= > >= in true false null 1 17 0x1F 1.5 1u 9007199254740993 "GET" "/a" 'x' r"\\d+" b"a" """t""" "( "a\\u00e4"
  x y k v has size int string dyn type matches contains startsWith endsWith lowerAscii exists all exists_one filter map
  cel.bind request.method request.path request.headers["x"] request.query["a"] request.body request.grpc.service //c`;
const tokens = [...words.split(/\s+/), "\u0000", "\ud800", "\u202e", "😀", "\n", "\\", "'", '"'];

const seeds = [
  'request.method == "GET" && (request.path.startsWith("/api/") || !(request.headers["x-user"] == "jane"))',
  'request.query["a"].exists(v, v.matches("^(?:[a-z]+|\\\\d{1,3})$")) && "x" in request.headers',
  "request.headers.all(k, k.size() < 10 && request.headers.filter(n, n == k).size() == 1) ? true : 1 + 2 * 3 > 4",
  'int(request.headers["n"]) % 10 < 3 || request.method in ["GET", "POST"] || has(request.headers.host)',
];
const pointing = / at (?:line \d+, )?column \d+: ./;

/** One of so many texts is two valid expressions, joined; of the others hardly any is a filter. */
const joinedOf = 8;

/** Tokens in a row, valid expressions, or one with a few places cut, doubled or replaced. */
function textOf(picker: Picker): string {
  if (picker.below(joinedOf) === 0) return `(${picker.of(seeds)}) ${picker.of(["&&", "||"])} (${picker.of(seeds)})`;
  if (picker.below(2) === 0) return picker.someOf(tokens, 24).join(picker.of([" ", ""]));
  let text = picker.of(seeds);
  for (let edits = picker.below(3); edits >= 0; edits--) {
    const at = picker.below(text.length + 1);
    text = text.slice(0, at) + picker.someOf(tokens, 2).join("") + text.slice(at + picker.below(6));
  }
  return text;
}

const inputs = randomInputs();

test(`${inputs} texts like CEL are filters or errors that point into them`, () => {
  const requests = [
    request({ target: "/api/x?a=1&b=2", headers: { x: "1", n: "2" }, body: "jane" }),
    hostileRequest("aä"),
  ];
  const previous: Filter[] = [];
  let compiled = 0;
  fc.assert(
    fc.property(fc.noBias(fc.integer()), (seed) => {
      const text = textOf(new Picker(seed));
      let filter: Filter;
      try {
        filter = compileFilter(text);
      } catch (error) {
        if (!isAppError(error, "usage")) throw error;
        const column = Number(error.fields["column"]);
        const pointsInto = pointing.test(error.message) && column <= Array.from(text).length + 1;
        // Twenty thousand calls of expect() took longer than the filters.
        if (!pointsInto) expect.fail(`"${text}" gave: ${error.message}`);
        return;
      }
      compiled++;
      for (const each of requests) expect(typeof filter.evaluate(each)).toBe("boolean");
      expect(filter.explain(requests[0] as FilterRequest).matched).toBe(filter.evaluate(requests[0] as FilterRequest));
      for (const other of previous) expect(typeof mayOverlap(filter, other).mayOverlap).toBe("boolean");
      previous.splice(0, previous.length > 3 ? 1 : 0);
      previous.push(filter);
    }),
    { numRuns: inputs },
  );
  const usual = inputs / joinedOf + inputs / 45; // of the others one in 37 was measured
  expect(compiled).toBeGreaterThan(usual - 4 * Math.sqrt(usual));
}, 120_000);
