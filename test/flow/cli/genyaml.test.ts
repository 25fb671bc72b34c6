// What `genyaml` sends to the daemon and prints, against a scripted daemon on a real socket.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, expect, test } from "vitest";
import { parseAllDocuments } from "yaml";
import { CliLab } from "./cli-lab.ts";
import type { Outcome } from "./run-cli.ts";

const lab = CliLab.forEachTest();
beforeEach(async () => {
  await lab.start();
});
const run = (...argv: string[]): Promise<Outcome> => lab.run(argv);
const file = (text: string): string => {
  writeFileSync(join(lab.home.path, "app.yaml"), text);
  return "app.yaml";
};
const deployment = "kind: Deployment\nmetadata:\n  name: hello\n";

test("prints every document of the input, and needs no connection", async () => {
  const { code, stdout, stderr } = await run(
    "genyaml",
    "-i",
    file(`${deployment}---\nkind: Service\nmetadata: {}\n---\n`),
  );
  expect([code, stderr]).toEqual([0, ""]);
  expect(parseAllDocuments(stdout).map((document) => document.toJS() as object)).toEqual([
    { kind: "Deployment", metadata: { name: "hello" } },
    { kind: "Service", metadata: {} },
  ]);
  expect(lab.daemon.methods()).not.toContain("connect");
  expect(lab.daemon.methods()).not.toContain("quit"); // it ran before
});

test("names the workload by its kind as well", async () => {
  await run("genyaml", "-w", "sts/db", "-n", "shop");
  expect(lab.daemon.paramsOf("genyaml")).toMatchObject({ workload: "db", kind: "StatefulSet", namespace: "shop" });
  expect(lab.daemon.paramsOf("genyaml")).not.toHaveProperty("input");
});

test("prints a part, and what remains to be done by hand", async () => {
  const { stdout, stderr } = await run("genyaml", "container", "-w", "hello");
  expect(stdout).toBe("name: traffic-agent\n");
  expect(stderr).toBe(
    "Warning: the agent takes the name http: call port 80 of container a tm-http, in its probes too\n",
  );
  expect(JSON.parse((await run("genyaml", "container", "-w", "hello", "--format", "json")).stdout)).toEqual({
    name: "traffic-agent",
  });
});

test.each([
  [[], 2, "genyaml has no workload, expected --workload NAME or --input FILE"],
  [["pod", "-w", "hello"], 2, 'genyaml knows no "pod", expected one of workload, config, container'],
  [["-i", "none.yaml"], 2, "--input none.yaml cannot be read"],
])("refuses %j", async (words, code, text) => {
  expect(await run("genyaml", ...words)).toMatchObject({ code, stderr: expect.stringContaining(text) as string });
});

test("refuses what is no manifest", async () => {
  const said = async (text: string): Promise<string> => (await run("genyaml", "-i", file(text))).stderr;
  expect(await said("a: [")).toContain("--input app.yaml is not YAML");
  expect(await said("just words")).toContain("has a document without metadata");
});
