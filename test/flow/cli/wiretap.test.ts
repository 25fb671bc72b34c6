// `wiretap` as a command: what it asks of the daemon, what it refuses, and where the daemon's wiretaps are shown.
import { beforeEach, expect, test } from "vitest";
import { CliLab } from "./cli-lab.ts";
import type { Outcome } from "./run-cli.ts";
import { interceptInfo, workload } from "./scripted-daemon.ts";
import type { InterceptInfo } from "#wire/manager-api.ts";

const lab = CliLab.forEachTest();
const tapOf = (name: string): InterceptInfo => {
  const info = interceptInfo(name);
  return {
    ...info,
    spec: { ...info.spec, kind: "wiretap" },
    copies: { copied: 12, cut: 3, reason: "the laptop did not keep up" },
  };
};
beforeEach(async () => {
  await lab.startConnected({
    intercept: ({ name }) => ({ info: tapOf(name), warnings: [] }),
    list: () => ({
      workloads: [
        workload("hello", { intercepts: [{ ...tapOf("copies"), mine: true }] }),
        workload("other", { intercepts: [{ ...interceptInfo("other"), mine: true }] }),
      ],
      warnings: [],
    }),
  });
});
const run = (...argv: string[]): Promise<Outcome> => lab.run(argv);

test("asks for copies, with the flags of intercept", async () => {
  const { code, stdout, stderr } = await run(
    "wiretap",
    "copies",
    "-w",
    "hello",
    "-p",
    "9000:http",
    "--http-path-prefix=/a",
  );
  expect([code, stderr]).toEqual([0, ""]);
  expect(stdout).toMatch(/^Using Deployment copies\n {3}Wiretap name *: copies\n/);
  expect(stdout).toContain("12 copied, 3 cut short or left out (the laptop did not keep up)");
  expect(lab.daemon.calls.find(({ method }) => method === "intercept")?.params).toMatchObject({
    name: "copies",
    attachment: "wiretap",
    workload: "hello",
    ports: ["9000:http"],
    filter: expect.stringContaining("/a"),
  });
});

test("reads TLS without a filter too", async () => {
  expect((await run("wiretap", "hello", "--plaintext")).code).toBe(0);
  expect(lab.daemon.calls.find(({ method }) => method === "intercept")?.params).toMatchObject({
    tls: { plaintext: true },
  });
});

test.each([
  ["--on-refused=app", "the application answers whatever becomes of the copy"],
  ["--probes=agent", "the application answers the kubelet's probes, which are not copied"],
  ["--allow-overlap", "it takes no requests from anybody"],
])("refuses %s, which means nothing for it", async (flag, because) => {
  const { code, stderr } = await run("wiretap", "hello", flag);
  const name = flag.split("=")[0] ?? "";
  expect([code, stderr]).toEqual([
    2,
    `telepresence wiretap: ${name} has no meaning for a wiretap: ${because}\nleave it out\nSee 'telepresence wiretap --help'.\n`,
  ]);
  expect(lab.daemon.calls.some(({ method }) => method === "intercept")).toBe(false);
});

test("list and status tell wiretaps from intercepts", async () => {
  expect((await run("list", "--wiretaps")).stdout).toMatch(/^hello: wiretapped\n {3}Wiretap name *: copies\n/);
  expect((await run("list", "--intercepts")).stdout).toMatch(/^other: intercepted\n/);
  const [hello, other] = JSON.parse((await run("list", "--format=json")).stdout) as Record<string, unknown>[];
  expect([hello?.["intercept_info"], other?.["wiretap_info"]]).toEqual([undefined, undefined]);
  expect(hello?.["wiretap_info"]).toMatchObject([{ copies: { copied: 12, cut: 3 } }]);
  lab.daemon.intercepts = [tapOf("copies"), interceptInfo("other")];
  const { stdout } = await run("status");
  expect(stdout).toMatch(/Intercepts +: 1 total\n +other: /);
  expect(stdout).toMatch(/Wiretaps +: 1 total\n +copies: .*, 12 copied, 3 cut short or left out \(the laptop/);
  const status = JSON.parse((await run("status", "--format=json")).stdout) as {
    user_daemon: Record<string, unknown[]>;
  };
  expect(status.user_daemon["wiretaps"]).toMatchObject([{ name: "copies", copies: { copied: 12 } }]);
  expect(status.user_daemon["intercepts"]).toHaveLength(1);
});

// Both were documented to take one, and refused it.
test.each(["wiretap", "replace"])("%s takes a command after --, and ends with it", async (word) => {
  expect((await lab.run([word, "hello", "--port", "8080", "--", "true"])).code).toBe(0);
  expect(lab.daemon.methods().slice(-1)).toEqual(["leave"]);
});
