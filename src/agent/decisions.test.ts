import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { Decisions, maxDecisions } from "./decisions.ts";
import type { AskedRequest, Decided } from "./decisions.ts";
import { encodeHead, Fields } from "./inbound/http2/http2-messages.ts";

const requestOf = (target: string, value = "x"): AskedRequest => ({
  method: "GET",
  target,
  authority: "shop",
  headers: [{ name: "x-user", value }],
});
const decided = ({ method, target, authority, headers }: AskedRequest): Decided => {
  const list = [":method", method, ":path", target, ":authority", authority];
  const fields = new Fields([...list, ...headers.flatMap(({ name, value }) => [name, value])], {});
  const head = encodeHead({ method, target, authority, headers }, fields);
  return { containerPort: 80, head, asked: [], taken: undefined };
};
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

  test("gives back what was asked, as it came", () => {
    const decisions = new Decisions(new FakeClock());
    const headers = ["x-user", "x-empty", "x-latin"].map((name, index) => ({
      name,
      value: ["a: b", "", "\xe9\xff"][index] ?? "",
    }));
    const requests: readonly AskedRequest[] = [
      { method: "GET", target: "/a?b=c d", authority: "", headers },
      { method: "CONNECT", target: "shop:80", authority: "shop:80", headers: [] },
    ];
    for (const request of requests) decisions.add(decided(request));
    expect(decisions.last(2).map(({ request }) => request)).toEqual(requests);
  });

  test("holds a bounded number of heads, and of the others the request line", () => {
    const decisions = new Decisions(new FakeClock());
    for (let index = 0; index < 2 * maxDecisions; index += 1) {
      decisions.add(decided(requestOf(`/${index}?${"q".repeat(1000)}`, `${index}${"v".repeat(1000)}`)));
    }
    const last = decisions.last(maxDecisions);
    const kept = last.filter(({ request }) => request !== undefined);
    expect(kept.length).toBeGreaterThan(12);
    expect(kept.length).toBeLessThanOrEqual(24);
    expect(kept).toEqual(last.slice(-kept.length));
    for (const [index, { request }] of last.entries()) {
      const number = maxDecisions + index;
      if (request !== undefined) expect(request.headers[0]?.value).toBe(`${number}${"v".repeat(1000)}`);
    }
    expect(last[0]?.line).toEqual({ method: "GET", target: `/${maxDecisions}?${"q".repeat(195)}` });
  });

  test("keeps no head that is larger than all of them may be", () => {
    const decisions = new Decisions(new FakeClock());
    decisions.add(decided(requestOf("/small")));
    decisions.add(decided(requestOf("/large", "v".repeat(60 * 1024))));
    decisions.add(decided(requestOf("/next")));
    expect(decisions.last(3).map(({ request }) => request?.target)).toEqual(["/small", undefined, "/next"]);
    expect(targets(decisions)).toEqual(["/small", "/large", "/next"]);
  });

  test("an answer ends it once, whatever is said afterwards", async () => {
    const clock = new FakeClock();
    const decisions = new Decisions(clock);
    const outcome = decisions.add(decided(requestOf("/")));
    const told = () => decisions.last(1).map(({ answeredBy, durationMs }) => [answeredBy, durationMs]);
    expect(told()).toEqual([[undefined, undefined]]);
    await clock.advance(30);
    outcome.answered(204);
    await clock.advance(30);
    outcome.cut("the connection was closed");
    expect(told()).toEqual([["application", 30]]);
    expect(decisions.last(1)).toMatchObject([{ status: 204, failure: undefined }]);
  });

  test("what becomes of one that was forgotten is not told of another", () => {
    const decisions = new Decisions(new FakeClock());
    const first = decisions.add(decided(requestOf("/first")));
    for (let index = 0; index < maxDecisions; index += 1) decisions.add(decided(requestOf("/later")));
    first.leftToApplication("the laptop is gone");
    first.copiedTo([]);
    first.answered(500);
    const untold = { answeredBy: undefined, status: undefined, left: undefined };
    for (const decision of decisions.last(maxDecisions)) expect(decision).toMatchObject(untold);
  });
});
