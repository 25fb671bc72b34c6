// DESIGN 14: deleting the table resets connections that were opened through it, so it goes only after the last of them.
import { describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import type { AgentPort } from "#wire/agent-api.ts";
import { Redirect } from "./redirect.ts";

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
  const redirect = new Redirect({
    ports,
    isTaken: (port) => taken.has(port.containerPort),
    openTable: () => {
      events.push("open");
      return Promise.resolve({
        apply: (wanted) => void events.push(wanted.map((port) => port.containerPort).join("+") || "inert"),
        [Symbol.dispose]: () => void events.push("gone"),
      });
    },
    log: silentLogger,
  });
  return { events, taken, redirect };
}

describe("Redirect", () => {
  test("redirects while a port is intercepted, and removes its table afterwards", async () => {
    const { events, taken, redirect } = setup();
    await redirect.update();
    expect(events).toEqual([]);
    taken.add(80);
    await redirect.update();
    taken.add(81);
    await redirect.update();
    taken.clear();
    await redirect.update();
    expect(events).toEqual(["open", "80", "80+81", "gone"]);
  });

  test("keeps an inert table until the last redirected connection has ended", async () => {
    const { events, taken, redirect } = setup();
    taken.add(80);
    await redirect.update();
    const first = redirect.hold();
    const second = redirect.hold();
    taken.clear();
    await redirect.update();
    expect(events).toEqual(["open", "80", "inert"]);
    first[Symbol.dispose]();
    first[Symbol.dispose]();
    await redirect.update();
    expect(events).toEqual(["open", "80", "inert"]);
    second[Symbol.dispose]();
    await redirect.update();
    expect(events).toEqual(["open", "80", "inert", "gone"]);
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
      isTaken: () => true,
      openTable: () =>
        fail
          ? Promise.reject(new Error("no NET_ADMIN"))
          : Promise.resolve({ apply: () => undefined, [Symbol.dispose]: () => undefined }),
      log: silentLogger,
    });
    await expect(redirect.update()).rejects.toThrow("no NET_ADMIN");
    fail = false;
    await redirect.update();
  });
});
