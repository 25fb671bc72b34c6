// A command line that is killed with -9, between the real command line and the daemon's real door: the daemon does what
// it can no longer do. Before, the user's own command lived on, and so did the connection that was made for it.
import { once } from "node:events";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { softwareVersion } from "#base/version.ts";
import { createHandlers } from "#daemon/control/handlers.ts";
import type { PrivateNetworks } from "#daemon/private-networks/door.ts";
import type { OwningCaller } from "#daemon/control/server.ts";
import { startControlServer } from "#daemon/control/server.ts";
import type { Supervisor } from "#daemon/supervisor.ts";
import { isAlive } from "#host/process.ts";
import { outcomeOf, startCli } from "./run-cli.ts";
import { connection, interceptInfo, makeHome } from "./scripted-daemon.ts";

let home: ReturnType<typeof makeHome>;
let server: AsyncDisposable;
let supervisor: PlayedSupervisor;
/** The id that the daemon was told of. */
let knownCommand: () => number | undefined;
beforeEach(async () => {
  home = makeHome();
  supervisor = new PlayedSupervisor();
  const callers: OwningCaller[] = [];
  knownCommand = () => callers.find(({ command }) => command !== undefined)?.command?.pid;
  const handlersFor = createHandlers(supervisor as unknown as Supervisor, {
    callHelper: () => Promise.resolve(),
    networks: new Map() as unknown as PrivateNetworks, // nothing enters one here
    clock: systemClock,
    log: silentLogger,
  });
  server = await startControlServer({
    path: join(home.path, "telepresence", "daemon.sock"),
    handlersFor: (caller) => {
      callers.push(caller);
      return handlersFor(caller);
    },
    onHelperFailed: () => undefined,
    clock: systemClock,
    log: silentLogger,
  });
});
afterEach(async () => {
  await server[Symbol.asyncDispose]();
  home[Symbol.dispose]();
});

/** What the handlers use of a supervisor and of its session, written down. */
class PlayedSupervisor {
  readonly seen: string[] = [];
  /** Called at each step that undoes something. */
  onStep: () => void = () => undefined;
  ended = Promise.withResolvers<void>();

  hello(): object {
    const daemon = { version: softwareVersion, pid: 99_999_999, executable: "telepresence", installId: "install-1" };
    return { ...daemon, connected: false, helperRunning: true };
  }
  async connect(): Promise<object> {
    return { fresh: true, installedManager: false, connection, warnings: [] };
  }
  async endUnused(): Promise<boolean> {
    return false;
  }
  async disconnect(): Promise<object> {
    this.#step("disconnect");
    return { wasConnected: true };
  }
  require(): object {
    return {
      intercept: async () => ({ info: interceptInfo("hello"), environment: {}, warnings: [] }),
      interceptEnded: () => this.ended.promise,
      leave: async () => {
        this.#step("leave");
        this.ended.resolve();
      },
    };
  }
  #step(name: string): void {
    this.seen.push(name);
    this.onStep();
  }
}

/** Starts the command line with a child that says its id, and resolves with both once the daemon knows it, too. */
async function start(
  argv: readonly string[],
  script: string,
): Promise<{ cli: ReturnType<typeof startCli>; pid: number }> {
  const cli = startCli([...argv, "--", "sh", "-c", `${script}; echo pid=$$; while :; do sleep 0.05; done`], home);
  let text = "";
  while (!/pid=\d+\n/.test(text)) {
    const [chunk] = (await once(cli.stdout, "data")) as [Buffer];
    text += chunk.toString();
  }
  const pid = Number(/pid=(\d+)/.exec(text)?.[1]);
  await expect.poll(knownCommand, { timeout: 5000 }).toBe(pid);
  return { cli, pid };
}

test("intercept -- cmd: the intercept is drained while the command still runs, then the command ends", async () => {
  const { cli, pid } = await start(["intercept", "hello"], ":");
  const aliveAt: boolean[] = [];
  supervisor.onStep = () => void aliveAt.push(isAlive(pid));
  cli.kill("SIGKILL");
  await expect.poll(() => isAlive(pid), { timeout: 5000 }).toBe(false);
  expect({ seen: supervisor.seen, aliveAt }).toEqual({ seen: ["leave"], aliveAt: [true] });
});

test("connect -- cmd: the command ends, then the connection that was made for it", async () => {
  const { cli, pid } = await start(["connect"], ":");
  const aliveAt: boolean[] = [];
  supervisor.onStep = () => void aliveAt.push(isAlive(pid));
  cli.kill("SIGKILL");
  await expect.poll(() => supervisor.seen, { timeout: 5000 }).toEqual(["disconnect"]);
  expect(aliveAt).toEqual([false]);
});

test("a command that does not want to end is killed after a while", { timeout: 15_000 }, async () => {
  const { cli, pid } = await start(["connect"], "trap '' TERM");
  cli.kill("SIGKILL");
  await expect.poll(() => supervisor.seen, { timeout: 10_000 }).toEqual(["disconnect"]);
  await expect.poll(() => isAlive(pid), { timeout: 5000 }).toBe(false);
});

test("a command that has ended by itself is undone by its command line, once", async () => {
  const cli = startCli(["connect", "--", "true"], home);
  expect((await outcomeOf(cli)).code).toBe(0);
  await server[Symbol.asyncDispose]();
  expect(supervisor.seen).toEqual(["disconnect"]);
});

test("a daemon that ends does not touch the command of a command line that lives", async () => {
  const { cli, pid } = await start(["connect"], ":");
  const outcome = outcomeOf(cli);
  await server[Symbol.asyncDispose]();
  expect(isAlive(pid)).toBe(true);
  expect(supervisor.seen).toEqual([]);
  cli.kill("SIGTERM");
  expect((await outcome).code).toBe(143);
});

test("an intercept that another command ended ends the child, without a question a second", async () => {
  const { cli } = await start(["intercept", "hello"], ":");
  const outcome = outcomeOf(cli);
  supervisor.ended.resolve();
  const { code, stderr } = await outcome;
  expect(code).toBe(143);
  expect(stderr).toBe("Warning: the intercept hello was ended by another command; ending sh\n");
  expect(supervisor.seen).toEqual([]); // it is over already
});
