// A wiretap as the daemon makes it: it is in nobody's way, neither of its own session's intercepts nor of others'.
import { expect, test } from "vitest";
import { ask, never } from "#test/flow/manager/harness.ts";
import { lab, openSession, params, portOf, quiet, stack } from "./session-lab.ts";

test("several wiretaps and an intercept share a workload, and even the laptop's port", async () => {
  const { cluster, session, processPort } = await lab();
  const other = stack.use(await openSession(cluster, "bob@desk"));
  const tap = { ...params(processPort), attachment: "wiretap" as const };
  const first = await session.intercept({ ...tap, name: "first" }, quiet, never);
  expect(first.info).toMatchObject({ state: "active", spec: { kind: "wiretap" } });
  await other.intercept({ ...tap, name: "second" }, quiet, never);
  await session.intercept(params(processPort, "takes"), quiet, never);
  await session.intercept({ ...tap, name: "third" }, quiet, never);
  const port = portOf(cluster.agents.get("hello-1"));
  expect(await ask(port, "one")).toBe("laptop:one");
  await session.leave("takes", never);
  expect(await ask(port, "two")).toBe("application:two");
  await expect
    .poll(() => session.intercepts.map(({ spec, copies }) => [spec.name, copies?.copied]))
    .toEqual([
      ["first", 2],
      ["third", 2],
    ]);
  await session.leave("first", never);
  await session.leave("third", never);
  expect(session.intercepts).toEqual([]);
  expect(await ask(port, "three")).toBe("application:three");
});

test("a new link has the wiretap again, as a wiretap", async () => {
  const { cluster, session, processPort } = await lab();
  await session.intercept({ ...params(processPort), attachment: "wiretap" }, quiet, never);
  const [before] = session.intercepts;
  cluster.cutManager();
  const port = portOf(cluster.agents.get("hello-1"));
  const copied = async (): Promise<number> => {
    expect(await ask(port, "again")).toBe("application:again");
    return session.intercepts[0]?.copies?.copied ?? 0;
  };
  await expect.poll(copied, { timeout: 10_000 }).toBeGreaterThan(3);
  expect(session.intercepts[0]).toMatchObject({ state: "active", spec: before?.spec });
});
