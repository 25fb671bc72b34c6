// Trap 42: tunnels, dialers and waiters that stayed in the manager for each connection and each intercept; a channel that
// was closed twice; a far end that asked for more than was bounded. Daemon, manager, agent, application and the laptop's
// process are all in this one process, so what any of them keeps is seen here.
import { connect } from "node:net";
import { expect, test } from "vitest";
import { roundsOf } from "#base/rounds.fake.ts";
import type { TunnelSession } from "#tunnel/tunnel.ts";
import { ask, never, tcpServer, tick } from "#test/flow/manager/harness.ts";
import { collectGarbage } from "#test/held-memory.ts";
import { countOf, patience } from "#test/rounds.ts";
import { lab, noNetwork, openSession, params, portOf, quiet, stack } from "./session-lab.ts";

/** Connections each way, a multiple of 60, with a twentieth as many intercepts. */
const cycles = countOf(roundsOf(120, 1020), 20_040);
const within = { timeout: 10_000 };

interface Held {
  readonly handles: Readonly<Record<string, number>>;
  readonly heapBytes: number;
  readonly bufferBytes: number;
}

/** What the process holds when all that is under way has ended. */
async function held(): Promise<Held> {
  for (let turn = 0; turn < 20; turn += 1) await tick();
  collectGarbage();
  for (let turn = 0; turn < 20; turn += 1) await tick();
  collectGarbage();
  const handles: Record<string, number> = {};
  for (const name of process.getActiveResourcesInfo()) handles[name] = (handles[name] ?? 0) + 1;
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return { handles, heapBytes: heapUsed, bufferBytes: arrayBuffers };
}

/** What there is more of than may be. */
function growth(before: Held, now: Held): readonly string[] {
  const heapBytes = now.heapBytes - before.heapBytes;
  const bufferBytes = now.bufferBytes - before.bufferBytes;
  return [
    ...Object.keys(now.handles).filter((name) => now.handles[name]! > (before.handles[name] ?? 0)),
    ...(heapBytes < 1536 * 1024 ? [] : [`${heapBytes} bytes of heap`]),
    ...(bufferBytes < 4096 * 1024 ? [] : [`${bufferBytes} bytes of buffers`]),
  ];
}

async function inTurns(count: number, atOnce: number, run: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const one = async (): Promise<void> => {
    while (next < count) await run(next++);
  };
  await Promise.all(Array.from({ length: atOnce }, one));
}

test(
  `${cycles} connections each way and ${cycles / 20} intercepts leave nothing in manager, agent and daemon`,
  { timeout: patience(90_000, 1020, 20_040) },
  async () => {
    const { cluster, session, processPort } = await lab(["hello-1", "hello-2"]);
    const port = portOf(cluster.agents.get("hello-1"));
    let tunnel: TunnelSession | undefined;
    const other = stack.use(
      await openSession(cluster, "bob@desk", async (link, first, scope) => {
        tunnel = first.session;
        return await noNetwork(link, first, scope);
      }),
    );
    const target = stack.use(await tcpServer((socket) => socket.pipe(socket)));

    // vitest keeps what expect() has seen, so the loops count.
    const counts = { answered: 0, refused: 0 };
    /** Ends in order, with a reset, or before an answer. */
    const inbound = async (index: number): Promise<void> => {
      if (index % 3 === 0) {
        if ((await ask(port, "x")) === "laptop:x") counts.answered += 1;
        return;
      }
      const socket = connect({ port, host: "127.0.0.1" });
      await new Promise<void>((resolve) => socket.once("connect", resolve));
      if (index % 3 === 1) socket.resetAndDestroy();
      else socket.destroy();
    };
    /** Cut, ended with and without a byte, refused. */
    const outbound = async (index: number): Promise<void> => {
      const address = "127.0.0.1";
      if (index % 4 === 3) {
        await tunnel!.open({ kind: "tcp", target: { address, port: 1 } }, never).catch(() => (counts.refused += 1));
        return;
      }
      const stream = await tunnel!.open({ kind: "tcp", target: { address, port: target.port } }, never);
      const closed = new Promise<void>((resolve) => stream.once("close", () => resolve()));
      stream.on("error", () => undefined).resume();
      if (index % 4 === 0) stream.destroy();
      else if (index % 4 === 1) stream.end("x");
      else stream.end();
      await closed;
    };
    const intercepts = async (count: number): Promise<void> => {
      for (let number = 0; number < count; number += 1) {
        await session.intercept(params(processPort), quiet, never);
        await session.leave("hello", never);
      }
    };
    const run = async (connections: number): Promise<void> => {
      await session.intercept(params(processPort), quiet, never);
      await inTurns(connections, 20, inbound);
      await session.leave("hello", never);
      await inTurns(connections, 20, outbound);
      await intercepts(connections / 20);
      const busy = (): number => tunnel!.streamCount + target.connections.size;
      await expect
        .poll(() => [busy(), ...[...cluster.agents.values()].map((agent) => agent.openConnections)], {
          timeout: 10_000,
        })
        .toEqual([1, 0, 0]); // its API is the one that stays
    };

    await run(300); // what is made once, and compiled
    // Asked in the way that it is asked later, which has timers of its own.
    let before: Held | undefined;
    await expect.poll(async () => (before = await held()).heapBytes).toBeGreaterThan(0);
    await run(cycles);
    // Flat from here on: five times as many cycles stay below as well. Buffers are given back in pieces, and timers that
    // were there before may have ended since. Looked at together, because each look collects all garbage.
    await expect.poll(async () => growth(before!, await held()), within).toEqual([]);
    expect(counts).toEqual({ answered: (300 + cycles) / 3, refused: (300 + cycles) / 4 });
    expect([session.intercepts, other.intercepts, cluster.manager.registry.list(), cluster.watchers]).toEqual([
      [],
      [],
      [],
      0,
    ]);
  },
);
