// The daemon's side of the helper's socket, with the helper played by the test: what it may say, and when it may go.
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { AppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import { openHelperDoor } from "#daemon/helper-client.ts";
import type { Helper, HelperDoor } from "#daemon/helper-client.ts";
import { HelperFailures } from "#daemon/helper-failures.ts";

interface Request {
  readonly id: number;
  readonly verb: string;
  readonly params: unknown;
}

let directory: string;
let path: string;
let clock: FakeClock;
let door: HelperDoor;
const sockets: Socket[] = [];

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "door-"));
  path = join(directory, "helper.sock");
  clock = new FakeClock();
  door = await openHelperDoor({ path, clock, log: silentLogger });
});
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await door[Symbol.asyncDispose]();
  if (clock.pending > 0) throw new Error(`${clock.pending} timers are left`);
  rmSync(directory, { recursive: true });
});

/** Connects as a helper that answers what `answers` says, and nothing to the rest. */
async function play(
  answers: Readonly<Record<string, unknown>> = {},
  where = path,
): Promise<{ socket: Socket; heard: Request[] }> {
  const socket = connect(where);
  sockets.push(socket);
  socket.on("error", () => undefined);
  await new Promise<void>((resolve) => socket.once("connect", () => resolve()));
  const heard: Request[] = [];
  const all: Readonly<Record<string, unknown>> = { hello: { version: "9.9.9", pid: 4711 }, bye: {}, ...answers };
  const lines = createInterface({ input: socket });
  lines.on("error", () => undefined); // the socket's own, once more
  lines.on("line", (line) => {
    const request = JSON.parse(line) as Request;
    heard.push(request);
    const answer = all[request.verb];
    if (answer instanceof Error) {
      socket.write(`${JSON.stringify({ id: request.id, error: { code: "denied", message: answer.message } })}\n`);
    } else if (answer !== undefined) {
      socket.write(`${JSON.stringify({ id: request.id, result: answer })}\n`);
    }
  });
  socket.write('{"ready":true}\n');
  return { socket, heard };
}
const signal = new AbortController().signal;
const arrive = (): Promise<Helper> => door.wait(signal);

describe("the door", () => {
  test("is the user's alone, and a helper is one that says hello", async () => {
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(door.current).toBeUndefined();
    const arriving = arrive();
    await play();
    expect(await arriving).toMatchObject({ version: "9.9.9", pid: 4711 });
    expect(door.current).toBe(await arrive());
  });

  test("waits no longer than its caller, and forgets who never spoke", async () => {
    expect(door.isExpected).toBe(false);
    const socket = connect(path);
    sockets.push(socket);
    await new Promise<void>((resolve) => socket.once("connect", () => resolve()));
    await expect.poll(() => door.isExpected).toBe(true);
    const controller = new AbortController();
    const waiting = door.wait(controller.signal);
    controller.abort(new Error("no longer"));
    await expect(waiting).rejects.toThrow("no longer");
    await play();
    expect((await arrive()).pid).toBe(4711);
  });

  test("turns a second helper away while the first lives", async () => {
    await play();
    const first = await arrive();
    const second = await play();
    await new Promise((resolve) => second.socket.once("close", resolve));
    expect(door.current).toBe(first);
  });

  // `sudo` refused once; the failure was kept, and ended the next `connect` although its helper was on its way.
  test("tells of a helper on its way, before it has spoken, so that earlier failures no longer count", async () => {
    const failures = new HelperFailures();
    failures.report(new AppError("helper_failed", "sudo: a password is required"));
    const told = Promise.withResolvers<void>();
    let candidates = 0;
    const onCandidate = (): void => {
      candidates += 1;
      failures.forget();
      told.resolve();
    };
    await using other = await openHelperDoor({ path: `${path}-2`, onCandidate, clock, log: silentLogger });
    const socket = connect(`${path}-2`);
    sockets.push(socket);
    await told.promise;
    const controller = new AbortController();
    const waiting = Promise.race([other.wait(controller.signal), failures.next(controller.signal)]);
    controller.abort(new Error("still waiting"));
    await expect(waiting).rejects.toThrow("still waiting");
    expect(candidates).toBe(1);
  });

  // Story: a `connect` failed at once, its helper came later or was just ending; the next `connect` got that one, and
  // "the root helper was ended" was all that its user heard.
  test("dismisses the helper of what has failed, there or on its way, before the next one comes", async () => {
    const candidate = { came: Promise.withResolvers<void>() };
    const onCandidate = (): void => candidate.came.resolve();
    await using other = await openHelperDoor({ path: `${path}-2`, onCandidate, clock, log: silentLogger });
    await play({}, `${path}-2`);
    await other.wait(signal);
    await other.dismiss();
    expect(other.current).toBeUndefined();

    candidate.came = Promise.withResolvers();
    const onItsWay = connect(`${path}-2`).on("error", () => undefined);
    sockets.push(onItsWay);
    await candidate.came.promise;
    await other.dismiss();
    await new Promise((resolve) => onItsWay.resume().once("close", resolve));

    const arriving = other.wait(signal);
    await play({ hello: { version: "9.9.9", pid: 4712 } }, `${path}-2`);
    expect((await arriving).pid).toBe(4712);
  });

  test("lets the next one in when the first is gone", async () => {
    const { socket } = await play();
    const first = await arrive();
    const lost = new Promise((resolve) => first.onLost(resolve));
    socket.destroy();
    await lost;
    expect(door.current).toBeUndefined();
    const arriving = arrive();
    await play();
    expect(await arriving).not.toBe(first);
  });
});

