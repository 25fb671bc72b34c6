// The daemon and the helper, started as real processes by the command.
//
// Stories of the original that these tests hold against: several commands at once started several daemons, or killed
// each other's (2.18); a stale socket left by a killed daemon hung the next start (2.1.4); "daemon did not start" with
// no reason (2.4.3).
import { createServer } from "node:net";
import { existsSync, readFileSync } from "node:fs";
import { once } from "node:events";
import { spawn } from "node:child_process";
import type { Socket } from "node:net";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, inject, test } from "vitest";
import { AppError } from "#base/error.ts";
import { Interrupts } from "#cli/interrupts.ts";
import type { ProgramName } from "#cli/laptop.ts";
import type { HelperStart, Machine, ProgramEnd, ServicePlaces, StartedProgram } from "#cli/machine.ts";
import { tryLock } from "#host/lock.ts";
import { runHere } from "./run-cli.ts";
import type { Outcome } from "./run-cli.ts";
import { connection, makeHome, ScriptedDaemon } from "./scripted-daemon.ts";

const programFile = join(inject("programs"), "daemon", "start.js");

let home: ReturnType<typeof makeHome>;
beforeEach(() => {
  home = makeHome();
});
afterEach(async () => {
  await run(["quit"]);
  home[Symbol.dispose]();
});

const commandOf =
  (modes: Partial<Record<ProgramName, string>> = {}) =>
  (program: ProgramName): readonly string[] => [process.execPath, programFile, modes[program] ?? program];

const run = (argv: readonly string[], modes: Partial<Record<ProgramName, string>> = {}): Promise<Outcome> =>
  runHere(argv, { env: home.env, cwd: home.path, commandOf: commandOf(modes) });

const socketPath = (): string => join(home.path, "telepresence", "daemon.sock");
const starts = (file = "starts"): number => readFileSync(join(home.path, file), "utf8").trim().split("\n").length;
const connectedLine = "Connected to context kind-dev, namespace default (https://127.0.0.1:6443)";

