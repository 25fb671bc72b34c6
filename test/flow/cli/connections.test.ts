// Several connections at once: which one a command is about, and what is said of all of them.
import { afterEach, beforeEach, describe, expect, inject, test, vi } from "vitest";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Interrupts } from "#cli/interrupts.ts";
import { runHere } from "./run-cli.ts";
import type { Outcome } from "./run-cli.ts";
import { connection, makeHome, ScriptedDaemon } from "./scripted-daemon.ts";

const programFile = join(inject("programs"), "daemon", "start.js");

let home: ReturnType<typeof makeHome>;
let daemons: ScriptedDaemon[];
beforeEach(() => {
  home = makeHome();
  daemons = [];
});
afterEach(async () => {
  await Promise.all(daemons.map((daemon) => daemon[Symbol.asyncDispose]()));
  home[Symbol.dispose]();
});

/** A connected daemon each; undefined is the one without a name. */
async function start(...names: readonly (string | undefined)[]): Promise<readonly ScriptedDaemon[]> {
  for (const name of names) {
    const status = (): ReturnType<ScriptedDaemon["status"]> => ({
      ...daemon.status(),
      ...(name === undefined ? {} : { name }),
    });
    const daemon: ScriptedDaemon = await ScriptedDaemon.start(home.path, { status }, undefined, name);
    daemon.connected = true;
    daemons.push(daemon);
  }
  return daemons;
}
const run = (...argv: readonly string[]): Promise<Outcome> => runHere(argv, { env: home.env, cwd: home.path });
const jsonOf = async (...argv: readonly string[]): Promise<unknown> =>
  JSON.parse((await run(...argv, "--format", "json")).stdout);
const asked = (): readonly (readonly string[])[] => daemons.map((daemon) => daemon.methods());

describe("the connection that a command is about", () => {
  test("is the one without a name, whatever others there are", async () => {
    await start(undefined, "dev");
    expect((await run("list")).code).toBe(0);
    expect(asked()).toEqual([["list"], []]);
  });

  test("is the only one there is, with or without a name", async () => {
    await start("dev");
    expect((await run("list")).code).toBe(0);
    expect(asked()).toEqual([["list"]]);
  });

  test("has to be said where several have names", async () => {
    await start("dev", "staging");
    expect(await run("list")).toMatchObject({
      code: 1,
      stderr: "telepresence: error: there are several connections: dev, staging; say which with --use NAME\n",
    });
    for (const words of [["dashboard"], ["cloud", "install"], ["preview", "list"]]) {
      expect((await run(...words)).stderr).not.toContain("several connections"); // about none
    }
    expect((await run("list", "--use", "stag")).code).toBe(0);
    expect((await run("intercept", "hello", "--use", "^dev$")).code).toBe(0);
    expect(asked()).toEqual([["intercept"], ["list"]]);
  });

  test("is the one of that name, before one that only matches it", async () => {
    await start("dev", "dev-2");
    expect((await run("list", "--use", "dev")).code).toBe(0);
    expect(asked()).toEqual([["list"], []]);
    expect(await run("list", "--use", "de")).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('--use "de" matches several connections: dev, dev-2'),
    });
    expect(await run("leave", "hello", "--use", "prod")).toMatchObject({
      code: 1,
      stderr: 'telepresence: error: --use "prod" matches no connection; running now: dev, dev-2\n',
    });
  });

  test("is not one of another name where a place is said", async () => {
    const [dev] = await start("dev");
    const outcome = await run("list", "--context", "other");
    expect(outcome.code).toBe(1); // it would start a daemon, which there is none of here
    expect(dev?.methods()).toEqual([]);
  });

  test.each([
    [["connect", "--name", "Dev!"], '--name is "Dev!", expected lower-case letters, digits and dashes, 40 at most'],
    [["list", "--name", "a", "--use", "b"], "--name and --use exclude each other"],
    [["list", "--use", "("], '--use is "(", expected a regular expression'],
  ])("is refused: %j", async (words, message) => {
    await start("dev");
    expect(await run(...words)).toMatchObject({ code: 2, stderr: expect.stringContaining(message) });
  });
});

