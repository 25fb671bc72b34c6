// `intercept --local-only` of older versions: what scripts of theirs find.
import { beforeEach, describe, expect, test } from "vitest";
import { CliLab } from "./cli-lab.ts";
import { runChild, type Outcome } from "./run-cli.ts";

const lab = CliLab.forEachTest();
beforeEach(async () => {
  await lab.startConnected({
    list: () => ({ workloads: [], localOnly: [{ name: "dev", namespace: "shop" }], warnings: [] }),
    leave: () => ({}),
  });
});
const run = (...argv: string[]): Promise<Outcome> => lab.run(argv);

describe("intercept --local-only", () => {
  test("begins without a workload, says what to use instead, and is listed", async () => {
    expect(await run("intercept", "dev", "--local-only", "-n", "shop")).toEqual({
      code: 0,
      stdout: "dev: local-only intercept, the names of namespace shop resolve\n",
      stderr: "Warning: --local-only is deprecated: `telepresence connect -n shop` does the same\n",
    });
    expect(lab.daemon.paramsOf("localOnly")).toEqual({ name: "dev", namespace: "shop", ownedByConnection: false });
    expect(lab.daemon.methods()).not.toContain("intercept");
    expect((await run("list")).stdout).toBe("dev: local-only intercept\n");
    expect(JSON.parse((await run("list", "--format", "json")).stdout)).toEqual([
      { name: "dev", namespace: "shop", local_only: true },
    ]);
    expect((await run("list", "--agents")).stdout).toMatch(/^No Workloads/);
    expect((await run("help", "intercept")).stdout).not.toContain("local-only");
  });
  test("ends with its command", async () => {
    const { code } = await runChild(["intercept", "dev", "-l", "--", "sh", "-c", "exit 4"], { env: lab.home.env });
    expect({ code, last: lab.daemon.methods().at(-1), params: lab.daemon.paramsOf("leave") as unknown }).toEqual({
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
    expect(lab.daemon.methods()).toEqual([]);
  });
});
