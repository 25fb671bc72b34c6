// The command line as a real process: exit codes, signals, environment, and the user's own command after `--`.
//
// Stories of the original: the child's exit code was lost (2.25.2); the child survived `leave` and `quit` (2.6.0).
import { once } from "node:events";
import { rmSync, symlinkSync, writeFileSync } from "node:fs";
import { spawn } from "node:child_process";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { startFile, outcomeOf, runChild, runHere, startCli } from "./run-cli.ts";
import { makeHome, ScriptedDaemon } from "./scripted-daemon.ts";

let home: ReturnType<typeof makeHome>;
let daemon: ScriptedDaemon;
beforeEach(async () => {
  home = makeHome();
  daemon = await ScriptedDaemon.start(home.path);
});
afterEach(async () => {
  await daemon[Symbol.asyncDispose]();
  home[Symbol.dispose]();
});

/** Resolves when the child of the CLI has said this on stdout. */
const said = async (child: ReturnType<typeof startCli>, text: string): Promise<void> => {
  let seen = "";
  while (!seen.includes(text)) {
    const [chunk] = (await once(child.stdout, "data")) as [Buffer];
    seen += chunk.toString();
  }
};

describe("a command after --", () => {
  test("keeps its exit code, its input and output, and stderr stays its own", async () => {
    const script = "read line; echo got $line; echo to-stderr >&2; exit 42";
    const outcome = await runChild(["connect", "--", "sh", "-c", script], { env: home.env, input: "typed\n" });
    expect(outcome.code).toBe(42);
    expect(outcome.stdout).toMatch(/^Connected to .*\ngot typed\n$/);
    expect(outcome.stderr).toBe("to-stderr\n");
    expect(daemon.methods()).toEqual(["connect", "disconnect"]);
  });

  test("does not end a connection that stood before", async () => {
    daemon.connected = true;
    expect((await runChild(["connect", "--", "true"], { env: home.env })).code).toBe(0);
    expect(daemon.methods()).toEqual(["connect"]);
  });

  test("takes flags that look like ours", async () => {
    const { stdout } = await runChild(["connect", "--", "echo", "--context", "x", "-n", "--", "--help"], {
      env: home.env,
    });
    expect(stdout).toContain("--context x -n -- --help\n");
  });

  test("sees the pod's environment laid over its own", async () => {
    const env = { ...home.env, GREETING: "from the laptop", OWN: "kept" };
    const script = "echo $GREETING, $OWN, $TELEPRESENCE_INTERCEPT_ID, $TELEPRESENCE_CONTAINER";
    const { stdout, code } = await runChild(["intercept", "hello", "-p", "8000", "--", "sh", "-c", script], { env });
    expect(code).toBe(0);
    expect(stdout).toContain("hello from the pod, kept, session-1:hello, app\n");
    expect(daemon.methods()).toEqual(["connect", "intercept", "leave"]);
    expect(daemon.paramsOf("intercept")).toMatchObject({ ownedByConnection: true, wantEnvironment: true });
  });

  test("that fails where another program has the intercept's port is told about that program", async () => {
    await using stranger = createServer();
    await once(stranger.listen(0, "127.0.0.1"), "listening");
    const port = String((stranger.address() as AddressInfo).port);
    const intercept = ["intercept", "hello", "-p", port, "--", "sh", "-c"];
    const failed = await runChild([...intercept, "echo address in use >&2; exit 1"], { env: home.env });
    expect(failed).toMatchObject({
      code: 1,
      stderr: `address in use\nWarning: 127.0.0.1:${port} was in use by another program when the command started; if the command was to listen there, end that program or choose another port with --port\n`,
    });
    expect(await runChild([...intercept, "exit 0"], { env: home.env })).toMatchObject({ code: 0, stderr: "" });
  });

  test("that a signal ended counts as 128 and the signal's number", async () => {
    const { code } = await runChild(["connect", "--", "sh", "-c", "kill -KILL $$"], { env: home.env });
    expect(code).toBe(137);
  });

  test.each([["connect"], ["intercept", "hello"]])(
    "of %s that is not there is named before anything",
    async (...words) => {
      const { code, stderr } = await runChild([...words, "--", "no-such-command-7"], { env: home.env });
      expect(code).toBe(1);
      expect(stderr).toBe(
        "telepresence: error: the command no-such-command-7 was not found; check its name and PATH\n",
      );
      expect(daemon.methods()).toEqual([]);
    },
  );

  test("that cannot be executed is named before anything", async () => {
    const { code, stderr } = await runChild(["intercept", "hello", "--", import.meta.filename], {
      env: home.env,
    });
    expect(code).toBe(1);
    expect(stderr).toMatch(/child\.test\.ts could not be started: EACCES; check that it is an executable file\n$/);
    expect(daemon.methods()).toEqual([]);
  });

  test.each(["SIGTERM", "SIGINT", "SIGHUP"] as const)("gets %s, and everything is undone", async (name) => {
    const script = `trap 'echo ended; exit 9' ${name.slice(3)}; echo ready; while :; do sleep 0.05; done`;
    const child = startCli(["intercept", "hello", "--", "sh", "-c", script], { env: home.env });
    const outcome = outcomeOf(child);
    await said(child, "ready");
    child.kill(name);
    expect((await outcome).code).toBe(9);
    expect((await outcome).stdout).toContain("ended\n");
    expect(daemon.methods().at(-1)).toBe("leave");
  });

  test("ends when the intercept is left elsewhere", async () => {
    const child = startCli(["intercept", "hello", "--", "sh", "-c", "echo ready; sleep 100; echo never"], {
      env: home.env,
    });
    const outcome = outcomeOf(child);
    await said(child, "ready");
    daemon.endIntercept("hello");
    const { code, stdout, stderr } = await outcome;
    expect(code).toBe(143);
    expect(stdout).not.toContain("never");
    expect(stderr).toBe("Warning: the intercept hello was ended by another command; ending sh\n");
    expect(daemon.methods()).toEqual(["connect", "intercept"]); // nothing is asked again and again
  });

  test("ends when the daemon quits", async () => {
    const child = startCli(["intercept", "hello", "--", "sh", "-c", "echo ready; sleep 100"], { env: home.env });
    const outcome = outcomeOf(child);
    await said(child, "ready");
    await daemon.kill();
    const { code, stderr } = await outcome;
    expect(code).toBe(143);
    expect(stderr).toBe("Warning: the user daemon ended, and the intercept hello with it; ending sh\n");
  });
});

