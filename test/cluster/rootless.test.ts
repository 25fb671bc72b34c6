// Without root on the real cluster: proxies in a device's place, for the laptop's ordinary user.
import { beforeAll, describe, expect, test } from "vitest";
import * as cluster from "#testbed/cluster.ts";
import { apiServerUrl } from "#testbed/layout.ts";
import { figure, timed } from "./call.ts";
import { apply, Lab, rolledOut, until, webApp } from "./lab.ts";
import { stage } from "./stage.ts";

const namespace = "it-rootless";
const lab = new Lab({ agent: "ephemeral" });
stage([lab], namespace);
beforeAll(async () => {
  await apply(namespace, ...webApp({ name: "web" }));
  await rolledOut(namespace, "deployment/web");
});

const curl = async (...args: string[]): Promise<string> => {
  const words = ["curl", "-sS", "-m", "10", ...args];
  const { stdout, stderr } = await cluster.onLaptop(words, { ...lab.laptopOptions, allowFailure: true });
  return stdout + stderr;
};
const greeting = "Hello from the cluster";

describe("connect --proxy", () => {
  test("reaches the cluster by name and the laptop's own network, and leaves no trace", async () => {
    const before = await lab.traces();
    const [connected, ms] = await timed(() => lab.ok("connect", "--proxy", "--proxy-socks", "21080", "-n", namespace));
    figure("connect --proxy", ms);
    expect(connected).toContain("Proxies: SOCKS5 127.0.0.1:21080, HTTP 127.0.0.1:");
    expect(lab.pids("helper")).toEqual([]);
    const socks = ["-x", "socks5h://127.0.0.1:21080"];
    for (const name of ["web", `web.${namespace}`, `web.${namespace}.svc.cluster.local`, "hello.default"]) {
      expect(await curl(...socks, `http://${name}/`)).toContain(greeting);
    }
    const status = await lab.json<{ user_daemon: { proxy: { http: string } } }>("status", "--format", "json");
    const http = ["-x", `http://${status.user_daemon.proxy.http}`];
    expect(await curl(...http, "http://web/")).toContain(greeting);
    expect(await curl(...http, "-p", "http://web/")).toContain(greeting);
    expect(await curl(...http, "http://nothing.default/")).toContain("there is no nothing.default in the cluster");
    expect(await curl(...http, "-o", "/dev/null", "-w", "%{http_code}", "http://web:81/")).toBe("502");
    expect(await curl(...socks, "http://web:81/")).toContain("Can't complete SOCKS5 connection");
    // What is not the cluster's is dialed from here: the API server is on the laptop's own network.
    expect(await curl(...http, "-k", `${apiServerUrl}/readyz`)).toMatch(/^ok$|Unauthorized|forbidden/);
    await lab.quit();
    expect(await lab.traces()).toEqual(before);
  });
  test("gives a command the variables, and intercepts as with a device", async () => {
    const printed = await lab.ok("connect", "--proxy", "-n", namespace, "--", "curl", "-sS", "-m", "10", "http://web/");
    expect(printed).toContain(greeting);
    expect(lab.pids("daemon")).toEqual([]);
    await lab.ok("connect", "--proxy", "--proxy-http", "21128", "-n", namespace);
    const server = ["sh", "-c", "mkdir -p /tmp/rootless && cd /tmp/rootless && exec python3 -m http.server 21088"];
    await using intercept = lab.start(["intercept", "web", "--port", "21088", "--", ...server]);
    const answer = (): Promise<string> => curl("-x", "http://127.0.0.1:21128", "http://web/");
    await until("the laptop answers", async () => (await answer()).includes("Directory listing"));
    expect(await lab.ok("status")).toContain("Intercepts        : 1 total");
    intercept.child.kill("SIGINT");
    await intercept.ends();
    await until("the application answers again", async () => (await answer()).includes(greeting));
  });
});
