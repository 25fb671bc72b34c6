// DESIGN 14: deleting the table resets connections that were opened through it, so it goes only some time after the
// last of them: also those that were not accepted yet, and those closed with bytes still in the kernel.
import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { silentLogger } from "#base/log.ts";
import type { AgentPort } from "#wire/agent-api.ts";
import { hastyLookMs, Redirect, redirectLingerMs } from "./redirect.ts";

const portOf = (containerPort: number, takeover: AgentPort["takeover"] = "redirect"): AgentPort => ({
  agentPort: containerPort + 1000,
  containerPort,
  containerName: "app",
  protocol: "tcp",
  takeover,
});

function setup(ports: readonly AgentPort[] = [portOf(80), portOf(81), portOf(82, "name")]) {
  const events: string[] = [];
  const taken = new Set<number>();
  const kernel: { isInUse: () => boolean } = { isInUse: () => false };
  const clock = new FakeClock();
  const redirect = new Redirect({
    ports,
    clock,
    isTaken: (port) => taken.has(port.containerPort),
    openTable: () => {
      events.push("open");
      return Promise.resolve({
        isInUse: () => kernel.isInUse(),
        apply: (wanted) => void events.push(wanted.map((port) => port.containerPort).join("+") || "inert"),
        [Symbol.dispose]: () => void events.push("gone"),
      });
    },
    log: silentLogger,
  });
  return { clock, events, taken, redirect, kernel };
}

describe("Redirect", () => {
  test("redirects while a port is intercepted, and removes its table some time afterwards", async () => {
    const { clock, events, taken, redirect } = setup();
    await redirect.update();
    expect(events).toEqual([]);
    taken.add(80);
    await redirect.update();
    taken.add(81);
    await redirect.update();
    taken.clear();
    await redirect.update();
    expect(events).toEqual(["open", "80", "80+81", "inert"]);
    await clock.advance(redirectLingerMs);
    expect(events).toEqual(["open", "80", "80+81", "inert", "gone"]);
    expect(clock.pending).toBe(0);
  });

  test("keeps an inert table until the last redirected connection has ended, and a while longer", async () => {
    const { clock, events, taken, redirect } = setup();
    taken.add(80);
    await redirect.update();
    const first = redirect.hold();
    taken.clear();
    await redirect.update();
    const late = redirect.hold(); // it was in the listener's backlog at the detach
    await clock.advance(10 * redirectLingerMs);
    first[Symbol.dispose]();
    first[Symbol.dispose]();
    await clock.advance(10 * redirectLingerMs);
    expect(events).toEqual(["open", "80", "inert"]);
    late[Symbol.dispose]();
    await clock.advance(redirectLingerMs - 1);
    expect(events).toEqual(["open", "80", "inert"]);
    await clock.advance(1);
    expect(events).toEqual(["open", "80", "inert", "gone"]);
  });

  test("keeps the table when a port is intercepted again meanwhile", async () => {
    const { clock, events, taken, redirect } = setup();
    taken.add(80);
    await redirect.update();
    taken.clear();
    await redirect.update();
    taken.add(80);
    await redirect.update();
    await clock.advance(10 * redirectLingerMs);
    expect(events).toEqual(["open", "80", "inert", "80"]);
    await redirect[Symbol.asyncDispose]();
    expect(events.at(-1)).toBe("gone");
  });

  test("redirects again from inert", async () => {
    const { events, taken, redirect } = setup();
    taken.add(80);
    await redirect.update();
    using _held = redirect.hold();
    taken.clear();
    await redirect.update();
    taken.add(80);
    await redirect.update();
    expect(events).toEqual(["open", "80", "inert", "80"]);
  });

  test("leaves ports that are taken over by name alone", async () => {
    const { events, taken, redirect } = setup([portOf(82, "name")]);
    taken.add(82);
    await redirect.update();
    expect(events).toEqual([]);
  });

  test("tells when the table cannot be made, and tries again at the next change", async () => {
    let fail = true;
    const redirect = new Redirect({
      ports: [portOf(80)],
      clock: new FakeClock(),
      isTaken: () => true,
      openTable: () =>
        fail
          ? Promise.reject(new Error("no NET_ADMIN"))
          : Promise.resolve({ isInUse: () => false, apply: () => undefined, [Symbol.dispose]: () => undefined }),
      log: silentLogger,
    });
    await expect(redirect.update()).rejects.toThrow("no NET_ADMIN");
    fail = false;
    await redirect.update();
  });

  test("removes its table as soon as the kernel knows no connection through it, when the agent is to end", async () => {
    const { clock, events, taken, redirect, kernel } = setup();
    taken.add(80);
    await redirect.update();
    taken.clear();
    await redirect.update();
    kernel.isInUse = () => true;
    redirect.hasten();
    await clock.advance(10 * hastyLookMs);
    expect(events.at(-1)).toBe("inert");
    kernel.isInUse = () => false;
    await clock.advance(hastyLookMs);
    expect(events.at(-1)).toBe("gone");
    expect(clock.pending).toBe(0);
  });

  test("lets its table stay a while when the kernel cannot be asked", async () => {
    const { clock, events, taken, redirect, kernel } = setup();
    taken.add(80);
    await redirect.update();
    taken.clear();
    await redirect.update();
    kernel.isInUse = () => {
      throw new Error("no sock_diag");
    };
    redirect.hasten();
    await clock.advance(hastyLookMs);
    expect(events.at(-1)).toBe("inert");
    await clock.advance(redirectLingerMs);
    expect(events.at(-1)).toBe("gone");
  });
});