describe("the process", () => {
  test("runs with an empty environment and where HOME has never been", async () => {
    const env = { XDG_RUNTIME_DIR: home.path };
    expect((await runChild(["status"], { env })).stdout).toContain("User Daemon: Running");
    const { code } = await runChild(["connect"], { env: { ...env, HOME: "/nonexistent/home" } });
    expect(code).toBe(0);
    expect((await runChild(["version"], { env: {} })).code).toBe(0);
  });

  test("runs from a working directory that was removed", async () => {
    const child = spawn(
      "sh",
      ["-c", `mkdir gone && cd gone && rmdir ../gone && exec "$@"`, "sh", process.execPath, startFile, "status"],
      {
        cwd: home.path,
        env: home.env,
      },
    );
    const outcome = await outcomeOf(child);
    expect(outcome.code).toBe(0);
  });

  test("runs through a symbolic link", async () => {
    const link = join(home.path, "tp.js");
    symlinkSync(startFile, link);
    const child = spawn(process.execPath, [link, "status"], { env: home.env });
    expect((await outcomeOf(child)).stdout).toContain("User Daemon: Running");
  });

  test("ends with a signal's code when it is interrupted", async () => {
    const hanging = new Promise<never>(() => undefined);
    await daemon[Symbol.asyncDispose]();
    const asked = Promise.withResolvers<void>();
    daemon = await ScriptedDaemon.start(home.path, {
      connect: () => {
        asked.resolve();
        return hanging;
      },
    });
    const child = startCli(["connect"], { env: home.env });
    const outcome = outcomeOf(child);
    await asked.promise;
    child.kill("SIGTERM");
    expect((await outcome).code).toBe(143);
  });

  test("is not disturbed by a reader that leaves", async () => {
    const child = spawn("sh", ["-c", `"$@" | head -1`, "sh", process.execPath, startFile, "help"], { env: home.env });
    expect(await outcomeOf(child)).toEqual({ code: 0, stdout: "Usage: telepresence [command] [flags]\n", stderr: "" });
  });

  test("says that its output cannot be written", async () => {
    const child = spawn("sh", ["-c", `"$@" > /dev/full`, "sh", process.execPath, startFile, "status"], {
      env: home.env,
    });
    const { code, stderr } = await outcomeOf(child);
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringMatching(/^telepresence: error: the output cannot be written: ENOSPC.*\n$/),
    });
  });

  test("reports a configuration that is wrong, with the nearest name", async () => {
    const file = join(home.path, "bad.yml");
    writeFileSync(file, "intercept:\n  defaultport: 1\n");
    expect(await runChild(["connect", "--config", file], { env: home.env })).toEqual({
      code: 1,
      stdout: "",
      stderr: `telepresence: error: ${file} has the unknown key intercept.defaultport; did you mean intercept.defaultPort?\n`,
    });
    rmSync(file);
    expect((await runChild(["connect", "--config", file], { env: home.env })).stderr).toMatch(/cannot be read/);
  });
});

