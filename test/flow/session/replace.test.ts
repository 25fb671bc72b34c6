// When a container that a laptop's process replaces comes back: with each way in which the replacement ends, and never
// with the end of an ordinary intercept.
import { describe, expect, test } from "vitest";
import { AppError } from "#base/error.ts";
import { ask, never } from "#test/flow/manager/harness.ts";
import { lab, params, portOf, quiet } from "./session-lab.ts";

describe("a replaced container", () => {
  const replace = (port: number) => ({ ...params(port), attachment: "replace" as const });

  test("comes back with leave(), before the laptop gives its traffic up", async () => {
    const { cluster, session, processPort } = await lab();
    const { info } = await session.intercept(replace(processPort), quiet, never);
    expect(info.spec.kind).toBe("replace");
    const agent = portOf(cluster.agents.get("hello-1"));
    const answers: string[] = [];
    cluster.onRestore = async () => void answers.push(await ask(agent, "x"));
    await session.leave("hello", never);
    expect(answers).toEqual(["laptop:x"]);
    expect(await ask(agent, "x")).toBe("application:x");
    expect(cluster.restored).toBe(1);
  });

  test("comes back with the session", async () => {
    const { cluster, session, processPort } = await lab();
    await session.intercept(replace(processPort), quiet, never);
    await session[Symbol.asyncDispose]();
    expect(cluster.restored).toBe(1);
  });

  test("comes back when the rollout fails", async () => {
    const { cluster, session, processPort } = await lab();
    cluster.injectError = new AppError("rollout_failed", "no room");
    await expect(session.intercept(replace(processPort), quiet, never)).rejects.toThrow("no room");
    expect(cluster.restored).toBe(1);
  });

  test("does not keep its laptop when the cluster cannot be reached", async () => {
    const { cluster, session, processPort } = await lab();
    await session.intercept(replace(processPort), quiet, never);
    cluster.onRestore = () => Promise.reject(new AppError("unreachable", "no network"));
    await session.leave("hello", never);
    expect(session.intercepts).toEqual([]);
  });

  test("is nothing that an ordinary intercept touches", async () => {
    const { cluster, session, processPort } = await lab();
    await session.intercept(params(processPort), quiet, never);
    await session.leave("hello", never);
    await session[Symbol.asyncDispose]();
    expect(cluster.restored).toBe(0);
  });
});
