import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { compileFilter } from "#filter/compile.ts";
import type { Taken } from "#agent/served.ts";
import type { HttpRoutes } from "./http-decision.ts";
import { HttpIntake } from "./http-intake.ts";
import type { TakenIn } from "./http-intake.ts";

const taken: Taken = {
  interceptId: "s:hello",
  client: "ann@laptop",
  opener: {
    open: () => Promise.reject(new Error("no")),
    countRefused: () => undefined,
    countCopy: () => undefined,
    hold: () => undefined,
  },
  filter: compileFilter('request.body.contains("ann")'),
  existing: "keep",
  onRefused: "app",
};
const routes: Pick<HttpRoutes, "decide"> = {
  decide: ({ method, target }, { bytes, final }) => {
    const view = { method, target, authority: "", headers: [], body: bytes };
    const verdict = final ? taken.filter?.evaluate(view) : taken.filter?.decide(view);
    if (verdict === "needs-body") return verdict;
    return verdict === true ? taken : undefined;
  },
};

function setup() {
  const clock = new FakeClock();
  const requests: TakenIn[] = [];
  const unclear: string[] = [];
  let asked = 0;
  const intake = new HttpIntake({
    routes,
    clock,
    onRequest: (request) => requests.push(request),
    onUnclear: (reason) => unclear.push(reason),
    askForBody: () => (asked += 1),
  });
  const take = (text: string): number => intake.take(Buffer.from(text), 0);
  return { clock, requests, unclear, intake, take, asked: () => asked };
}
const put = (length: number, more = ""): string =>
  `PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: ${length}\r\n${more}\r\n`;

describe("HttpIntake", () => {
  test("gives a request on when its body is whole, byte for byte, and leaves what follows", () => {
    const { requests, take } = setup();
    take(`${put(3)}a`);
    expect(requests).toEqual([]);
    expect(take("nnGET")).toBe(2);
    expect(requests.map(({ bytes }) => bytes.toString())).toEqual([`${put(3)}ann`]);
    expect(requests[0]?.taken).toBe(taken);
  });
  test("decides without the body when the caller waits with it, and reads no more of it", async () => {
    const { clock, requests, take, intake } = setup();
    take(`${put(10)}ann`);
    await clock.advance(9999);
    expect(requests).toEqual([]);
    await clock.advance(1);
    expect(requests.map((request) => [request.taken, request.body.leftBytes])).toEqual([[undefined, 7]]);
    expect(intake.isEmpty).toBe(true);
  });
  test("does not wait for a body that is too long, known before or not", () => {
    const { requests, take } = setup();
    take(put(64 * 1024 + 1));
    expect(requests).toHaveLength(1);
    const other = setup();
    other.take("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (let sent = 0; sent < 64; sent += 1) other.take(`400\r\n${"x".repeat(1024)}\r\n`);
    expect(other.requests.map((request) => [request.taken, request.body.done])).toEqual([[undefined, false]]);
  });
  test("asks for a body that its caller holds back, once", () => {
    const { take, asked } = setup();
    take(put(3, "Expect: 100-continue\r\n"));
    take("an");
    expect(asked()).toBe(1);
  });
  test("gives back all of a request whose body turns out malformed", () => {
    const { take, unclear, intake, requests } = setup();
    const head = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    take(`${head}2\r\nan\r\n`);
    take("z\r\nn");
    expect([unclear, requests]).toEqual([["a chunk's size is not a number"], []]);
    expect(intake.held.toString()).toBe(`${head}2\r\nan\r\nz\r\nn`);
  });
  test("decides what it has when the caller ends", () => {
    const { take, intake, requests } = setup();
    take(`${put(10)}ann`);
    intake.finish();
    expect(requests.map((request) => request.bytes.toString())).toEqual([`${put(10)}ann`]);
  });
});
