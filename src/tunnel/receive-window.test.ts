// 1,000 slow readers with a fixed window of 256 KiB each would have held 256 MiB; here they hold the budget at most, and
// a reader that comes after them is still served.
import { once } from "node:events";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  laptopBudgetBytes,
  initialWindowBytes,
  maxStreams,
  maxWindowBytes,
  shortWayWindowBytes,
} from "#wire/limits.ts";
import { agentBudgetBytes, managerBudgetBytes, maxAgentStreams } from "#wire/limits.ts";
import type { OpenRequest } from "#wire/open.ts";
import { ReceiveBudget, ReceivePool, ReceiveWindow, startWindowBytes } from "./receive-window.ts";
import { createSessionPair } from "./session-pair.fake.ts";
import type { SessionStream } from "./stream.ts";
import type { TunnelStream } from "./tunnel.ts";

const live = new AbortController().signal;
const tcp: OpenRequest = { kind: "tcp", target: { address: "10.0.0.1", port: 80 } };
const mebibyte = 1024 * 1024;
const limits = { maxStreams: 2000, budgetBytes: 8 * mebibyte };

/** Bytes of buffers that something still refers to: what is only not collected yet does not count. */
function heldBytes(): number {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
  return process.memoryUsage().arrayBuffers;
}

class FakePace {
  ms = 0;
  readonly roundTripMs: number;
  readonly leastRoundTripMs: number;
  constructor(roundTripMs = 10) {
    this.roundTripMs = this.leastRoundTripMs = roundTripMs;
  }
  nowMs(): number {
    return this.ms;
  }
}

/** A stream's receiving end: fills whatever it may, and reads all of it. */
class Flow {
  readonly window: ReceiveWindow;
  readonly #pace: FakePace;
  bytes: number;
  constructor(budget: ReceiveBudget, pace: FakePace) {
    this.#pace = pace;
    this.window = new ReceiveWindow(budget, pace);
    this.bytes = initialWindowBytes + this.window.open();
  }
  /** One window's worth arrives and is read after so long; the credit that comes back is the next window. */
  turn(ms: number): void {
    this.window.arrived(this.bytes);
    this.#pace.ms += ms;
    this.bytes = this.window.taken(this.bytes, 0);
  }
}

describe("the limits", () => {
  test.each([
    ["a laptop", maxStreams, laptopBudgetBytes],
    ["the manager", maxStreams, managerBudgetBytes],
    ["an agent", maxAgentStreams, agentBudgetBytes],
  ])("of %s leave room for windows beyond what every stream is sure of", (_name, streams, budgetBytes) => {
    expect(streams * initialWindowBytes).toBeLessThanOrEqual(budgetBytes - 8 * mebibyte);
  });
});

