import { describe, expect, test } from "vitest";
import { unknownSessionId } from "#wire/control-api.ts";
import { readFilter } from "./intercept-filter.ts";

describe("readFilter()", () => {
  test("is nothing where everything is taken", async () => {
    expect(await readFilter("hello", {})).toBeUndefined();
    expect(await readFilter("hello", { httpHeader: ["all"] })).toBeUndefined();
  });
  test("makes one expression of all flags, older spellings too", async () => {
    const flags = { httpHeader: ["x-user=ann"], httpMatch: ["x-team=.*"], httpMethod: ["get"], match: ["true"] };
    expect(await readFilter("hello", flags)).toBe(
      'request.method == "GET" && request.headers["x-user"] == "ann" && "x-team" in request.headers && true',
    );
  });
  test("leaves room for the session's id, which is not known before it connects", async () => {
    const filter = await readFilter("hello", { httpHeader: ["auto"] });
    expect(filter).toContain(`== "${unknownSessionId}:hello"`);
  });
  test.each([
    [{ match: ["request.metod == 'GET'"] }, "--match is wrong at column"],
    [{ httpPathRegex: "/a(" }, "--http-path-regex is wrong at column"],
    [{ httpHeader: ["x-user"] }, "expected NAME=REGEX, auto or all"],
  ])("fails before anything is started: %j", async (flags, message) => {
    await expect(readFilter("hello", flags)).rejects.toMatchObject({
      code: "usage",
      message: expect.stringContaining(message),
    });
  });
  test("points at the place", async () => {
    await expect(readFilter("hello", { match: ["request.path = '/'"] })).rejects.toMatchObject({
      message: expect.stringMatching(/ at column \d+: /),
      hint: expect.stringMatching(/^mend it here:\n.*\n +\^$/),
    });
  });
});
