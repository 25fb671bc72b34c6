// Without root on the real cluster: proxies in a device's place, and programs in networks of their own, for the
// laptop's ordinary user.
import { beforeAll, describe, expect, test } from "vitest";
import * as cluster from "#testbed/cluster.ts";
import { apiServerUrl, homeDir, ordinaryUser } from "#testbed/layout.ts";
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

/**
 * A line of the ordinary user's, where he may open /dev/net/tun: on most distributions everybody may, here only root.
 * Nothing in it is done as root.
 */
const asUser = (line: string): Promise<string> => {
  const { name, uid, gid } = ordinaryUser;
  const become = `setpriv --reuid=${uid} --regid=${gid} --clear-groups --inh-caps=-all`;
  const environment = `HOME=${homeDir(name, 1)} XDG_RUNTIME_DIR=/run/user/${uid} USER=${name}`;
  const device = "mkdir -p /run/box; mount -t tmpfs none /run/box; mknod -m 666 /run/box/tun c 10 200";
  const quoted = `env ${environment} sh -c '${line.replaceAll("'", "'\\''")}'`;
  const script = `${device}; mount --bind /run/box/tun /dev/net/tun; exec ${become} ${quoted}`;
  return lab.rootSh(`unshare -m sh -c '${script.replaceAll("'", "'\\''")}' 2>&1`);
};
const bothEnds = `sh -c "curl -sS -m 10 http://web/; curl -sSk -m 10 ${apiServerUrl}/version"`;
const nobodyLeft = (): Promise<unknown> => until("the daemon has gone", () => lab.pids("daemon").length === 0);

describe("run", () => {
  test("puts a command into the cluster's network, which ends with it and leaves no trace", async () => {
    const before = await lab.traces();
    const [said, ms] = await timed(() => asUser(`telepresence run -n ${namespace} -- ${bothEnds}; echo code $?`));
    figure("run, with its connection", ms);
    expect(said).toContain(greeting);
    expect(said).toContain('"major": "1"'); // what is not the cluster's is reached from the laptop
    expect(said).toContain("code 0");
    expect(lab.pids("daemon")).toEqual([]);
    expect(await lab.traces()).toEqual(before);
    const privilege = "grep CapEff /proc/self/status; grep nameserver /etc/resolv.conf; exit 7";
    const inside = await asUser(`telepresence run -- sh -c "${privilege}"; echo code $?`);
    expect(inside).toMatch(/CapEff:\s+0{16}\nnameserver 246\.246\.0\.4\ncode 7/);
  });
  test("shares a connection with others, and what is killed leaves nothing", async () => {
    const before = await lab.traces();
    const lines = [
      "telepresence run -- sleep 1000 & first=$!",
      "until telepresence status | grep -q 'Programs *: 1'; do sleep 0.1; done",
      "telepresence run -- curl -sS -m 10 http://hello.default/",
      "telepresence status | grep Programs",
      "kill -9 $first",
    ];
    const said = await asUser(lines.join("; ").replace("&;", "&"));
    expect(said).toContain(greeting);
    expect(said).toMatch(/Programs +: 1 of telepresence run/);
    await nobodyLeft();
    expect(await lab.rootSh("pgrep -x sleep -a | grep 1000 || echo none")).toContain("none");
    expect(await lab.traces()).toEqual(before);
  });
  test("works on a connection with a device as well, and stays out of its way", async () => {
    await lab.ok("connect");
    expect(await asUser(`telepresence run -- curl -sS -m 10 http://web.${namespace}/`)).toContain(greeting);
    expect(await lab.ok("status")).toContain("OSS Root Daemon: Running");
    await lab.quit();
  });
  test("says in one sentence what stands in the way", async () => {
    const { code, stderr } = await lab.cli(["run", "--", "true"]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^telepresence: error: opening \/dev\/net\/tun failed: .*`telepresence connect --proxy`\n$/);
    await nobodyLeft();
  });
});

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
