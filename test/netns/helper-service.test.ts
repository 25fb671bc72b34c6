// The root helper as a service: what systemd does with a connection (Accept=yes, StandardInput=socket) is done by this
// test, with the command line of the unit.
import { createServer, type Server } from "node:net";
import { once } from "node:events";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { openHelperDoor } from "#daemon/helper-client.ts";
import type { HelperDoor } from "#daemon/helper-client.ts";
import { Laptop } from "./laptop.ts";

const signal = new AbortController().signal;
const helperFile = join(import.meta.dirname, "..", "..", "src", "helper", "main.ts");

let laptop: Laptop;
let door: HelperDoor;
let service: Server;
let ended: Promise<unknown>[];

beforeEach(async () => {
  laptop = new Laptop();
  door = await openHelperDoor({ path: `${laptop.directory}/helper.sock`, clock: systemClock, log: silentLogger });
});
afterEach(async () => {
  await door[Symbol.asyncDispose]();
  service.close();
  await laptop[Symbol.asyncDispose]();
});

async function serve(uid: number): Promise<string> {
  const path = `${laptop.directory}/service.sock`;
  ended = [];
  service = createServer({ pauseOnConnect: true }, (socket) => {
    const command = [process.execPath, helperFile, "service", String(uid)];
    const child = laptop.start("laptop", command, [socket, "ignore", "ignore"]);
    ended.push(once(child, "exit"));
    child.once("spawn", () => socket.destroy());
  }).listen(path);
  await once(service, "listening");
  return path;
}

test("the daemon calls a helper, which undoes everything and ends with the connection", async () => {
  const before = laptop.snapshot();
  await door.callService(await serve(process.getuid?.() ?? 0), signal);
  const { current: helper } = door;
  const opened = await helper?.openDevice({ addresses: ["246.246.0.1/29"], mtu: 1500 });
  await helper?.setRoutes({ routes: ["10.96.0.0/12"], never: [] });
  expect(laptop.ip("route")).toContain("10.96.0.0/12");
  await door.dismiss();
  opened?.device.close();
  expect((await Promise.all(ended))[0]).toEqual([0, null]);
  await expect.poll(() => laptop.snapshot()).toBe(before);
});

test("a helper serves nobody but the user it was set up for", async () => {
  await expect(door.callService(await serve(4242), signal)).rejects.toThrow("the root helper ended");
  expect(door.current).toBeUndefined();
});

test("a service that is not there fails at once", async () => {
  await serve(0);
  await expect(door.callService(`${laptop.directory}/nobody.sock`, signal)).rejects.toThrow("does not answer on");
});
