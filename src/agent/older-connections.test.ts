// DESIGN 14: connections older than an attach stay with the application. Stories: counting the pod's own conversations
// among them counts the agent's; a caller that uses its port again is not an older one; a drain on "idle for 5 s" alone
// cuts a caller that waits for a slow answer.
import { once } from "node:events";
import { connect, createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { AppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import type { TcpConnection } from "#kernel/sock-diag-messages.ts";
import type { AgentPort } from "#wire/agent-api.ts";
import type { ExistingMode } from "#wire/manager-api.ts";
import { OlderConnections } from "./older-connections.ts";
import type { ConnectionTable } from "./older-connections.ts";
import { PassedConnections } from "./passed-connections.ts";

const podIp = "198.51.100.2";
const portOf = (takeover: AgentPort["takeover"], agentPort = 9900): AgentPort => ({
  agentPort,
  containerPort: 8080,
  containerName: "app",
  protocol: "tcp",
  takeover,
});

type Quiet = "busy" | "asked" | "answered";
const traffic = (quiet: Quiet): NonNullable<TcpConnection["traffic"]> => {
  const [sinceSentMs, sinceReceivedMs] = { busy: [20, 10], asked: [20_000, 15_000], answered: [5000, 5100] }[quiet];
  return {
    sinceSentMs: sinceSentMs!,
    sinceReceivedMs: sinceReceivedMs!,
    sinceAcknowledgedMs: 10,
    receivedBytes: 9,
    receivedSegments: 2,
  };
};
let lastCookie = 0;
const connection = (from: string, port: number, quiet: Quiet = "answered", rest: Partial<TcpConnection> = {}) => ({
  local: { address: podIp, port: 8080 },
  remote: { address: from, port },
  state: 1,
  cookie: `c${++lastCookie}`,
  unreadBytes: 0,
  unacknowledgedBytes: 0,
  traffic: traffic(quiet),
  identity: new Uint8Array(48),
  family: 4 as const,
  ...rest,
});

class FakeTable implements ConnectionTable {
  sockets: TcpConnection[] = [];
  reads = 0;
  refusal: AppError | undefined;

  list({ localPort = 0, remotePort = 0 }: Parameters<ConnectionTable["list"]>[0]) {
    this.reads += 1;
    const fits = (asked: number, port: number): boolean => asked === 0 || asked === port;
    const connections = this.sockets.filter((s) => fits(localPort, s.local.port) && fits(remotePort, s.remote.port));
    return { connections, truncated: false };
  }
  destroy(connections: readonly TcpConnection[]): number {
    this.sockets = this.sockets.filter((socket) => !connections.includes(socket));
    return connections.length;
  }
  obstacle(): AppError | undefined {
    return this.refusal;
  }
}

const open: { [Symbol.dispose](): void }[] = [];
afterEach(() => {
  for (const thing of open.splice(0)) thing[Symbol.dispose]();
});

async function setup(port: AgentPort = portOf("redirect"), openTable?: () => Promise<ConnectionTable>) {
  const table = new FakeTable();
  const clock = new FakeClock();
  const passed = new PassedConnections();
  const work = { perReadMs: 0 };
  const wanted: { mode: ExistingMode | undefined } = { mode: undefined };
  const older = new OlderConnections({
    ports: [port],
    podIps: [podIp],
    passed,
    clock,
    log: silentLogger,
    modeOf: () => wanted.mode,
    isInForce: () => true,
    openTable: openTable ?? (() => Promise.resolve(table)),
    processorMs: () => table.reads * work.perReadMs,
  });
  open.push(older);
  let changes = 0;
  older.onChange(() => (changes += 1));
  const take = (mode: ExistingMode | undefined): Promise<void> => {
    wanted.mode = mode;
    return older.during(() => Promise.resolve());
  };
  const counts = () => older.describe().map(({ connections, callers }) => [connections, callers]);
  return { table, clock, passed, older, take, counts, port, work, changes: () => changes };
}

describe("connections with the application itself", () => {
  // Story: on a machine that was busy with others each read seemed to take long, and a drain came seconds late.
  test("are looked at again in time, unless the read itself takes the processor", async () => {
    const { table, clock, take, work } = await setup();
    table.sockets = [connection("10.0.0.1", 1, "busy")];
    await take("drain");
    const { reads } = table;
    await clock.advance(1000);
    expect(table.reads).toBe(reads + 1);
    work.perReadMs = 100;
    await clock.advance(1000); // it costs 100 ms this time, and a fiftieth is the most
    await clock.advance(4900);
    expect(table.reads).toBe(reads + 2);
    await clock.advance(100);
    expect(table.reads).toBe(reads + 3);
  });

  test("are counted once the redirect is in force, and down to nothing, then looked at no more", async () => {
    const { table, clock, take, counts, changes, older } = await setup();
    table.sockets = [connection("10.0.0.1", 1), connection("10.0.0.1", 2), connection("10.0.0.2", 1)];
    expect(counts()).toEqual([]);
    await take("keep");
    expect(older.describe()).toEqual([
      { containerPort: 8080, protocol: "tcp", connections: 3, callers: 2, addresses: ["10.0.0.1", "10.0.0.2"] },
    ]);
    expect(changes()).toBe(1);
    table.sockets.splice(2);
    table.sockets.push(connection("10.0.0.3", 1)); // through the agent: newer
    await clock.advance(2000);
    expect(counts()).toEqual([[2, 1]]);
    await clock.advance(60_000);
    expect(changes()).toBe(2);
    table.sockets = [connection("10.0.0.1", 1)]; // the same port again
    await clock.advance(2000);
    expect(counts()).toEqual([[0, 0]]);
    const { reads } = table;
    await clock.advance(60_000);
    expect([table.reads, clock.pending]).toEqual([reads, 0]);
  });

  test("are not the pod's conversations with itself: loopback, a mesh's proxy, the agent's own", async () => {
    const { table, take, counts } = await setup();
    const asCaller = connection("10.0.0.1", 7);
    const farEnd = { ...asCaller, local: asCaller.remote, remote: asCaller.local, cookie: "own" };
    const loopback = { local: { address: "127.0.0.1", port: 8080 }, remote: { address: "127.0.0.1", port: 3 } };
    table.sockets = [asCaller, farEnd, connection("", 0, "busy", loopback), connection("10.0.0.1", 8)];
    await take("keep");
    expect(counts()).toEqual([[1, 1]]);
  });

  test("are counted anew when the port is intercepted again", async () => {
    const { table, take, counts } = await setup();
    await take("keep");
    await take(undefined);
    expect(counts()).toEqual([]);
    table.sockets = [connection("10.0.0.1", 1)];
    await take("keep");
    expect(counts()).toEqual([[1, 1]]);
  });

  test("drain: the idle are closed, those that are used or wait for an answer stay", async () => {
    const { table, clock, take, counts } = await setup();
    const [busy, waiting] = [connection("10.0.0.1", 1, "busy"), connection("10.0.0.1", 2, "asked")];
    table.sockets = [busy, waiting, connection("10.0.0.2", 1), connection("10.0.0.2", 2)];
    await take("drain");
    expect(table.sockets).toEqual([busy, waiting]);
    expect(counts()).toEqual([[2, 1]]);
    table.sockets[1] = { ...waiting, traffic: traffic("answered") };
    await clock.advance(1000);
    expect(table.sockets).toEqual([busy]);
  });

  test("reset: all are gone at once, however many", async () => {
    const { table, clock, take, counts } = await setup();
    table.sockets = Array.from({ length: 3000 }, (_, index) => connection("10.0.0.1", index, "busy"));
    await take("reset");
    await clock.advance(100);
    expect(table.sockets).toEqual([]);
    expect(counts()).toEqual([[0, 0]]);
  });

  test("where they cannot be ended they stay, and the reason is told", async () => {
    const { table, take, older } = await setup();
    table.refusal = new AppError("unsupported", "this kernel was built without it");
    table.sockets = [connection("10.0.0.1", 1)];
    await take("reset");
    expect(table.sockets.length).toBe(1);
    expect(older.describe()[0]).toMatchObject({ connections: 1 });
    expect(older.describe()[0]?.reason).toBe(
      "they cannot be closed from outside the application: this kernel was built without it",
    );
  });

  test("a table that cannot be read keeps no intercept from working", async () => {
    const fails = (): Promise<never> => Promise.reject(new AppError("unsupported", "no such table"));
    const { take, older, clock } = await setup(portOf("redirect"), fails);
    await take("keep");
    expect(older.describe()[0]).toMatchObject({
      connections: 0,
      reason: "the traffic-agent cannot read the kernel's table of connections",
    });
    expect(clock.pending).toBe(0);
  });
});

describe("connections that the agent passes", () => {
  async function passing(mode: ExistingMode) {
    const server = createServer({ allowHalfOpen: true });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port: agentPort } = server.address() as AddressInfo;
    const parts = await setup(portOf("name", agentPort));
    const outside = connect(agentPort, "127.0.0.1");
    const [caller] = (await once(server, "connection")) as [Socket];
    const outsideOfApp = connect({ port: agentPort, host: "127.0.0.1", allowHalfOpen: true });
    const [application] = (await once(server, "connection")) as [Socket];
    for (const socket of [caller, application, outside, outsideOfApp]) {
      socket.on("error", () => undefined);
      open.push({ [Symbol.dispose]: () => socket.destroy() });
    }
    open.push({ [Symbol.dispose]: () => server.close() });
    parts.passed.track(parts.port, { caller, application });
    const own = { local: { address: "127.0.0.1", port: agentPort } };
    const listed = connection("127.0.0.1", outside.localPort!, "answered", own);
    parts.table.sockets = [listed];
    await parts.take(mode);
    return { ...parts, caller, outside, listed };
  }

  test("keep: are counted until they end", async () => {
    const { counts, clock, caller, outside } = await passing("keep");
    expect(counts()).toEqual([[1, 1]]);
    caller.resume();
    outside.destroy();
    await once(caller, "end");
    caller.destroy();
    await clock.advance(2000);
    expect(counts()).toEqual([[0, 0]]);
  });

  test("drain: the caller reads an orderly end, and is cut off when it does not answer", async () => {
    const { outside, clock, caller, counts } = await passing("drain");
    outside.resume();
    await once(outside, "end");
    expect(counts()).toEqual([[1, 1]]);
    await clock.advance(6000);
    expect(caller.destroyed).toBe(true);
    await clock.advance(1000);
    expect(counts()).toEqual([[0, 0]]);
  });

  test("reset: are cut at once", async () => {
    const { counts, caller } = await passing("reset");
    expect(caller.destroyed).toBe(true);
    expect(counts()).toEqual([[0, 0]]);
  });
});