describe("connect", () => {
  test("starts daemon and helper, says so, and quit ends them", async () => {
    expect(await run(["connect"])).toEqual({
      code: 0,
      stdout: `Launching Telepresence User Daemon\nLaunching Telepresence Root Daemon\n${connectedLine}\n`,
      stderr: "",
    });
    expect(await run(["connect"])).toEqual({ code: 0, stdout: "", stderr: "" });
    const [pid] = readFileSync(join(home.path, "starts"), "utf8").split("\n");
    expect(existsSync(`/proc/${pid}`)).toBe(true);
    expect((await run(["quit"])).stdout).toBe("Telepresence Daemons quitting...done\n");
    expect((await run(["status"])).stdout).toContain("User Daemon: Not running");
  });

  test("starts one daemon and one helper for many commands at once", async () => {
    const outcomes = await Promise.all(Array.from({ length: 8 }, () => run(["connect"])));
    expect(outcomes.map(({ code, stderr }) => ({ code, stderr }))).toEqual(
      outcomes.map(() => ({ code: 0, stderr: "" })),
    );
    expect(outcomes.filter(({ stdout }) => stdout.includes(connectedLine))).toHaveLength(1);
    expect(starts()).toBe(1);
    expect(starts("helper-starts")).toBe(1);
  });

  test("takes no notice of the socket of a daemon that was killed", async () => {
    const source = `require("node:net").createServer().listen(${JSON.stringify(socketPath())}, () => console.log("up"))`;
    const killed = spawn(process.execPath, ["-e", source], { stdio: ["ignore", "pipe", "inherit"] });
    await once(killed.stdout, "data");
    killed.kill("SIGKILL");
    await once(killed, "exit");
    expect(existsSync(socketPath())).toBe(true);
    expect((await run(["status"])).stdout).toContain("User Daemon: Not running");
    expect((await run(["connect"])).code).toBe(0);
  });

  test("with a command: ends what it started, and nothing else", async () => {
    const inside = ["connect", "--", "sh", "-c", "test -S $XDG_RUNTIME_DIR/telepresence/daemon.sock && exit 5"];
    expect((await run(inside)).code).toBe(5);
    expect((await run(["status"])).stdout).toContain("User Daemon: Not running");
    await run(["connect"]);
    expect((await run(inside)).code).toBe(5);
    expect((await run(["status", "--format", "json"])).stdout).toContain('"running":true');
  });

  // The limit was let go before the wait began: behind a command that hung, every other hung, and took no signal.
  test("does not wait for ever for another command that starts the daemon", async () => {
    using _held = tryLock(join(home.path, "telepresence", "start.lock"));
    const interrupts = new Interrupts();
    const launching = Promise.withResolvers<void>();
    const machine = (real: Machine): Machine => ({
      ...real,
      tryStartLock: async () => {
        launching.resolve();
        return await real.tryStartLock();
      },
    });
    const outcome = runHere(["connect"], { env: home.env, cwd: home.path, machine, interrupts });
    await launching.promise;
    interrupts.raise("SIGTERM");
    expect((await outcome).code).toBe(143);
  });

  test("says why the daemon did not start", async () => {
    const { code, stderr, stdout } = await run(["connect"], { daemon: "daemon-that-fails" });
    expect({ code, stdout }).toEqual({ code: 1, stdout: "Launching Telepresence User Daemon\n" });
    expect(stderr).toMatch(
      /^telepresence: error: the user daemon ended with exit code 1: daemon failed: no room for the socket; its log is \S+\n$/,
    );
  });

  test("says why the helper did not start, and tells the daemon", async () => {
    const told = Promise.withResolvers<void>();
    const daemon = await ScriptedDaemon.start(home.path, {
      connect: async () => {
        await told.promise;
        throw new AppError("helper_failed", "the root helper was not started");
      },
    });
    const door = createServer().listen(join(home.path, "telepresence", "helper.sock"));
    await once(door, "listening");
    daemon.helperRunning = false;
    const failed = run(["connect"], { helper: "helper-that-fails" });
    await expect.poll(() => daemon.helperFailures, { timeout: 5000 }).toHaveLength(1);
    told.resolve();
    const { code, stderr } = await failed;
    door.close();
    await daemon.kill();
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^telepresence: error: the root helper ended with exit code 3 .*: \/dev\/net\/tun is missing; /,
    );
  });

  test("reports the daemon's own reason when the helper ended because of it", async () => {
    const daemon = await ScriptedDaemon.start(home.path, {
      connect: async () => {
        await expect.poll(() => daemon.helperFailures, { timeout: 5000 }).toHaveLength(1);
        throw new AppError("cluster_unreachable", "https://10.0.0.1 does not answer");
      },
    });
    daemon.helperRunning = false;
    const door = createServer().listen(join(home.path, "telepresence", "helper.sock"));
    await once(door, "listening");
    const { stderr } = await run(["connect"], { helper: "helper-that-fails" });
    expect(stderr).toBe("telepresence: error: https://10.0.0.1 does not answer\n");
    door.close();
    await daemon.kill();
  });
});

