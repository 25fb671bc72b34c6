// What the dashboard's page is told, and when.
import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { FakeCloud } from "#cloud/visitors.fake.ts";
import type { FakeBrowser } from "#cloud/visitors.fake.ts";
import type { ClusterView } from "#wire/cloud-api.ts";
import type { DashboardSnapshot } from "#wire/dashboard-api.ts";
import { Traffic } from "./traffic.ts";

const cluster: ClusterView = {
  id: "uid",
  name: "staging",
  team: { id: "t", name: "shop" },
  live: true,
  intercepts: [],
  more: 0,
};

const ask = async (browser: FakeBrowser, after?: string): Promise<DashboardSnapshot> => {
  const answer = await browser.get(`/api/dashboard${after === undefined ? "" : `?after=${after}`}`);
  return JSON.parse(answer.text) as DashboardSnapshot;
};

/** The database answers in turns of its own. */
async function pass({ clock }: FakeCloud, ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 1500) {
    await turn();
    await clock.advance(Math.min(left, 1500));
  }
  await turn();
}

describe("the data of the dashboard", () => {
  test("comes at once, and again as soon as something is different", async () => {
    await using cloud = await FakeCloud.open();
    const browser = await cloud.browserOf(await cloud.person("ann"));
    const first = await ask(browser);
    expect([first.clusters, first.people.map(({ name }) => name)]).toEqual([[], ["ann"]]);
    const second = ask(browser, first.revision);
    await pass(cloud, 3000);
    cloud.clusters = [cluster];
    await pass(cloud, 1500);
    expect((await second).clusters).toEqual([cluster]);
  });

  test("comes again as it was before a request may take no longer", async () => {
    await using cloud = await FakeCloud.open();
    const browser = await cloud.browserOf(await cloud.person("ann"));
    const { revision } = await ask(browser);
    const same = ask(browser, revision);
    await pass(cloud, 27_000);
    expect((await same).revision).toBe(revision);
  });

  test("ends with the person, and holds no more than a few waiting pages of one", async () => {
    await using cloud = await FakeCloud.open();
    const ann = await cloud.person("ann");
    const browser = await cloud.browserOf(ann);
    const { revision } = await ask(browser);
    const waiting = Array.from({ length: 8 }, () => browser.get(`/api/dashboard?after=${revision}`));
    await pass(cloud, 1500);
    expect((await ask(browser, revision)).revision).toBe(revision); // at once
    await cloud.database.run("DELETE FROM people WHERE id = $1", [ann]);
    await pass(cloud, 1500);
    expect((await Promise.all(waiting)).map(({ status }) => status)).toEqual(Array(8).fill(401));
  });

  test("shows the people of one's teams, and an administrator everybody", async () => {
    await using cloud = await FakeCloud.open();
    const ann = await cloud.person("ann", { team: "shop" });
    await cloud.person("bob", { team: "shop" });
    await cloud.person("eve", { team: "billing" });
    const root = await cloud.person("root", { team: "operators", admin: true });
    const seen = async (id: string) => (await ask(await cloud.browserOf(id))).people.map(({ name }) => name);
    expect(await seen(ann)).toEqual(["ann", "bob"]);
    expect(await seen(root)).toEqual(["ann", "bob", "eve", "root"]);
  });
});

test("traffic is counted by steps, of the previews that are asked for, for ten minutes", async () => {
  const clock = new FakeClock();
  const traffic = new Traffic(clock);
  for (const ms of [1, 4, 4, 90]) traffic.note("mine", ms);
  traffic.note("theirs", 5000);
  await clock.advance(10_000);
  traffic.note("mine", 30_000);
  const { steps } = traffic.view(["mine", "unknown"]);
  expect(steps.slice(-2)).toEqual([
    { count: 4, halfMs: 5, mostMs: 100 },
    { count: 1, halfMs: 20_000, mostMs: 20_000 },
  ]);
  await clock.advance(600_000);
  expect(traffic.view(["mine"]).steps.filter(({ count }) => count > 0)).toEqual([]);
});
