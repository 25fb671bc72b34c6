// What the product says about itself, and that it is true: nothing running, connected, with a part killed, with the
// manager, the API server or the wire gone. Texts and JSON that people script against. Traps 8, 22 to 25, 57.
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import * as cluster from "#testbed/cluster.ts";
import { apiServerUrl } from "#testbed/layout.ts";
import { figure, timed } from "./call.ts";
import { kubectl, Lab, until } from "./lab.ts";
import { stage } from "./stage.ts";

const lab = new Lab({});
const namespace = "telling";

interface Status {
  readonly user_daemon: Readonly<Record<string, unknown>>;
  readonly root_daemon: Readonly<Record<string, unknown>>;
  readonly traffic_manager: Readonly<Record<string, unknown>>;
}

let untouched: Readonly<Record<string, string>> = {};

stage([lab], namespace);
beforeAll(async () => {
  untouched = await lab.traces();
  await lab.ok("connect"); // the manager is there from now on
  await lab.quit();
});
afterEach(async () => {
  await cluster.restoreWire();
  await cluster.startApiServer();
});
afterAll(async () => {
  await lab.ok("uninstall", "--everything");
});

const state = async (): Promise<unknown> => (await lab.json<Status>("status")).user_daemon["status"];
const reaches = async (): Promise<boolean> => (await lab.sh("curl -sS -m 2 http://hello.default/")).code === 0;