describe("the helper by way of sudo", () => {
  interface Sudo {
    readonly asked: HelperStart[];
    readonly machine: (real: Machine) => Machine;
  }
  /** A laptop whose user is not root; `answer` is what sudo does. */
  type Answer = ProgramEnd | Promise<ProgramEnd> | "begun" | undefined;
  const sudo = (hasTerminal: boolean, answer: (how: HelperStart, socket: Socket) => Answer): Sudo => {
    let begun = false;
    const asked: HelperStart[] = [];
    const startHelper = async (how: HelperStart, socket: Socket): Promise<StartedProgram> => {
      asked.push(how);
      const end = answer(how, socket);
      begun = end === "begun";
      const ended = end === undefined || end === "begun" ? new Promise<ProgramEnd>(() => undefined) : end;
      return {
        pid: 99_999_997,
        ended: Promise.resolve(ended),
        stop: () => undefined,
        lastWords: async () => "sudo: a password is required",
      };
    };
    const helperCommandLine = "sudo /opt/telepresence helper";
    const machine = (real: Machine): Machine => ({
      ...real,
      isRoot: false,
      hasTerminal,
      helperCommandLine,
      startHelper,
      helperHasBegun: () => begun,
    });
    return { asked, machine };
  };
  const refused: ProgramEnd = { code: 1, signal: undefined };

  let daemon: ScriptedDaemon;
  let door: ReturnType<typeof createServer>;
  beforeEach(async () => {
    daemon = await ScriptedDaemon.start(home.path);
    daemon.helperRunning = false;
    door = createServer().listen(join(home.path, "telepresence", "helper.sock"));
    await once(door, "listening");
  });
  afterEach(async () => {
    door.close();
    await daemon[Symbol.asyncDispose]();
  });

  const connectWith = (machine: Sudo["machine"], terminal = false): Promise<Outcome> =>
    runHere(["connect"], { env: home.env, machine, terminal });

  test("is started without a question where sudo asks none", async () => {
    const { asked, machine } = sudo(false, () => {
      daemon.helperRunning = true;
      return undefined;
    });
    const { code, stderr } = await connectWith(machine);
    expect({ code, stderr, asked }).toEqual({ code: 0, stderr: "", asked: ["sudo-quietly"] });
  });

  // Killed between the daemon's hello and `connect`: the command waited two minutes for a helper that nobody started.
  test("is started anew where the one that ran has ended since", async () => {
    await daemon[Symbol.asyncDispose]();
    daemon = await ScriptedDaemon.start(home.path, {
      connect: () => {
        if (daemon.methods().length > 1) return { fresh: true, installedManager: false, connection, warnings: [] };
        daemon.helperRunning = false;
        throw new AppError("helper_failed", "the root helper has ended");
      },
    });
    const { asked, machine } = sudo(false, () => {
      daemon.helperRunning = true;
      return undefined;
    });
    expect(await connectWith(machine)).toMatchObject({ code: 0, stderr: "" });
    expect({ asked, calls: daemon.methods() }).toEqual({ asked: ["sudo-quietly"], calls: ["connect", "connect"] });
  });

  test("does not wait for a helper that takes its time", async () => {
    const { asked, machine } = sudo(true, () => "begun");
    expect((await connectWith(machine)).code).toBe(0);
    expect(asked).toEqual(["sudo-quietly"]);
  });

  // A directory service far away made `sudo -n` refuse after 150 ms, and then nobody asked for the password.
  test("asks for the password when sudo refuses late", async () => {
    const hellos = (): number => daemon.calls.filter(({ method }) => method === "hello").length;
    const { asked, machine } = sudo(true, (how) => {
      if (how === "sudo-on-terminal") return "begun";
      return expect
        .poll(hellos, { timeout: 10_000 })
        .toBeGreaterThan(20)
        .then(() => refused); // 20 ms each
    });
    expect((await connectWith(machine, true)).code).toBe(0);
    expect(asked).toEqual(["sudo-quietly", "sudo-on-terminal"]);
  });

  test("names the exact command before sudo asks", async () => {
    const { asked, machine } = sudo(true, (how) => {
      if (how === "sudo-quietly") return refused;
      daemon.helperRunning = true;
      return undefined;
    });
    const { code, stderr } = await connectWith(machine, true);
    expect(code).toBe(0);
    expect(asked).toEqual(["sudo-quietly", "sudo-on-terminal"]);
    expect(stderr).toContain("Need root privileges to run: sudo /opt/telepresence helper\n");
  });

  test("fails with the next step where there is nobody to ask", async () => {
    const { machine } = sudo(false, () => refused);
    const { code, stderr } = await connectWith(machine);
    expect(code).toBe(1);
    expect(stderr).toBe(
      "telepresence: error: sudo needs a password for the root helper, and there is no terminal to ask on; " +
        "run the command in a terminal, or let sudo run `/opt/telepresence helper` without a password\n",
    );
    await expect.poll(() => daemon.helperFailures).toHaveLength(1);
    expect(daemon.methods()).not.toContain("connect");
  });

  test("fails when sudo refuses", async () => {
    const { machine } = sudo(true, () => refused);
    const { code, stderr } = await connectWith(machine);
    expect(code).toBe(1);
    expect(stderr).toContain(
      "the root helper ended with exit code 1 before it was ready: sudo: a password is required",
    );
  });

  test("is not called where the helper was set up as a service", async () => {
    const { asked, machine } = sudo(true, () => refused);
    const { code, stderr } = await connectWith((real) => ({ ...machine(real), helperService: true }));
    expect({ code, stderr, asked }).toEqual({ code: 0, stderr: "", asked: [] });
    expect(daemon.methods()).toEqual(["callHelper", "connect"]);
  });

  test("is called where that service is of another version, with the command that brings it up to date", async () => {
    await daemon[Symbol.asyncDispose]();
    daemon = await ScriptedDaemon.start(home.path, { callHelper: () => ({ problem: "it speaks protocol 7" }) });
    daemon.helperRunning = false;
    const { asked, machine } = sudo(false, () => "begun");
    expect(await connectWith((real) => ({ ...machine(real), helperService: true }))).toMatchObject({
      code: 0,
      stderr: "Warning: it speaks protocol 7; `telepresence helper install` sets the root helper up again\n",
    });
    expect(asked).toEqual(["sudo-quietly"]);
  });
});

