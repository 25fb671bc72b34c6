import { describe, expect, test } from "vitest";
import { AppError } from "#base/error.ts";
import { formatPrefix, type Prefix } from "#packet/address.ts";
import { SingleRoutes } from "./single-routes.ts";

function setUp(refused: readonly string[] = []): {
  routes: SingleRoutes;
  set: () => readonly string[];
  calls: () => number;
} {
  let set: readonly string[] = [];
  let calls = 0;
  const routes: SingleRoutes = new SingleRoutes(() => {
    calls += 1;
    const wanted = routes.prefixes.map((prefix: Prefix) => formatPrefix(prefix));
    if (wanted.some((text) => refused.includes(text))) return Promise.reject(new AppError("route_conflict", "taken"));
    set = wanted;
    return Promise.resolve();
  });
  return { routes, set: () => set, calls: () => calls };
}

describe("cover()", () => {
  test("adds private addresses, once", async () => {
    const { routes, set, calls } = setUp();
    await routes.cover(["10.9.0.1", "93.184.216.34", "nonsense"]);
    await routes.cover(["10.9.0.1"]);
    expect(set()).toEqual(["10.9.0.1/32"]);
    expect(calls()).toBe(1);
  });

  // One answer with an address of the laptop's own network made every later route fail.
  test("forgets what could not be set, so that the next one can", async () => {
    const { routes, set } = setUp(["192.168.1.1/32"]);
    await routes.cover(["10.9.0.1"]);
    await expect(routes.cover(["192.168.1.1"])).rejects.toMatchObject({ code: "route_conflict" });
    await routes.cover(["10.9.0.2"]);
    expect(set()).toEqual(["10.9.0.1/32", "10.9.0.2/32"]);
  });
});
