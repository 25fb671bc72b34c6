// Laptops that are away, their links waiting for another transport (PROTOCOL §6.5). The trap: what one of them may hold
// for 24 hours is little, what all of them may hold is more than the manager has.
import { describe, expect, test } from "vitest";
import { fingerprintOf, never, setup, specOf, trustOf } from "./registry.fake.ts";
import { managerKeptBytes } from "#wire/limits.ts";

const hourMs = 60 * 60_000;

describe("a laptop that is away", () => {
  test("is trusted and served again when it is back, and told what it missed", async () => {
    const { registry, laptop, agent, clock } = setup();
    const ada = laptop("ada@laptop");
    registry.trust(ada.session, [trustOf(1)]);
    const one = agent(1);
    await registry.create(ada.session, specOf("hello"), never);
    registry.suspend(ada.session);
    await clock.advance(0);
    expect([one.link.last, one.link.suspended]).toEqual([[], ["hello"]]);
    expect(registry.isTrusted(fingerprintOf(1))).toBe(false);
    const { notifications } = ada.link;
    registry.resume(ada.session);
    await clock.advance(0);
    expect([one.link.last, one.link.suspended]).toEqual([["hello"], []]);
    expect(registry.isTrusted(fingerprintOf(1))).toBe(true);
    expect(ada.link.notifications).toBeGreaterThan(notifications);
    expect(ada.link.intercepts[0]).toMatchObject({ state: "active" });
  });

  test("is told which agents were lost meanwhile, and need not meet the others again", async () => {
    const { registry, laptop, agent } = setup();
    const ada = laptop("ada@laptop");
    registry.trust(ada.session, [trustOf(1), trustOf(2)]);
    const [, two] = [agent(1), agent(2)];
    registry.suspend(ada.session);
    registry.loseAgent(two.record);
    registry.resume(ada.session);
    expect(ada.link.lostAgents).toEqual(["uid-2"]);
  });

  test("keeps its link for 24 hours", async () => {
    const { registry, laptop, clock } = setup();
    const ada = laptop("ada@laptop");
    registry.suspend(ada.session);
    await clock.advance(23 * hourMs);
    expect(ada.link.destroyed).toBeUndefined();
    await clock.advance(1.1 * hourMs);
    expect(ada.link.destroyed).toMatchObject({ code: "timeout" });
  });

  test("makes way when those that went later hold all there is room for", async () => {
    const { registry, laptop, clock } = setup();
    const [first, second, third] = [laptop("ada@laptop"), laptop("bob@laptop"), laptop("eve@laptop")] as const;
    const here = laptop("zoe@laptop");
    for (const { link } of [first, second, third, here]) link.keptBytes = managerKeptBytes * 0.4;
    for (const { session } of [first, second, third]) {
      registry.suspend(session);
      await clock.advance(1);
    }
    await clock.advance(60_000);
    expect([first, second, third, here].map(({ link }) => link.destroyed?.code)).toEqual(["busy", ...Array(3)]);
  });
});