describe("with nothing running", () => {
  test("status says so, as text and as JSON, and starts nothing", async () => {
    expect(await lab.ok("status")).toBe(
      "OSS User Daemon: Not running\nOSS Root Daemon: Not running\nOSS Traffic Manager: Not connected\n",
    );
    const json = {
      user_daemon: { running: false, name: "OSS User Daemon" },
      root_daemon: { running: false, name: "OSS Root Daemon" },
      traffic_manager: { name: "OSS Traffic Manager" },
    };
    for (const flags of [["--output", "json"], ["--format", "json"], ["--json"]]) {
      expect(JSON.parse(await lab.ok("status", ...flags))).toEqual(json);
    }
    expect(lab.pids("daemon")).toEqual([]);
  });
  test("version says so", async () => {
    expect(await lab.ok("version")).toMatch(
      /^OSS Client +: v\d\S+\nOSS Root Daemon +: not running\nOSS User Daemon +: not running\nOSS Traffic Manager *: not connected\n$/,
    );
    expect(await lab.json("version")).toEqual({ client: expect.stringMatching(/^v\d/) });
    const [, ms] = await timed(() => lab.ok("version"));
    figure("version", ms);
  });
  test("quit and leave say so, and quit is content", async () => {
    expect(await lab.cli(["quit"])).toEqual({ code: 0, stdout: "Not connected\n", stderr: "" });
    expect(await lab.cli(["quit", "-s"])).toEqual({ code: 0, stdout: "Not connected\n", stderr: "" });
    expect(await lab.cli(["leave", "hello"])).toMatchObject({
      code: 1,
      stdout: "",
      stderr: expect.stringMatching(/^telepresence: error: [^\n]*not connected[^\n]*\n$/),
    });
  });
  test("list connects by itself", async () => {
    const { code, stdout, stderr } = await lab.cli(["list", "-n", "default"]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toContain("hello  : ready to intercept (traffic-agent not yet installed)\n");
    expect(await state()).toBe("Connected");
    await lab.quit();
  });
});

describe("connected", () => {
  beforeAll(async () => {
    await lab.quit();
    await lab.ok("connect");
  });
  test("status tells every part, as text and in the JSON that scripts read", async () => {
    const [text, ms] = await timed(() => lab.ok("status"));
    figure("status", ms);
    for (const line of [
      /^OSS User Daemon: Running$/m,
      /^ {2}Status +: Connected$/m,
      new RegExp(`^ {2}Kubernetes server *: ${apiServerUrl}$`, "m"),
      /^ {2}Kubernetes context *: admin$/m,
      /^ {2}Namespace +: default$/m,
      /^ {2}Manager namespace +: telepresence$/m,
      /^ {2}Transport +: port-forward \(WebSocket\)$/m,
      /^ {2}Round trip +: [\d.]+ ms, last answer \d+ m?s ago$/m,
      /^ {2}Link +: never lost$/m,
      /^ {2}Intercepts +: 0 total$/m,
      /^OSS Root Daemon: Running$/m,
      /^ {6}- 10\.96\.0\.0\/16$/m,
      /^OSS Traffic Manager: Connected$/m,
    ]) {
      expect(text).toMatch(line);
    }
    const json = JSON.parse(await lab.ok("status", "--output", "json")) as Status;
    expect(json).toMatchObject({
      user_daemon: {
        running: true,
        status: "Connected",
        kubernetes_server: apiServerUrl,
        kubernetes_context: "admin",
        namespace: "default",
        manager_namespace: "telepresence",
      },
      root_daemon: { running: true, subnets: ["10.96.0.0/16", "10.244.0.0/24"], dns: { hook: "nft" } },
      traffic_manager: { version: expect.stringMatching(/^v\d/) },
    });
    expect(json.user_daemon).not.toHaveProperty("intercepts");
  });
  test("version tells every part", async () => {
    const version = expect.stringMatching(/^v\d/) as string;
    expect(await lab.json("version")).toEqual({
      client: version,
      root_daemon: version,
      user_daemon: version,
      traffic_manager: version,
      traffic_agent: expect.stringContaining("telepresence"),
    });
  });
  test("list: workloads with their state, one line each, and what flags choose (trap 57)", async () => {
    const text = await lab.ok("list");
    expect(text).toMatch(/^echo +: ready to intercept \(traffic-agent not yet installed\)$/m);
    expect(text).toMatch(/^visitor: .*$/m);
    const items = await lab.json<{ name: string; workload_resource_type: string }[]>("list");
    expect(items.map(({ name }) => name)).toEqual(["echo", "hello", "visitor"]);
    expect(items[0]).toEqual({ name: "echo", namespace: "default", workload_resource_type: "Deployment" });
    const empty = "No Workloads (Deployments, StatefulSets, ReplicaSets, or Rollouts)\n";
    for (const flags of [["--intercepts"], ["--agents"], ["-n", namespace]]) {
      expect(await lab.ok("list", ...flags)).toBe(flags[0] === "--intercepts" ? "No intercepts\n" : empty);
      expect(await lab.json("list", ...flags)).toEqual([]);
      const envelope = JSON.parse(await lab.ok("list", "--output", "json", ...flags)) as object;
      expect(envelope).toEqual({ cmd: "list", stdout: [] });
    }
    expect((await lab.ok("list", "--output", "json-stream")).trim().split("\n").length).toBeGreaterThan(0);
    expect(await lab.ok("list", "-n", "telepresence")).toBe(empty); // the manager is not one of them
  });
  test("quit ends everything and leaves the laptop as it was", async () => {
    const [text, ms] = await timed(() => lab.ok("quit"));
    expect(text).toBe("Telepresence Daemons quitting...done\n");
    figure("quit", ms);
    expect(lab.pids("daemon")).toEqual([]);
    expect(lab.pids("helper")).toEqual([]);
    expect(await lab.traces()).toEqual(untouched);
  });
});

describe("kill -9", () => {
  async function killed(program: "daemon" | "helper"): Promise<void> {
    await lab.quit();
    await lab.ok("connect");
    const [pid] = lab.pids(program);
    expect(pid).toBeDefined();
    if (pid !== undefined) process.kill(pid, "SIGKILL");
    const startMs = performance.now();
    await until(
      "the laptop as it was",
      async () => JSON.stringify(await lab.traces()) === JSON.stringify(untouched),
    ).catch(async () => expect(await lab.traces()).toEqual(untouched));
    figure(`after kill -9 of the ${program} the laptop is as before in`, performance.now() - startMs);
    expect(lab.pids("helper")).toEqual([]);
  }
  test("of the daemon leaves the laptop as it was, and status tells the truth", async () => {
    await killed("daemon");
    expect(await lab.ok("status")).toContain("OSS User Daemon: Not running\nOSS Root Daemon: Not running\n");
    expect((await lab.sh("curl -sS -m 5 http://example.com/")).stdout).toContain("This is example.com");
    expect(await lab.cli(["quit"])).toMatchObject({ code: 0, stdout: "Not connected\n" });
    await lab.ok("connect");
    expect(await reaches()).toBe(true);
  });
  test("of the helper leaves the laptop as it was, and status says why", async () => {
    await killed("helper");
    const text = await lab.ok("status");
    expect(text).toMatch(/^ {2}Status +: Not connected$/m);
    expect(text).toMatch(/^ {2}Problem +: the root helper ended.*$/m);
    expect(text).toContain("OSS Root Daemon: Not running\n");
    expect(await lab.cli(["leave", "hello"])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("there is no intercept hello: telepresence is not connected"),
    });
    const [, ms] = await timed(() => lab.ok("connect"));
    figure("connect after the helper was killed", ms);
    expect(await reaches()).toBe(true);
  });
});

