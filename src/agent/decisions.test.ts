import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { Decisions, maxDecisions } from "./decisions.ts";
import type { AskedRequest, Decided } from "./decisions.ts";

const requestOf = (target: string, value = "x"): AskedRequest => ({
  method: "GET",
  target,
  authority: "shop",
  headers: [{ name: "x-user", value }],
});
const decided = (request: AskedRequest): Decided => ({ containerPort: 80, request, asked: [], taken: undefined });
const targets = (decisions: Decisions, count = maxDecisions): readonly (string | undefined)[] =>
  decisions.last(count).map(({ line }) => line?.target);

describe("Decisions", () => {
  test("keeps the last ones, the oldest first", () => {
    const decisions = new Decisions(new FakeClock());
    expect(targets(decisions)).toEqual([]);
    for (let index = 0; index < 3 * maxDecisions + 7; index += 1) decisions.add(decided(requestOf(`/${index}`)));
    const newest = 3 * maxDecisions + 6;
    expect(targets(decisions, 2)).toEqual([`/${newest - 1}`, `/${newest}`]);
    const all = targets(decisions, 10_000);
    expect([all.length, all[0], all.at(-1)]).toEqual([maxDecisions, `/${newest - maxDecisions + 1}`, `/${newest}`]);
  });

  test("holds a bounded number of heads, and of the others the request line", () => {
    const decisions = new Decisions(new FakeClock());
    for (let index = 0; index < 2 * maxDecisions; index += 1) {
      decisions.add(decided(requestOf(`/${index}?${"q".repeat(1000)}`, "v".repeat(1000))));
    }
    const last = decisions.last(maxDecisions);
    const chars = last.reduce((sum, { headChars }) => sum + headChars, 0);
    expect(chars).toBeGreaterThan(32 * 1024);
    expect(chars).toBeLessThanOrEqual(48 * 1024);
    expect(last.findLastIndex(({ request }) => request === undefined)).toBe(
      last.findIndex(({ request }) => request !== undefined) - 1,
    );
    expect(last[0]?.line).toEqual({ method: "GET", target: `/${maxDecisions}?${"q".repeat(195)}` });
  });

  test("keeps no head that is larger than all of them may be", () => {
    const decisions = new Decisions(new FakeClock());
    decisions.add(decided(requestOf("/small")));
    decisions.add(decided(requestOf("/large", "v".repeat(60 * 1024))));
    decisions.add(decided(requestOf("/next")));
    expect(decisions.last(3).map(({ request }) => request?.target)).toEqual([undefined, undefined, "/next"]);
    expect(targets(decisions)).toEqual(["/small", "/large", "/next"]);
  });

  test("an answer ends it once, whatever is said afterwards", async () => {
    const clock = new FakeClock();
    const decision = new Decisions(clock).add(decided(requestOf("/")));
    expect([decision.answeredBy, decision.durationMs]).toEqual([undefined, undefined]);
    await clock.advance(30);
    decision.answered(204);
    await clock.advance(30);
    decision.cut("the connection was closed");
    const { answeredBy, status, durationMs, failure } = decision;
    expect({ answeredBy, status, durationMs, failure }).toEqual({
      answeredBy: "application",
      status: 204,
      durationMs: 30,
      failure: undefined,
    });
  });
});
