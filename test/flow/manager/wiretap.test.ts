// Stories of the original that must not repeat here: a request was lost when its caller had been answered and left before
// the copy was written (close and write raced), and a copy that was written in the request's own turn deadlocked with it
// when the tap did not read. A tap that is slow, silent or dead must not be felt by anybody.
import { connect } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { startLab } from "./wiretap-lab.ts";
import type { Lab } from "./wiretap-lab.ts";
import { KeptCaller, describe as describeRequest, httpServer } from "./http-ends.ts";
import { ask, namedServer } from "./harness.ts";

const labs: AsyncDisposable[] = [];
afterEach(async () => {
  for (const lab of labs.splice(0).toReversed()) await lab[Symbol.asyncDispose]();
});
const use = <T extends AsyncDisposable>(lab: T): T => {
  labs.push(lab);
  return lab;
};

describe("smoke", () => {
  test("a request is answered by the application and copied", async () => {
    const lab: Lab = use(await startLab());
    const tap = use(await httpServer("tap"));
    lab.laptop.serveWith(tap.port);
    await lab.tap();
    using caller = new KeptCaller(lab.port);
    const got = await caller.ask({ method: "POST", path: "/a", body: Buffer.from("hello") });
    expect(got.body).toBe(describeRequest("app", "POST", "/a", Buffer.from("hello")));
    await expect.poll(() => tap.seen).toEqual(["POST /a"]);
    await lab.laptop.until(([info]) => info?.copies?.copied === 1);
    expect(lab.laptop.intercepts[0]?.copies).toEqual({ copied: 1, cut: 0 });
  });
});
void connect;
void ask;
void namedServer;