describe("usage", () => {
  test.each([
    [["conect"], "telepresence: unknown command 'conect', did you mean connect?\nSee 'telepresence --help'.\n"],
    [
      ["intercept", "x", "--prot", "1"],
      "telepresence intercept: unknown option '--prot', did you mean --port?\nSee 'telepresence intercept --help'.\n",
    ],
    [
      ["list", "--contex", "a"],
      "telepresence list: unknown option '--contex', did you mean --context?\nSee 'telepresence list --help'.\n",
    ],
    [["intercept"], "telepresence intercept: missing required argument 'name'\nSee 'telepresence intercept --help'.\n"],
    [["connect", "--", ""], "telepresence connect: the command after -- is \"\"\nSee 'telepresence connect --help'.\n"],
    [
      ["list", "-n", "a/b"],
      'telepresence list: --namespace is "a/b", expected lower-case letters, digits and dashes, 63 at most\n' +
        "See 'telepresence list --help'.\n",
    ],
    [["connect", "--"], "telepresence connect: expected a command after --\nSee 'telepresence connect --help'.\n"],
    // The next step was left out, but for the caret, which had been made a part of the sentence.
    [
      ["intercept", "hello", "--mechanism", "http"],
      'telepresence intercept: --mechanism is "http" without a filter, expected one\n' +
        "give --http-header auto, say, or leave --mechanism out\nSee 'telepresence intercept --help'.\n",
    ],
    [
      ["intercept", "hello", "--match", "request.path = '/'"],
      "telepresence intercept: --match is wrong at column 14: expected == to compare\nmend it here:\n" +
        "    request.path = '/'\n                 ^\nSee 'telepresence intercept --help'.\n",
    ],
    [
      ["connect", "foo"],
      `telepresence connect: unexpected argument "foo"; did you mean "-- foo"?\nSee 'telepresence connect --help'.\n`,
    ],
    [
      ["intercept", "hello", "8000"],
      `telepresence intercept: unexpected argument "8000"; did you mean --port 8000?\nSee 'telepresence intercept --help'.\n`,
    ],
    [
      ["intercept", "hello", "8000:http", "--", "ls"],
      `telepresence intercept: unexpected argument "8000:http"; did you mean --port 8000:http?\n` +
        "See 'telepresence intercept --help'.\n",
    ],
    [
      ["intercept", "hello", "ls", "/tmp", "--port", "80"],
      `telepresence intercept: unexpected argument "ls"; did you mean "-- ls /tmp"?\nSee 'telepresence intercept --help'.\n`,
    ],
    [
      ["intercept", "hello", "--"],
      "telepresence intercept: expected a command after --\nSee 'telepresence intercept --help'.\n",
    ],
    [["status", "--", "ls"], "telepresence status: takes no command after --\nSee 'telepresence status --help'.\n"],
    [
      ["help", "conect"],
      "telepresence help: unknown command 'conect', did you mean connect?\nSee 'telepresence help --help'.\n",
    ],
  ])("%j", async (argv, stderr) => {
    expect(await runHere(argv, { env: home.env })).toEqual({ code: 2, stdout: "", stderr });
    expect(daemon.methods()).toEqual([]);
  });

  test("is told by the process as well", async () => {
    const stderr = "telepresence: unknown command 'conect', did you mean connect?\nSee 'telepresence --help'.\n";
    expect(await runChild(["conect"], { env: home.env })).toEqual({ code: 2, stdout: "", stderr });
  });
});