describe("a helper", () => {
  test("is asked one thing at a time and answers with results or errors", async () => {
    const { heard } = await play({ "routes.set": { added: 1, removed: 0 }, "dns.unhook": new Error("not now") });
    const helper = await arrive();
    const both = [helper.setRoutes({ routes: ["10.0.0.0/8"], never: [] }), helper.unhookDns()] as const;
    expect(await both[0]).toEqual({ added: 1, removed: 0 });
    await expect(both[1]).rejects.toMatchObject({ code: "denied", message: "not now" });
    expect(heard.map(({ verb }) => verb)).toEqual(["hello", "routes.set", "dns.unhook"]);
  });

  test("that goes away fails the call under way and every later one, and is lost once", async () => {
    const { socket, heard } = await play();
    const helper = await arrive();
    const losses: string[] = [];
    helper.onLost((error) => void losses.push(error.message));
    const call = helper.unhookDns();
    const failed = call.catch((error: unknown) => error);
    await expect.poll(() => heard.length).toBe(2);
    socket.destroy();
    expect(await failed).toMatchObject({ message: "the root helper ended" });
    await expect(helper.unhookDns()).rejects.toThrow("the root helper ended");
    expect(losses).toEqual(["the root helper ended"]);
    await new Promise<void>((resolve) => helper.onLost(() => resolve())); // late listeners hear of it too
  });

  test.each([
    ["no JSON", "nonsense\n"],
    ["an answer to nothing", '{"id":99,"result":{}}\n'],
    ["a line without end", "x".repeat(200_000)],
  ])("that says %s is lost", async (_, text) => {
    const { socket } = await play();
    const helper = await arrive();
    const lost = new Promise<Error>((resolve) => helper.onLost(resolve));
    socket.write(text);
    expect(await lost).toMatchObject({ code: "protocol" });
  });

  test("whose answer has the wrong shape, or lacks the device, fails the call", async () => {
    await play({ "routes.set": { added: "many" }, "device.open": { name: "tel0", index: 3, mtu: 1500 } });
    const helper = await arrive();
    await expect(helper.setRoutes({ routes: [], never: [] })).rejects.toThrow("malformed");
    await expect(helper.openDevice({ addresses: ["246.246.0.1/30"], mtu: 1500 })).rejects.toThrow("without the device");
  });

  test("that does not answer in time is lost", async () => {
    const { heard } = await play();
    const helper = await arrive();
    const failed = helper.unhookDns().catch((error: unknown) => error);
    await expect.poll(() => heard.length).toBe(2);
    await clock.advance(15_000);
    expect(await failed).toMatchObject({ message: expect.stringContaining("took longer than 15 s") as string });
    expect(door.current).toBeUndefined();
  });

  test("is told bye, and given up when it does not answer that", async () => {
    const { heard } = await play({ bye: undefined });
    const helper = await arrive();
    const closing = helper.close();
    await expect.poll(() => heard.at(-1)?.verb).toBe("bye");
    await clock.advance(3000);
    await closing;
    await helper.close();
    helper.onLost(() => expect.unreachable("closing is no loss"));
  });
});
