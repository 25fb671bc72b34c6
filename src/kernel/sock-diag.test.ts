// With this machine's own kernel: reading needs no privilege, ending does.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import {
  connectionOwner,
  datagramOwner,
  destroyConnections,
  destroyObstacle,
  listConnections,
  tellsOwners,
} from "./sock-diag.ts";

const open: (Server | Socket)[] = [];
afterEach(() => {
  for (const thing of open.splice(0)) {
    if ("destroy" in thing) thing.destroy();
    else thing.close();
  }
});

async function connections(count: number): Promise<{ port: number; callers: Socket[] }> {
  const server = createServer((socket) => void open.push(socket.on("error", () => undefined)));
  open.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const callers: Socket[] = [];
  for (let index = 0; index < count; index += 1) {
    const caller = connect(port, "127.0.0.1");
    open.push(caller);
    callers.push(caller);
    await once(caller, "connect");
  }
  return { port, callers };
}

describe("listConnections()", () => {
  test("finds connections by the port of either end", async () => {
    const { port, callers } = await connections(2);
    const ports = callers.map(({ localPort }) => localPort).toSorted((a, b) => Number(a) - Number(b));
    const byLocal = listConnections({ localPort: port, states: [1] });
    expect(byLocal.truncated).toBe(false);
    expect(byLocal.connections.map(({ remote }) => remote.port).toSorted((a, b) => Number(a) - Number(b))).toEqual(
      ports,
    );
    expect(byLocal.connections[0]).toMatchObject({ state: 1, local: { address: "127.0.0.1", port }, unreadBytes: 0 });
    expect(byLocal.connections[0]?.traffic).toMatchObject({ receivedBytes: 0 });
    const byRemote = listConnections({ remotePort: port, states: [1] });
    expect(byRemote.connections.map(({ local }) => local.port).toSorted((a, b) => Number(a) - Number(b))).toEqual(
      ports,
    );
    expect(listConnections({ localPort: port, states: [8] }).connections).toEqual([]);
  });
  test("stops at its limit and says so", async () => {
    const { port } = await connections(3);
    const { connections: found, truncated } = listConnections({ localPort: port, states: [1], limit: 2 });
    expect([found.length, truncated]).toEqual([2, true]);
  });
});

test("connectionOwner() knows whose program is at the other end, and no connection that is none", async () => {
  const { port, callers } = await connections(1);
  const local = { address: "127.0.0.1", port: callers[0]!.localPort! };
  const remote = { address: "127.0.0.1", port };
  expect(connectionOwner({ local, remote })).toBe(process.getuid?.());
  expect(connectionOwner({ local: { ...local, port: 1 }, remote })).toBeUndefined();
});

test("connectionOwner() takes nobody for root: a connection that was closed at once, and a port that only listens", async () => {
  const server = createServer({ allowHalfOpen: true });
  open.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const caller = connect(port, "127.0.0.1");
  const [[accepted]] = (await Promise.all([once(server, "connection"), once(caller, "connect")])) as [
    [Socket],
    unknown,
  ];
  open.push(accepted);
  const local = { address: "127.0.0.1", port: caller.localPort! };
  const remote = { address: "127.0.0.1", port };
  caller.destroy();
  await once(accepted.resume(), "end");
  expect(connectionOwner({ local, remote })).toBeUndefined();
  expect(connectionOwner({ local: remote, remote: local })).toBe(process.getuid?.());
  expect(connectionOwner({ local: remote, remote: { ...local, port: 1 } })).toBeUndefined();
});

test("datagramOwner() knows whose program sends datagrams", async () => {
  const [own, other] = [createSocket("udp4"), createSocket("udp4")];
  const bound = Promise.all([once(own, "listening"), once(other, "listening")]);
  own.bind(0, "127.0.0.1");
  other.bind(0); // on all addresses
  await bound;
  const local = { address: "127.0.0.1", port: own.address().port };
  const remote = { address: "127.0.0.1", port: other.address().port };
  expect(datagramOwner({ local, remote })).toBe(process.getuid?.());
  expect(tellsOwners(local, "udp")).toBe(true);
  await new Promise<void>((resolve) => void other.close(resolve));
  expect(datagramOwner({ local, remote })).toBeUndefined();
  own.close();
});

test("tellsOwners() knows by a socket of one's own whether the kernel tells", async () => {
  const { port } = await connections(0);
  expect(tellsOwners({ address: "127.0.0.1", port }, "tcp")).toBe(true);
});

test("destroyConnections() ends another's connection, or destroyObstacle() says why it cannot", async () => {
  const { port, callers } = await connections(1);
  const { connections: found } = listConnections({ localPort: port, states: [1] });
  const obstacle = destroyObstacle();
  if (obstacle === undefined) {
    const failed = once(callers[0]!, "error");
    expect(destroyConnections(found)).toBe(1);
    expect(await failed).toMatchObject([{ code: "ECONNRESET" }]);
    expect(destroyConnections(found)).toBe(0);
  } else {
    expect(obstacle).toMatchObject({ code: "unsupported" });
    expect(() => destroyConnections(found)).toThrow(obstacle.message);
  }
});
