import { describe, expect, test } from "vitest";
import type { ServedIntercept } from "#wire/agent-api.ts";
import { never, setup, specOf, trustOf } from "./registry.fake.ts";

const everything = specOf("everything");
const tap = (name: string, filter?: string) => ({
  ...specOf(name),
  kind: "wiretap" as const,
  ...(filter === undefined ? {} : { filter }),
});

describe("wiretaps", () => {
  test("conflict with nothing, whoever was there first", async () => {
    const { registry, laptop, agent } = setup();
    const [ann, bob] = [laptop("ann@one"), laptop("bob@two")];
    for (const { session } of [ann, bob]) registry.trust(session, [trustOf(1)]);
    const { link } = agent(1);
    await registry.create(ann.session, tap("first"), never);
    await registry.create(bob.session, everything, never);
    await registry.create(bob.session, tap("second"), never);
    await registry.create(ann.session, tap("third", "request.path == '/'"), never);
    expect(link.last?.toSorted()).toEqual(["everything", "first", "second", "third"]);
    expect(registry.list().map(({ state, overlaps }) => [state, overlaps])).toEqual(
      Array(4).fill(["active", undefined]),
    );
    await expect(registry.create(ann.session, specOf("other"), never)).rejects.toMatchObject({ code: "conflict" });
  });

  test("reach agents as what they are", async () => {
    const { registry, laptop, agent } = setup();
    const { session } = laptop("ann@one");
    registry.trust(session, [trustOf(1)]);
    const { link } = agent(1);
    let served: readonly ServedIntercept[] = [];
    link.answer = (intercepts) => {
      served = intercepts;
      return Promise.resolve();
    };
    await registry.create(session, tap("copies"), never);
    expect(served.map(({ kind }) => kind)).toEqual(["wiretap"]);
  });

  test("an agent that does not know them is given none: it would take what is only to be copied", async () => {
    const { registry, laptop, agent } = setup();
    const { session } = laptop("ann@one");
    registry.trust(session, [trustOf(1)]);
    const one = agent(1);
    one.link.wiretaps = false;
    const info = await registry.create(session, tap("copies"), never);
    expect(one.link.last).toEqual([]);
    expect([info.state, info.message]).toEqual([
      "error",
      "the agent of pod hello-1 is of an older version, which cannot copy traffic; " +
        "`telepresence uninstall --agent hello` and a new wiretap replace it",
    ]);
  });

  test("count their copies over all agents, and keep why the last was cut short", async () => {
    const { registry, laptop, agent } = setup();
    const { session } = laptop("ann@one");
    registry.trust(session, [trustOf(1), trustOf(2)]);
    const [one, two] = [agent(1), agent(2)];
    const { id, copies } = await registry.create(session, tap("copies"), never);
    expect(copies).toBeUndefined();
    registry.countCopies(one.record, id, { copied: 3, cut: 1, reason: "slow" });
    registry.countCopies(two.record, id, { copied: 2, cut: 0 });
    expect(registry.list()[0]?.copies).toEqual({ copied: 5, cut: 1, reason: "slow" });
  });
});