describe("all connections", () => {
  test("are shown by status, and one of them by --use", async () => {
    await start(undefined, "dev");
    const { stdout } = await run("status");
    expect(stdout.match(/^Connection .*$/gm)).toEqual(["Connection default", "Connection dev"]);
    expect(await jsonOf("status")).toMatchObject({
      user_daemon: { kubernetes_context: connection.context }, // as it was with one
      connections: [
        { name: "default", user_daemon: { kubernetes_context: connection.context } },
        { name: "dev", user_daemon: { connection_name: "dev" } },
      ],
    });
    expect(await jsonOf("status", "--use", "dev")).toMatchObject({ user_daemon: { connection_name: "dev" } });
    expect(await jsonOf("version")).toMatchObject({ user_daemon: {}, connections: { default: {}, dev: {} } });
  });

  test("end with quit, or the one that --use means", async () => {
    await start(undefined, "dev", "staging");
    expect((await run("quit", "--use", "dev")).stdout).toBe("Telepresence Daemons quitting...done\n");
    expect(asked()).toEqual([[], ["quit"], []]);
    await daemons[1]?.kill();
    expect(await jsonOf("quit")).toMatchObject({
      was_running: true,
      was_connected: true,
      connections: ["default", "staging"],
    });
    expect(asked()).toEqual([["quit"], ["quit"], ["quit"]]);
  });

  test("quit --use has nothing to do where that one is gone, and says so", async () => {
    await start("dev");
    expect(await run("quit", "--use", "staging")).toMatchObject({
      code: 0,
      stdout: 'Not connected: --use "staging" matches no connection\n',
    });
    expect(await jsonOf("quit", "--use", "staging")).toEqual({ was_running: false, was_connected: false });
    await daemons[0]?.kill();
    expect(await run("quit", "--use", "dev")).toMatchObject({ code: 0, stdout: "Not connected\n" });
    expect(await run("quit", "--use", "(")).toMatchObject({ code: 2 });
    expect(asked()).toEqual([[]]);
  });

  test("are none where the sockets of ended ones are left", async () => {
    await start("dev");
    await daemons[0]?.kill();
    expect((await run("status")).stdout).toContain("User Daemon: Not running");
    expect((await run("quit")).stdout).toBe("Not connected\n");
  });
});

test("a connection with a name that is interrupted before it stands leaves no daemon", async () => {
  const commandOf = (program: string): readonly string[] => [process.execPath, programFile, program];
  const interrupts = new Interrupts();
  const onStdout = (piece: string): void => {
    if (piece.includes("Root Daemon")) interrupts.raise("SIGINT");
  };
  const options = { env: home.env, cwd: home.path, commandOf, interrupts, onStdout };
  const outcome = await runHere(["connect", "--name", "dev"], options);
  expect(outcome).toMatchObject({ code: 130, stdout: expect.stringContaining("User Daemon") });
  expect((await run("status")).stdout).toContain("User Daemon: Not running");
});

test("a connection that is interrupted while its daemon starts leaves no daemon to come up later", async () => {
  const pidFile = join(home.path, "pid");
  const silent = `require("fs").writeFileSync(${JSON.stringify(pidFile)}, String(process.pid)); setInterval(() => 0, 1e6)`;
  const interrupts = new Interrupts();
  const options = { env: home.env, cwd: home.path, commandOf: () => [process.execPath, "-e", silent], interrupts };
  const outcome = runHere(["connect", "--name", "dev"], options);
  const pid = await vi.waitUntil(() => existsSync(pidFile) && Number(readFileSync(pidFile, "utf8")), { timeout: 5000 });
  interrupts.raise("SIGINT");
  expect(await outcome).toMatchObject({ code: 130 });
  expect(() => process.kill(pid, 0)).toThrow("ESRCH");
});

test("connect --name starts a daemon of that name beside the others", async () => {
  const commandOf = (program: string): readonly string[] => [process.execPath, programFile, program];
  const cli = (...argv: readonly string[]): Promise<Outcome> =>
    runHere(argv, { env: home.env, cwd: home.path, commandOf });
  await start(undefined);
  expect(await cli("connect", "--name", "dev")).toMatchObject({ code: 0, stderr: "" });
  expect(existsSync(join(home.path, "telepresence/by-name/dev/daemon.sock"))).toBe(true);
  expect((await cli("connect", "--name", "dev")).stdout).toBe("");
  expect(daemons[0]?.methods()).toEqual([]);
  expect((await cli("quit", "--use", "dev")).code).toBe(0);
  expect((await cli("status")).stdout).toMatch(/^OSS User Daemon: Running/);
});