describe("a window", () => {
  test("of a quick reader grows to the widest in a few round trips, a slow one's stays", () => {
    const [budget, pace] = [new ReceiveBudget({ maxStreams, budgetBytes: laptopBudgetBytes }), new FakePace()];
    const [quick, slow] = [new Flow(budget, pace), new Flow(budget, pace)];
    expect([quick.bytes, slow.bytes]).toEqual([startWindowBytes, startWindowBytes]);
    for (let turn = 0; turn < 2; turn += 1) quick.turn(10);
    expect(quick.bytes).toBe(shortWayWindowBytes);
    for (let turn = 0; turn < 10; turn += 1) slow.turn(1000);
    expect(slow.bytes).toBe(startWindowBytes);
  });

  // With one window for every way a cluster 100 ms away was reached at a tenth of what the wire carries.
  test("of a quick reader a long way off grows with what it takes, and no further", () => {
    const budget = new ReceiveBudget({ maxStreams, budgetBytes: laptopBudgetBytes });
    const [way, pace] = [100, new FakePace(100)];
    const unbounded = new Flow(budget, pace);
    for (let turn = 0; turn < 8; turn += 1) unbounded.turn(way);
    expect(unbounded.bytes).toBeGreaterThan(4 * shortWayWindowBytes);
    expect(unbounded.bytes).toBeLessThanOrEqual(maxWindowBytes);
    // 20 MB/s, whatever is on the way: two round trips' worth
    const narrow = new Flow(budget, pace);
    for (let turn = 0; turn < 20; turn += 1) narrow.turn(Math.max(way, narrow.bytes / 20_000));
    expect(narrow.bytes).toBeGreaterThan(3_000_000);
    expect(narrow.bytes).toBeLessThan(5_000_000);
  });

  test("comes out of what all sessions share, too, and is there for the next one", () => {
    const pool = new ReceivePool(4 * mebibyte);
    const pace = new FakePace(100);
    const flowOf = (): Flow => new Flow(new ReceiveBudget({ maxStreams, budgetBytes: laptopBudgetBytes, pool }), pace);
    const flows = Array.from({ length: 20 }, flowOf);
    for (let turn = 0; turn < 20; turn += 1) for (const flow of flows) flow.turn(100);
    expect(flows.reduce((sum, { bytes }) => sum + bytes - initialWindowBytes, 0)).toBeLessThanOrEqual(4 * mebibyte);
    const late = flowOf();
    for (let turn = 0; turn < 20; turn += 1) for (const flow of [...flows, late]) flow.turn(100);
    const sizes = [...flows, late].map(({ bytes }) => bytes);
    expect(Math.max(...sizes)).toBeLessThan(2 * Math.min(...sizes));
    for (const flow of [...flows, late]) flow.window.end(0);
    expect(pool.freeBytes).toBe(4 * mebibyte);
  });

  test("is there for a quick reader although every stream before it holds what it could get", () => {
    const [budget, pace] = [new ReceiveBudget(limits), new FakePace()];
    for (let count = 0; count < 1000; count += 1) expect(new Flow(budget, pace).bytes).toBeGreaterThan(2000);
    const fresh = new Flow(budget, pace);
    for (let turn = 0; turn < 5; turn += 1) fresh.turn(10);
    expect(fresh.bytes).toBeGreaterThan(startWindowBytes);
  });

  test("narrows as others come, and is given back at the end", () => {
    const [budget, pace] = [new ReceiveBudget(limits), new FakePace()];
    const flows = Array.from({ length: 200 }, () => new Flow(budget, pace));
    for (let turn = 0; turn < 20; turn += 1) for (const flow of flows) flow.turn(1);
    const sizes = flows.map((flow) => flow.bytes);
    expect(Math.max(...sizes)).toBeLessThan(2 * Math.min(...sizes));
    for (const flow of flows) flow.window.end(0);
    expect(budget.lentBytes).toBe(0);
    const alone = new Flow(budget, pace);
    alone.turn(1);
    expect(alone.bytes).toBeGreaterThan(100_000);
  });

  test("never lends more than the budget, and never leaves a reader without credit", () => {
    const step = fc.tuple(fc.nat(39), fc.nat(300_000), fc.nat(300_000), fc.nat(60), fc.nat(99));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 400 }), (steps) => {
        const budget = new ReceiveBudget({ maxStreams: 40, budgetBytes: mebibyte });
        const pace = new FakePace();
        const open = (): { window: ReceiveWindow; waiting: number } => {
          const window = new ReceiveWindow(budget, pace);
          window.open();
          return { window, waiting: 0 };
        };
        const streams = Array.from({ length: 40 }, open);
        for (const [index, arrive, read, ms, fate] of steps) {
          const stream = streams[index]!;
          const arriving = Math.min(arrive, stream.window.leftBytes);
          stream.window.arrived(arriving);
          stream.waiting += arriving;
          pace.ms += ms;
          const reading = Math.min(read, stream.waiting);
          stream.waiting -= reading;
          if (reading > 0) stream.window.taken(reading, stream.waiting);
          if (fate < 3) {
            stream.window.end(0);
            streams[index] = open();
          }
          const held = streams.reduce((sum, { window, waiting }) => sum + window.leftBytes + waiting, 0);
          expect(held).toBeLessThanOrEqual(mebibyte);
          expect(budget.lentBytes).toBeGreaterThanOrEqual(0);
          for (const { window, waiting } of streams) expect(waiting + window.leftBytes).toBeGreaterThan(0);
        }
        for (const { window } of streams) window.end(0);
        expect(budget.lentBytes).toBe(0);
      }),
    );
  });
});

