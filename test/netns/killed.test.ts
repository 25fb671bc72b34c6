// Whoever of the pair is killed, at whatever moment: the laptop is then as it was (laptop.ts draws the network).
//
// Stories: resolver files, routes and resolved links were left behind by a killed daemon (trap 8); a leftover socket
// had to be removed by hand (trap 24); the root daemon went away while the user daemon thought itself connected
// (trap 25).
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Laptop } from "./laptop.ts";
import type { Fixture, HelperProcess } from "./laptop.ts";

let laptop: Laptop;
let before: string;
beforeEach(() => {
  laptop = new Laptop();
  before = laptop.snapshot();
});
afterEach(() => laptop[Symbol.asyncDispose]());

async function startDaemon(): Promise<Fixture> {
  return laptop.fixture("laptop", "daemon.ts", [`${laptop.directory}/helper.sock`]);
}
function said(daemon: Fixture, line: string): Promise<void> {
  return new Promise((resolve) => {
    daemon.child.stdout?.on("data", (chunk: Buffer) => {
      if (chunk.toString().includes(line)) resolve();
    });
  });
}
async function session(): Promise<{ daemon: Fixture; helper: HelperProcess }> {
  const daemon = await startDaemon();
  const ready = said(daemon, "ready");
  const helper = await laptop.startHelper(`${laptop.directory}/helper.sock`);
  await ready;
  return { daemon, helper };
}
const asBefore = (): Promise<void> => expect.poll(() => laptop.snapshot(), { timeout: 5000 }).toBe(before);

describe("a whole session", () => {
  test("is there while both live", async () => {
    await session();
    const now = laptop.snapshot();
    expect(now).toContain("10.96.0.0/12 dev tel0");
    expect(now).toContain("table inet telepresence-0");
  });

  test("vanishes when the daemon is killed, and the helper ends by itself", async () => {
    const { daemon, helper } = await session();
    daemon.child.kill("SIGKILL");
    expect(await helper.ended).toBe(0);
    await asBefore();
  });

  test("vanishes when the helper is killed: the daemon hears of it and closes the device", async () => {
    const { daemon, helper } = await session();
    const lost = said(daemon, "lost");
    helper.child.kill("SIGKILL");
    await lost;
    await asBefore();
  });

  test("vanishes on the helper's SIGTERM", async () => {
    const { daemon, helper } = await session();
    const lost = said(daemon, "lost");
    helper.child.kill("SIGTERM");
    expect(await helper.ended).toBe(0);
    await lost;
    await asBefore();
  });

  test("outlives the terminal's signals", async () => {
    const { helper } = await session();
    for (const signal of ["SIGHUP", "SIGINT", "SIGQUIT"] as const) helper.child.kill(signal);
    helper.child.kill("SIGTERM");
    expect(await helper.ended).toBe(0);
  });

  test("loses device and routes with the daemon although the helper is stuck", async () => {
    const { daemon, helper } = await session();
    helper.child.kill("SIGSTOP");
    daemon.child.kill("SIGKILL");
    await expect.poll(() => laptop.ip("route")).not.toContain("tel0");
    helper.child.kill("SIGCONT");
    await helper.ended;
    await asBefore();
  });

  test("can be had again at once after any of it", async () => {
    const { daemon, helper } = await session();
    daemon.child.kill("SIGKILL");
    await helper.ended;
    await session();
    expect(laptop.snapshot()).toContain("10.96.0.0/12 dev tel0");
  });
});

describe("while it comes up", () => {
  // From before the helper has spoken to after everything stands.
  const momentsMs = [0, 100, 150, 200, 230, 260, 300, 400];
  test.each(["daemon", "helper"] as const)("the %s may be killed at any moment", async (who) => {
    for (const momentMs of momentsMs) {
      const daemon = await startDaemon();
      const helper = await laptop.startHelper(`${laptop.directory}/helper.sock`);
      await new Promise((resolve) => setTimeout(resolve, momentMs)); // the moment itself is what is tested
      (who === "daemon" ? daemon : helper).child.kill("SIGKILL");
      await helper.ended;
      if (who === "helper") {
        await expect.poll(() => laptop.ip("route"), { timeout: 5000 }).not.toContain("tel0");
        daemon.child.kill("SIGKILL");
      }
      await asBefore();
    }
  });
});
