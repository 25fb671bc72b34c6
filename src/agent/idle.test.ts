import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { Idle } from "./idle.ts";

function start(): { clock: FakeClock; idle: Idle; state: { needed: boolean; over: boolean } } {
  const clock = new FakeClock();
  const state = { needed: false, over: false };
  const idle = new Idle({ clock, idleExitMs: 60_000, isNeeded: () => state.needed });
  void idle.over.then(() => (state.over = true));
  return { clock, idle, state };
}

describe("Idle", () => {
  test("ends an agent that nobody has used for so long", async () => {
    const { clock, idle, state } = start();
    using _idle = idle;
    await clock.advance(59_000);
    expect(state.over).toBe(false);
    await clock.advance(1000);
    expect(state.over).toBe(true);
  });

  test("counts from the end of what needs it", async () => {
    const { clock, idle, state } = start();
    using _idle = idle;
    state.needed = true;
    await clock.advance(300_000);
    state.needed = false;
    await clock.advance(59_000);
    expect(state.over).toBe(false);
    await clock.advance(2000);
    expect(state.over).toBe(true);
  });

  test("ends a retired agent when the last connection has gone, not before", async () => {
    const { clock, idle, state } = start();
    using _idle = idle;
    state.needed = true;
    idle.retire();
    await clock.advance(300_000);
    expect(state.over).toBe(false);
    state.needed = false;
    await clock.advance(1000);
    expect(state.over).toBe(true);
  });

  test("keeps a retired agent that is introduced again", async () => {
    const { clock, idle, state } = start();
    using _idle = idle;
    idle.retire();
    idle.touch();
    await clock.advance(59_000);
    expect(state.over).toBe(false);
  });

  test("leaves no timer behind", () => {
    const { clock, idle } = start();
    idle[Symbol.dispose]();
    expect(clock.pending).toBe(0);
  });
});
