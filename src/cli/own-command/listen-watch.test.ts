import { beforeEach, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import type { InterceptPort } from "#wire/manager-api.ts";
import { watchListening } from "./listen-watch.ts";

let clock: FakeClock;
let listening: Set<number>;
let said: string[];
beforeEach(() => {
  clock = new FakeClock();
  listening = new Set();
  said = [];
});

const port = (targetPort: number, targetHost = "127.0.0.1"): InterceptPort =>
  ({ containerPort: 80, protocol: "tcp", targetHost, targetPort }) as InterceptPort;

const watch = (ports: readonly InterceptPort[], over = new AbortController().signal): Promise<void> =>
  watchListening(
    { ports, isListening: async (each) => listening.has(each), warn: (text) => said.push(text), clock },
    over,
  );

async function pass(ms: number): Promise<void> {
  for (let passedMs = 0; passedMs < ms; passedMs += 250) await clock.advance(250);
}

// A command that never listened, or on another port, looked like an intercept that does not work.
test("tells of a port at which nothing listens after a while, once", async () => {
  const watching = watch([port(8000), port(8001)]);
  await pass(5000);
  listening.add(8001);
  expect(said).toEqual([]);
  await pass(5000);
  await watching;
  expect(said).toEqual([
    "nothing listens on 127.0.0.1:8000 yet, and no caller reaches this laptop until something does",
  ]);
  expect(clock.pending).toBe(0);
});

test("says nothing of a port that is listened on in time, or of another machine's", async () => {
  const watching = watch([port(8000), port(8000, "192.0.2.7")]);
  await pass(250);
  listening.add(8000);
  await pass(250);
  await watching;
  listening.clear();
  expect(said).toEqual([]);
  expect(clock.pending).toBe(0);
});

test("ends with the command", async () => {
  const over = new AbortController();
  const watching = watch([port(8000)], over.signal);
  await pass(1000);
  over.abort();
  await watching;
  expect({ said, pending: clock.pending }).toEqual({ said: [], pending: 0 });
});
