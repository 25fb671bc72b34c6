// `why` and `revoke` as commands: what they ask the daemon, what they print, and what is wrong with a command line.
import { describe, expect, test } from "vitest";
import { AppError } from "#base/error.ts";
import { CliLab } from "./cli-lab.ts";
import type { InProcessOptions, Outcome } from "./run-cli.ts";
import { interceptInfo } from "./scripted-daemon.ts";
import type { ScriptedDaemon } from "./scripted-daemon.ts";

const lab = CliLab.forEachTest();
const run = (argv: readonly string[], more?: Partial<InProcessOptions>): Promise<Outcome> => lab.run(argv, more);

describe("why", () => {
  test("asks for the last requests, with queries only when it is to be verbose", async () => {
    const running = await lab.startConnected();
    expect(await run(["why"])).toEqual({ code: 0, stdout: "", stderr: "" });
    expect(running.paramsOf("why")).toEqual({ limit: 20, withQuery: false });
    await run(["why", "deploy/hello", "--limit", "3", "--verbose", "-n", "shop"]);
    expect(running.paramsOf("why")).toEqual({ name: "hello", namespace: "shop", limit: 3, withQuery: true });
  });

  test("asks about a request that nobody has sent", async () => {
    const running = await lab.startConnected();
    await run(["why", "hello", "post", "/cart?a=b", "X-User: ann", "x-empty:"]);
    expect(running.paramsOf("why")).toEqual({
      name: "hello",
      limit: 0,
      withQuery: false,
      suppose: {
        method: "POST",
        target: "/cart?a=b",
        headers: [
          { name: "X-User", value: "ann" },
          { name: "x-empty", value: "" },
        ],
      },
    });
  });

  test.each([
    [["hello", "GET"], "after the name expected METHOD PATH"],
    [["hello", "GET", "cart"], 'the path is "cart", expected one that begins with /'],
    [["hello", "G T", "/"], 'the method is "G T"'],
    [["hello", "GET", "/", "x-user=ann"], 'the header is "x-user=ann", expected NAME:VALUE'],
    [["--limit", "0"], '--limit is "0", expected a number from 1 to 256'],
  ])("refuses %j", async (argv, text) => {
    await lab.startConnected();
    const { code, stderr } = await run(["why", ...argv]);
    expect(code).toBe(2);
    expect(stderr).toContain(text);
  });

  test("suggests the nearest name of what is intercepted", async () => {
    await lab.startConnected({
      why: () => {
        throw new AppError("intercept_not_found", "nothing intercepts helo", {
          hint: "intercepted now: hello",
          fields: { known: ["hello", "web"] },
        });
      },
    });
    const { code, stderr } = await run(["why", "helo"]);
    expect(code).toBe(1);
    expect(stderr).toBe("telepresence: error: nothing intercepts helo; did you mean hello? intercepted now: hello\n");
  });
});

describe("revoke", () => {
  const answering = (answer: string): Partial<InProcessOptions> => ({
    machine: (real) => ({ ...real, readAnswer: () => Promise.resolve(answer) }),
  });
  const calls = (running: ScriptedDaemon): readonly unknown[] =>
    running.calls.filter(({ method }) => method === "revoke").map(({ params }) => params);

  test("ends what was found, by its id, without a question where nobody can be asked", async () => {
    const running = await lab.startConnected({ revoke: () => ({ info: interceptInfo("hello") }) });
    const { code, stdout } = await run(["revoke", "hello", "--owner", "alice", "-n", "default"]);
    expect(code).toBe(0);
    expect(stdout).toBe(
      "Ended the intercept hello of alice@thinkpad on Deployment hello, since 2023-11-14T22:13:20.000Z\n",
    );
    expect(calls(running)).toEqual([
      { name: "hello", user: "alice", namespace: "default", find: true },
      { name: "session-1:hello", find: false },
    ]);
  });

  test("asks on a terminal, and takes no for an answer", async () => {
    const running = await lab.startConnected({ revoke: () => ({ info: interceptInfo("hello") }) });
    const { code, stdout, stderr } = await run(["revoke", "hello"], answering("n\n"));
    expect(code).toBe(1);
    expect(stderr).toContain("This ends the intercept hello of alice@thinkpad on Deployment hello");
    expect(stdout).toBe("Nothing was ended\n");
    expect(calls(running)).toHaveLength(1);
    expect((await run(["revoke", "hello"], answering("Yes"))).code).toBe(0);
    expect(calls(running)).toHaveLength(3);
    expect((await run(["revoke", "hello", "--yes"], answering("n"))).code).toBe(0);
    expect(calls(running)).toHaveLength(5);
  });
});
