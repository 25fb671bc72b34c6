// Whose intercepts end by somebody else's hand. Stories of the original: an intercept whose owner had closed his laptop
// for the day kept the workload from everybody else, and its owner learnt nothing when it was gone the next morning.
import { describe, expect, test } from "vitest";
import { never, setup, specOf, trustOf } from "./registry.fake.ts";

const minuteMs = 60_000;

describe("an owner who is away", () => {
  test("keeps the port for ten minutes, and the other is told until when", async () => {
    const { clock, registry, laptop } = setup();
    const [ada, bob] = [laptop("ada@laptop"), laptop("bob@desk")];
    await registry.create(ada.session, specOf("hello"), never);
    registry.lose(ada.session);
    await clock.advance(4 * minuteMs);
    await expect(registry.create(bob.session, specOf("mine"), never)).rejects.toMatchObject({
      code: "conflict",
      hint: "ask ada@laptop to leave it (away for 4 min: it makes way in 6 min)",
    });
    await clock.advance(6 * minuteMs - 1);
    await expect(registry.create(bob.session, specOf("mine"), never)).rejects.toMatchObject({ code: "conflict" });
    const awaySinceMs = clock.wallMs() - 10 * minuteMs + 1;
    await clock.advance(1);
    const info = await registry.create(bob.session, specOf("mine"), never);
    expect(info.tookOver).toEqual([{ client: "ada@laptop", name: "hello", awaySinceMs }]);
    expect(registry.list().map(({ client, tookOver }) => [client, tookOver])).toEqual([["bob@desk", undefined]]);
  });

  test("is told when it is back, even when the one who took over has left", async () => {
    const { clock, registry, laptop } = setup();
    const [ada, bob] = [laptop("ada@laptop"), laptop("bob@desk")];
    const { id } = await registry.create(ada.session, specOf("hello"), never);
    registry.lose(ada.session);
    await clock.advance(10 * minuteMs);
    await registry.create(bob.session, specOf("mine"), never);
    const atMs = clock.wallMs();
    await registry.depart(bob.session, never);
    const ended = [{ id, reason: "taken_over", by: "bob@desk", atMs }];
    expect([...laptop("ada@laptop").session.ended.values()]).toEqual(ended);
    // The answer may have been lost on the way.
    const back = laptop("ada@laptop").session;
    expect([...back.ended.values()]).toEqual(ended);
    await registry.create(back, specOf("hello"), never);
    expect(laptop("ada@laptop").session.ended.size).toBe(0);
  });

  test("counts as there again the moment it is back", async () => {
    const { clock, registry, laptop } = setup();
    const [ada, bob] = [laptop("ada@laptop"), laptop("bob@desk")];
    await registry.create(ada.session, specOf("hello"), never);
    registry.lose(ada.session);
    await clock.advance(11 * minuteMs);
    await registry.create(laptop("ada@laptop").session, specOf("hello"), never);
    await expect(registry.create(bob.session, specOf("mine"), never)).rejects.toMatchObject({ code: "conflict" });
  });
});

test("an owner who is there without a request for hours loses nothing", async () => {
  const { clock, registry, laptop } = setup();
  const [ada, bob] = [laptop("ada@laptop"), laptop("bob@desk")];
  await registry.create(ada.session, specOf("hello"), never);
  await clock.advance(600 * minuteMs);
  await expect(registry.create(bob.session, specOf("mine"), never)).rejects.toMatchObject({
    code: "conflict",
    hint: "ask ada@laptop to leave it",
  });
});

describe("an intercept that is revoked", () => {
  test("ends when its agents have confirmed, and its owner is told by whom", async () => {
    const { clock, registry, laptop, agent } = setup();
    const ada = laptop("ada@laptop");
    registry.trust(ada.session, [trustOf(1)]);
    const one = agent(1);
    const { id } = await registry.create(ada.session, specOf("hello"), never);
    await registry.revoke(one.record, id, "bob@desk", never);
    expect(one.link.last).toEqual([]);
    expect(ada.link.ended).toEqual([{ id, reason: "revoked", by: "bob@desk", atMs: clock.wallMs() }]);
    expect(registry.list()).toEqual([]);
    await expect(registry.revoke(one.record, id, "bob@desk", never)).rejects.toMatchObject({
      code: "intercept_not_found",
    });
  });

  test("of an owner who is away is not created again when it is back", async () => {
    const { registry, laptop, agent } = setup();
    const ada = laptop("ada@laptop");
    registry.trust(ada.session, [trustOf(1)]);
    const one = agent(1);
    const { id } = await registry.create(ada.session, specOf("hello"), never);
    registry.lose(ada.session);
    await registry.revoke(one.record, id, "bob@desk", never);
    expect(ada.link.ended).toEqual([]);
    expect([...laptop("ada@laptop").session.ended.values()]).toMatchObject([{ id, reason: "revoked" }]);
  });

  test("must be of the workload of the agent that says so", async () => {
    const { registry, laptop, agent } = setup();
    const other = { kind: "Deployment", name: "other", namespace: "shop" } as const;
    const ada = laptop("ada@laptop");
    registry.trust(ada.session, [trustOf(1), trustOf(2, other)]);
    const [, stranger] = [agent(1), agent(2, other)];
    const { id } = await registry.create(ada.session, specOf("hello"), never);
    await expect(registry.revoke(stranger.record, id, "bob@desk", never)).rejects.toMatchObject({
      code: "intercept_not_found",
    });
    expect(ada.link.ended).toEqual([]);
    expect(registry.list()).toHaveLength(1);
  });
});

describe("turns among many people", () => {
  const shared = (name: string) => ({ ...specOf(name), filter: "true", allowOverlap: true });

  test("stay the same when a manager restarts and its laptops come back in another order", async () => {
    const { clock, registry, laptop } = setup();
    const created: { readonly client: string; readonly name: string; readonly createdAtMs: number }[] = [];
    for (const [client, name] of [
      ["ada@laptop", "first"],
      ["bob@desk", "second"],
      ["eve@box", "third"],
    ] as const) {
      const { createdAtMs } = await registry.create(laptop(client).session, shared(name), never);
      created.push({ client, name, createdAtMs });
      await clock.advance(1000);
    }
    const restarted = setup();
    await restarted.clock.advance(clock.wallMs() - restarted.clock.wallMs() + 60_000);
    for (const { client, name, createdAtMs } of created.toReversed()) {
      const { session } = restarted.laptop(client);
      restarted.registry.trust(session, [trustOf(1)]);
      const info = await restarted.registry.create(session, shared(name), never, createdAtMs);
      expect(info.createdAtMs).toBe(createdAtMs);
    }
    expect(restarted.agent(1).link.last).toEqual(["first", "second", "third"]);
  });

  test("of one moment are by name, not by an id that is new each time", async () => {
    const { registry, laptop, agent } = setup();
    for (const client of ["eve@box", "ada@laptop", "bob@desk"]) {
      const { session } = laptop(client);
      registry.trust(session, [trustOf(1)]);
      await registry.create(session, shared(client.slice(0, 3)), never);
    }
    expect(agent(1).link.last).toEqual(["ada", "bob", "eve"]);
  });

  test("cannot be had by claiming an age that is not plausible", async () => {
    const { clock, registry, laptop } = setup();
    const { session } = laptop("ada@laptop");
    const now = clock.wallMs();
    const of = async (name: string, claimed: number): Promise<number> =>
      (await registry.create(session, shared(name), never, claimed)).createdAtMs;
    expect(await of("future", now + 1000)).toBe(now);
    expect(await of("ancient", 0)).toBe(now - 30 * 24 * 60 * minuteMs);
  });
});