describe("a session", () => {
  /** As many bytes as fit are sent on each stream, and nobody reads them. */
  async function fill(pair: Awaited<ReturnType<typeof createSessionPair>>, count: number): Promise<TunnelStream[]> {
    const block = Buffer.alloc(300_000, 1);
    const streams = await Promise.all(
      Array.from({ length: count }, async () => await pair.opener.open(tcp, new AbortController().signal)),
    );
    for (const stream of streams) stream.write(block);
    return streams;
  }

  test("holds at most its budget for 1,000 readers that never read, while others go on", async () => {
    await using pair = await createSessionPair(undefined, { limits });
    const silent: SessionStream[] = [];
    let reads = false;
    pair.accepter.onIncoming((incoming) => {
      const stream = incoming.accept() as SessionStream;
      if (reads) stream.pipe(stream);
      else silent.push(stream);
    });
    const before = heldBytes();
    await fill(pair, 1000);
    reads = true;
    const echo = await pair.opener.open(tcp, live);
    let got = 0;
    echo.on("data", (chunk: Buffer) => (got += chunk.length));
    echo.end(Buffer.alloc(4 * mebibyte));
    await once(echo, "end");
    expect(got).toBe(4 * mebibyte);
    const waiting = silent.map((stream) => stream.receivedBytes);
    const sum = waiting.reduce((total, bytes) => total + bytes, 0);
    expect(Math.min(...waiting)).toBeGreaterThanOrEqual(initialWindowBytes);
    expect(sum).toBeLessThanOrEqual(limits.budgetBytes);
    expect(sum).toBeGreaterThan(limits.budgetBytes / 4);
    // What the senders' blocks cost beside it is one block, which all of them share.
    // Without the budget it would be 32 times as much.
    expect(heldBytes() - before).toBeLessThan(4 * limits.budgetBytes);
  });

  test("gives all of it to readers that come late, however scarce credit was", async () => {
    await using pair = await createSessionPair(undefined, { limits: { maxStreams: 400, budgetBytes: mebibyte } });
    const accepted: TunnelStream[] = [];
    pair.accepter.onIncoming((incoming) => accepted.push(incoming.accept()));
    const streams = await fill(pair, 300);
    const totals = accepted.map(async (stream) => {
      let bytes = 0;
      stream.on("data", (chunk: Buffer) => (bytes += chunk.length));
      await once(stream, "end");
      return bytes;
    });
    for (const stream of streams) stream.end();
    expect(new Set(await Promise.all(totals))).toEqual(new Set([300_000]));
  });

  test("counts streams that are gone for the far end until they were read", async () => {
    await using pair = await createSessionPair(undefined, { limits: { maxStreams: 3, budgetBytes: mebibyte } });
    const accepted: TunnelStream[] = [];
    pair.accepter.onIncoming((incoming) => {
      const stream = incoming.accept();
      accepted.push(stream);
      stream.end();
    });
    const sendAndEnd = async (): Promise<void> => {
      const stream = await pair.opener.open(tcp, live);
      stream.resume().end("unread");
      await once(stream, "close");
    };
    for (let count = 0; count < 3; count += 1) await sendAndEnd();
    await expect(sendAndEnd()).rejects.toMatchObject({ code: "busy" });
    accepted[0]?.resume();
    await once(accepted[0]!, "close");
    await sendAndEnd();
  });
});