describe("while connected", () => {
  beforeAll(async () => {
    await lab.ok("connect");
  });

  test("the manager is replaced: status says Reconnecting, then Connected, and traffic flows again", async () => {
    // One that is only deleted is back before `status` can be asked.
    const scale = (replicas: number): Promise<string> =>
      kubectl("scale", "deployment/traffic-manager", "-n", "telepresence", `--replicas=${replicas}`);
    await scale(0);
    await until("Reconnecting", async () => (await state()) === "Reconnecting", { everyMs: 20 });
    const told = await lab.ok("status");
    expect(told).toContain("OSS Traffic Manager: Not connected\n");
    await scale(1);
    await cluster.kubectl(["rollout", "status", "deployment/traffic-manager", "-n", "telepresence", "--timeout=60s"]);
    const readyMs = performance.now();
    await until("outbound traffic", reaches, { everyMs: 50 });
    const ms = performance.now() - readyMs;
    figure("outbound works after the new manager is ready", ms);
    expect(await state()).toBe("Connected");
    expect(ms).toBeLessThan(6000);
  });
  test("the manager is removed: status says so, and nothing hangs", async () => {
    await cluster.kubectl(["delete", "deployment", "traffic-manager", "-n", "telepresence"]);
    await until("Reconnecting", async () => (await state()) === "Reconnecting");
    const problem = await until("the reason", async () => {
      const { error } = (await lab.json<Status>("status")).user_daemon;
      return typeof error === "string" && error.includes("no pod of deployment traffic-manager") && error;
    });
    expect(problem).toContain("no pod of deployment traffic-manager in namespace telepresence is ready");
    const [{ code, stdout }, ms] = await timed(() => lab.cli(["list", "-n", "default"]));
    expect(code).toBe(0);
    expect(stdout).toContain("hello");
    expect(ms).toBeLessThan(15_000);
    // a later connect brings a manager back
    await lab.quit();
    expect(await lab.ok("connect")).toContain("Installed the traffic-manager in namespace telepresence\n");
    expect(await reaches()).toBe(true);
  });
  test("the API server is restarted: traffic flows again by itself", async () => {
    await cluster.restartApiServer("SIGKILL");
    const startMs = performance.now();
    await until("outbound traffic", reaches, { everyMs: 50 });
    figure("outbound works after the API server is back", performance.now() - startMs);
    await until("Connected", async () => (await state()) === "Connected");
  });
  test("the wire is cut for 5 s: status tells, stays quick, and traffic flows again", async () => {
    await cluster.cutWire();
    const cutMs = performance.now();
    await until("Reconnecting", async () => (await state()) === "Reconnecting");
    figure("a cut wire is told after", performance.now() - cutMs);
    expect((await lab.sh("ip route get 10.96.0.10")).stdout).toMatch(/dev tel/);
    const [, ms] = await timed(() => lab.ok("status"));
    figure("status while the wire is cut", ms);
    expect(ms).toBeLessThan(8000);
    await until("5 s", () => performance.now() - cutMs > 5000);
    await cluster.restoreWire();
    const backMs = performance.now();
    await until("outbound traffic", reaches, { everyMs: 50 });
    figure("outbound works after the wire is back", performance.now() - backMs);
  });
  test("the wire swallows everything for 8 s: the same", async () => {
    await cluster.blackHole();
    const holeMs = performance.now();
    await until("Reconnecting", async () => (await state()) === "Reconnecting");
    figure("a black hole is told after", performance.now() - holeMs);
    await until("8 s", () => performance.now() - holeMs > 8000);
    await cluster.restoreWire();
    const backMs = performance.now();
    await until("outbound traffic", reaches, { everyMs: 50 });
    figure("outbound works after the black hole", performance.now() - backMs);
  });
  test("quit works while the cluster cannot be reached", async () => {
    await cluster.blackHole();
    const [{ code, stderr }, ms] = await timed(() => lab.cli(["quit"]));
    await cluster.restoreWire();
    figure("quit in a black hole", ms);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(ms).toBeLessThan(15_000);
    expect(await lab.traces()).toEqual(untouched);
  });
});
