// `intercept --local-only` of older versions: what scripts of theirs find.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { runChild, runHere, type Outcome } from "./run-cli.ts";
import { makeHome, ScriptedDaemon } from "./scripted-daemon.ts";

let home: ReturnType<typeof makeHome>;
let daemon: ScriptedDaemon;
beforeEach(async () => {
  home = makeHome();
  daemon = await ScriptedDaemon.start(home.path, {
    list: () => ({ workloads: [], localOnly: [{ name: "dev", namespace: "shop" }], warnings: [] }),
    leave: () => ({}),
  });
  daemon.connected = true;
});
afterEach(async () => {
  await daemon[Symbol.asyncDispose]();
  home[Symbol.dispose]();
});
const run = (...argv: string[]): Promise<Outcome> => runHere(argv, { env: home.env, cwd: home.path });

describe("intercept --local-only", () => {
  test("begins without a workload, says what to use instead, and is listed", async () => {
    expect(await run("intercept", "dev", "--local-only", "-n", "shop")).toEqual({
      code: 0,
      stdout: "dev: local-only intercept, the names of namespace shop resolve\n",
      stderr: "Warning: --local-only is deprecated: `telepresence connect -n shop` does the same\n",
    });
    expect(daemon.paramsOf("localOnly")).toEqual({ name: "dev", namespace: "shop", ownedByConnection: false });
    expect(daemon.methods()).not.toContain("intercept");
    expect((await run("list")).stdout).toBe("dev: local-only intercept\n");
    expect(JSON.parse((await run("list", "--format", "json")).stdout)).toEqual([
      { name: "dev", namespace: "shop", local_only: true },
    ]);
    expect((await run("list", "--agents")).stdout).toMatch(/^No Workloads/);
    expect((await run("help", "intercept")).stdout).not.toContain("local-only");
  });
  test("ends with its command", async () => {
    const { code } = await runChild(["intercept", "dev", "-l", "--", "sh", "-c", "exit 4"], { env: home.env });
    expect({ code, last: daemon.methods().at(-1), params: daemon.paramsOf("leave") as unknown }).toEqual({
      code: 4,
      last: "leave",
      params: { name: "dev", only: "local-only" },
    });
  });
  test.each([
    ["--port", "8080"],
    ["--mount", "false"],
    ["--to-pod", "6379"],
    ["--workload", "web"],
    ["--http-header", "a=b"],
    ["--env-file", "x"],
    ["--preview-url"],
  ])("refuses %s, which needs traffic", async (...flag) => {
    const { code, stderr } = await run("intercept", "dev", "--local-only", ...flag);
    expect(code).toBe(2);
    expect(stderr).toContain(`${flag[0]} is of no use with --local-only, which has no workload and takes no traffic`);
    expect(daemon.methods()).toEqual([]);
  });
});