describe("helper", () => {
  const places = (more: Partial<ServicePlaces> = {}): ServicePlaces => ({
    runsSystemd: true,
    uid: 1000,
    userId: async (name) => Number(name),
    users: [],
    version: undefined,
    setupCommand: (words) => ["sh", "-c", `echo setup "$@" >> ${home.path}/setup`, "sh", ...words],
    tryService: () => Promise.resolve(),
    ...more,
  });
  const helper = (words: readonly string[], more: Partial<ServicePlaces> = {}): Promise<Outcome> =>
    runHere(["helper", ...words], {
      env: home.env,
      machine: (real) => ({
        ...real,
        isRoot: false,
        helperService: true,
        helperCommandLine: "sudo /opt/telepresence helper",
        openServicePlaces: async () => places(more),
      }),
    });
  const done = (): string => readFileSync(join(home.path, "setup"), "utf8");

  test("install says what it makes, then makes it for the users that are named", async () => {
    const { code, stdout, stderr } = await helper(["install", "--allow-user", "1000,1001"]);
    expect({ code, stdout }).toMatchInlineSnapshot(`
      {
        "code": 0,
        "stdout": "Making:
        a copy of this program that only root can change: /opt/telepresence-helper
        a socket that only user 1000 can connect to: /run/telepresence-helper/1000.sock
        a socket that only user 1001 can connect to: /run/telepresence-helper/1001.sock
        a systemd unit that starts a root helper for each connection: telepresence-helper-1000.socket
        a systemd unit that starts a root helper for each connection: telepresence-helper-1001.socket
      The root helper is set up: \`telepresence connect\` asks for no password any more
      ",
      }
    `);
    expect(stderr).toBe("");
    expect(done()).toBe("setup install 1000 1001\n");
  });

  test("install --dry-run asks for nothing and changes nothing", async () => {
    expect(await helper(["install", "--dry-run"])).toMatchObject({ code: 0, stderr: "" });
    expect(existsSync(join(home.path, "setup"))).toBe(false);
  });

  test("install says what there is instead where systemd does not run", async () => {
    expect(await helper(["install"], { runsSystemd: false })).toEqual({
      code: 1,
      stdout: "",
      stderr:
        "telepresence: error: this machine is not run by systemd, so the root helper cannot be its service; " +
        "let sudo run `/opt/telepresence helper` without a password, or use `telepresence connect --proxy`\n",
    });
  });

  test("install fails with its program", async () => {
    const { code, stderr } = await helper(["install"], { setupCommand: () => ["false"] });
    expect({ code, last: stderr.split("\n").at(-2) }).toEqual({
      code: 1,
      last: "telepresence: error: the root helper could not be set up or removed: exit code 1 of its program",
    });
  });

  test("status tells a service of another version, and tries it", async () => {
    const failed = (): Promise<void> => Promise.reject(new AppError("helper_failed", "it ended at once"));
    const { stdout } = await helper(["status"], { version: "0.0.1", users: [1000], tryService: failed });
    expect(stdout).toMatch(
      /^Root helper service: v0\.0\.1 \(this command is v\S+: .*up to date\)\n  Users: 1000\n  For you: it ended at once\n$/,
    );
    expect((await helper(["status"])).stdout).toContain("not set up as a service");
  });

  test("uninstall removes what there is, and says when there is nothing", async () => {
    expect((await helper(["uninstall"])).stdout).toBe("The root helper is not set up as a service\n");
    expect((await helper(["uninstall"], { version: "0.0.1", users: [1000] })).code).toBe(0);
    expect(done()).toBe("setup uninstall\n");
  });

  test("knows no other word", async () => {
    expect((await helper(["instal"])).code).toBe(2);
  });
});
