// `connect` on the real cluster, from the laptop, as its ordinary user and once as root; as cluster users with few
// rights; and what stands in its way on the laptop. Traps 12, 20, 24, 25, 56.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import * as cluster from "#testbed/cluster.ts";
import { agentIntroductionPort } from "#wire/agent-api.ts";
import { run, type RunResult } from "#testbed/exec.ts";
import { apiServerUrl, binDir, homeDir, namespaces, nodeAddress, ordinaryUser } from "#testbed/layout.ts";
import { tokenOf } from "#testbed/pki.ts";
import { figure, timed } from "./call.ts";
import {
  apply,
  field,
  freshNamespaces,
  kubectl,
  Lab,
  prepare,
  removeNamespaces,
  rolledOut,
  service,
  until,
  webApp,
} from "./lab.ts";

const lab = new Lab({});
const hello = ["curl", "-sS", "-m", "10", "http://hello.default/"];
const connected = `Connected to context admin, namespace default (${apiServerUrl})\n`;
const launching = "Launching Telepresence User Daemon\nLaunching Telepresence Root Daemon\n";

/** What the product may not leave changed, without what comes and goes by itself. */
let untouched: Readonly<Record<string, string>> = {};

beforeAll(async () => {
  await prepare();
  await lab.quit();
  await lab.ok("uninstall", "--everything");
  untouched = await lab.traces();
});
afterEach(async () => await lab.quit());
afterAll(async () => {
  await lab.ok("uninstall", "--everything");
});

async function helloAnswers(as: Lab = lab): Promise<void> {
  const { stdout, stderr } = await cluster.onLaptop(hello, { ...as.laptopOptions, allowFailure: true });
  expect(stderr).toBe("");
  expect(stdout).toContain("Hello from the cluster");
}

async function asBefore(): Promise<void> {
  expect(lab.pids("daemon")).toEqual([]);
  expect(lab.pids("helper")).toEqual([]);
  expect(await lab.traces()).toEqual(untouched);
}

describe("connect", () => {
  test("installs the manager where there is none, says so, and is quiet on stderr", async () => {
    const [result, ms] = await timed(() => lab.cli(["connect"]));
    figure("first connect, manager installed", ms);
    const installed = "Installed the traffic-manager in namespace telepresence\n";
    expect(result).toEqual({ code: 0, stderr: "", stdout: `${launching}${installed}${connected}` });
    await helloAnswers();
    const spec = JSON.parse(await field("telepresence", "deployment/traffic-manager", ".spec.template.spec")) as object;
    expect(spec).toMatchObject({ automountServiceAccountToken: false });
  });
  test("connects again after quit, twice, and quit leaves the laptop as it was", async () => {
    for (let round = 0; round < 2; round++) {
      const [result, ms] = await timed(() => lab.cli(["connect"]));
      figure("connect, manager there", ms);
      expect(result).toEqual({ code: 0, stderr: "", stdout: `${launching}${connected}` });
      await helloAnswers();
      expect(await lab.ok("quit")).toBe("Telepresence Daemons quitting...done\n");
      await asBefore();
    }
  });
  test("says nothing the second time, and names what differs when the settings do", async () => {
    await lab.ok("connect");
    const [again, ms] = await timed(() => lab.cli(["connect"]));
    figure("connect when connected", ms);
    expect(again).toEqual({ code: 0, stdout: "", stderr: "" });
    for (const flags of [
      ["-n", "solo"],
      ["--also-proxy", "198.51.100.0/24"],
      ["--manager-namespace", "elsewhere"],
    ]) {
      const other = await lab.cli(["connect", ...flags]);
      expect(other).toEqual({
        code: 1,
        stdout: "",
        stderr:
          "telepresence: error: telepresence is connected to context admin, namespace default, with other settings; " +
          "give this one a name with --name to have both, or run `telepresence quit` and connect again\n",
      });
    }
    await helloAnswers();
  });
  test("takes --context, --kubeconfig and --namespace, from any directory and by way of a symbolic link", async () => {
    const kubeconfig = cluster.kubeconfigFor("solo");
    await lab.sh(`mkdir -p "$HOME/links" && ln -sfn ${binDir(1)}/telepresence "$HOME/links/tp"`);
    const file = kubeconfig.slice(1); // relative to the working directory
    const line = `cd / && "$HOME/links/tp" connect --kubeconfig ${file} --context solo --namespace solo`;
    const { code, stdout, stderr } = await lab.sh(line, { env: { KUBECONFIG: "/nowhere" } });
    expect({ code, stderr: stderr.replace(/^Warning: .*\n/gm, "") }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toContain(`Connected to context solo, namespace solo (${apiServerUrl})`);
  });
  test("works with a bare environment, where HOME was never seen, and where the working directory is gone", async () => {
    const home = "/tmp/telepresence-no-home";
    await lab.rootSh(`rm -rf ${home}; mkdir -p ${home} && chown ${ordinaryUser.uid} ${home}; rm -rf ${home}/x`);
    const KUBECONFIG = cluster.kubeconfigFor("admin");
    const bare = { environment: "bare", env: { KUBECONFIG, HOME: `${home}/never/seen` } } as const;
    expect(await lab.cli(["connect"], bare)).toMatchObject({ code: 0, stderr: "" });
    await helloAnswers();
    // the same daemon, whether or not the shell names the runtime directory
    expect(await lab.ok("status")).toContain("Status            : Connected");
    expect(await lab.cli(["quit"], bare)).toMatchObject({ code: 0, stdout: "Telepresence Daemons quitting...done\n" });
    const gone = `d=$(mktemp -d) && cd $d && rmdir $d && exec telepresence connect`;
    const { code, stderr } = await lab.sh(gone);
    expect({ code, stderr: stderr.replace(/^sh: .*\n/, "") }).toEqual({ code: 0, stderr: "" }); // sh: getcwd() failed
    await helloAnswers();
    await lab.rootSh(`rm -rf ${home}`);
  });
  test("works as root of the laptop, without sudo", async () => {
    await lab.rootSh("mkdir -p -m 700 /run/user/0");
    const root = new Lab({ user: "root" });
    try {
      expect(await root.cli(["connect"])).toMatchObject({ code: 0 });
      await helloAnswers(root);
    } finally {
      await root.cli(["quit"]);
    }
    await asBefore();
  });
  test("starts one daemon when several commands connect at the same moment (trap 25)", async () => {
    const results = await Promise.all(Array.from({ length: 3 }, () => lab.cli(["connect"])));
    for (const { code, stderr } of results) expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(results.filter(({ stdout }) => stdout.includes("Connected to")).length).toBe(1);
    expect(lab.pids("daemon")).toHaveLength(1);
    expect(lab.pids("helper")).toHaveLength(1);
    await helloAnswers();
  });
  test("gets over the sockets that killed programs left (trap 24)", async () => {
    await lab.ok("connect");
    const pids = [...lab.pids("daemon"), ...lab.pids("helper")];
    for (const pid of pids) process.kill(pid, "SIGKILL");
    await until("the end of both programs", () => lab.pids("helper").length === 0);
    expect(await lab.runtimeFiles()).toContain("daemon.sock");
    const [result, ms] = await timed(() => lab.cli(["connect"]));
    figure("connect after kill -9 of both programs", ms);
    expect(result).toMatchObject({ code: 0, stderr: "" });
    await helloAnswers();
  });
  test("and quit at the same moment leave one or the other, and no disorder (trap 20)", async () => {
    await lab.ok("connect");
    const [quit, connect] = await Promise.all([lab.cli(["quit"]), lab.cli(["connect"])]);
    expect(quit).toMatchObject({ code: 0, stderr: "" });
    expect([0, 1]).toContain(connect.code); // it may have met the daemon that was ending, and says so
    expect(connect.stderr).toMatch(/^(telepresence: error: [^\n]+\n)?$/);
    expect(await lab.cli(["connect"])).toMatchObject({ code: 0, stderr: "" });
    expect(lab.pids("daemon")).toHaveLength(1);
    await helloAnswers();
  });
  test("keeps credentials out of logs and command lines", async () => {
    const token = tokenOf("admin");
    const env = { KUBECONFIG: cluster.kubeconfigFor("admin", "token") };
    expect(await lab.cli(["connect"], { env })).toMatchObject({ code: 0, stderr: "" });
    const places = `${homeDir(ordinaryUser.name, 1)}/.cache/telepresence /run/user/${ordinaryUser.uid}/telepresence`;
    // by way of a file: on a command line the search would find itself
    const search = `cat > /run/needle; grep -rlF -f /run/needle --devices=skip ${places} /proc/[0-9]*/cmdline; rm /run/needle`;
    const found = await cluster.onLaptop(["sh", "-c", search], { user: "root", input: token, allowFailure: true });
    expect(found.stdout).toBe("");
    expect((await lab.sh("ls -l $HOME/.cache/telepresence/logs")).stdout).toMatch(/^-rw------- .* daemon\.log$/m);
  });
  test("is undone by quit while it is on its way", async () => {
    await using running = lab.start([
      "connect",
      "--image",
      "docker.io/testbed/no-such:1",
      "--manager-namespace",
      "slow",
    ]);
    await until("the daemon", () => lab.pids("daemon").length === 1);
    running.kill("SIGINT");
    expect(await running.ends()).toBe(130);
    await until("nothing left in the cluster", async () => {
      const { stdout } = await cluster.kubectl(["get", "deployments", "-n", "slow", "-o", "name"], {
        allowFailure: true,
      });
      return stdout === "";
    });
    await lab.quit();
    await kubectl("delete", "namespace", "slow", "--ignore-not-found", "--wait=false");
    await asBefore();
  });
});

describe("connect -- COMMAND", () => {
  test("runs it connected, gives back its exit code, and undoes everything", async () => {
    const { code, stdout, stderr } = await lab.cli([
      "connect",
      "--",
      "sh",
      "-c",
      "curl -sS http://hello.default/; exit 7",
    ]);
    expect({ code, stderr }).toEqual({ code: 7, stderr: "" });
    expect(stdout).toContain("Hello from the cluster");
    await asBefore();
  });
  test("leaves a connection alone that was there before", async () => {
    await lab.ok("connect");
    expect(await lab.ok("connect", "--", "sh", "-c", "cat", "--help")).toBe("");
    expect(await lab.ok("status")).toContain("Connected");
  });
  test("passes signals on, and undoes everything after them", async () => {
    for (const [signal, code] of [
      ["SIGTERM", 143],
      ["SIGINT", 9],
    ] as const) {
      const trap = signal === "SIGINT" ? "trap 'exit 9' INT;" : "";
      const script = `${trap} echo started; while :; do sleep 0.1; done`;
      await using running = lab.start(["connect", "--", "sh", "-c", script]);
      await running.says("started");
      running.kill(signal);
      expect(await running.ends()).toBe(code);
      await asBefore();
    }
  });
  test("names a command that does not exist, and undoes everything", async () => {
    const { code, stderr } = await lab.cli(["connect", "--", "no-such-command"]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^telepresence: error: .*no-such-command.*\n$/);
    await asBefore();
  });
});

describe("a cluster user", () => {
  async function withoutManager(): Promise<void> {
    await lab.ok("uninstall", "--everything");
    await lab.quit();
    await kubectl("delete", "deployment", "traffic-manager", "-n", "solo", "--ignore-not-found", "--wait=true");
  }
  afterAll(withoutManager);
  test("with one namespace gets the manager there, and is told (decision 3)", async () => {
    await withoutManager();
    await cluster.deploySamples("solo", ["hello"]);
    const solo = new Lab({ clusterUser: "solo" });
    const { code, stdout, stderr } = await solo.cli(["connect"]);
    expect({ code, stderr }).toMatchObject({ code: 0 });
    expect(stderr).toMatch(
      /^Warning: the traffic-manager was installed in namespace solo, because user "solo" may not create \S+ in .*namespace telepresence.*\n$/,
    );
    expect(stdout).toContain("Installed the traffic-manager in namespace solo\n");
    const own = await cluster.onLaptop(["curl", "-sS", "-m", "10", "http://hello/"], solo.laptopOptions);
    expect(own.stdout).toContain("Hello from the cluster");
    // a second one finds it there, silently
    await solo.quit();
    expect(await solo.cli(["connect"])).toMatchObject({ code: 0, stderr: "" });
    expect(await solo.ok("list")).toContain("hello: ready to intercept (traffic-agent not yet installed)");
  });
  test("with a small Role is told what it cannot see, and which verbs to ask for, when there is no manager", async () => {
    const small = new Lab({ clusterUser: "small" });
    await withoutManager();
    const { code, stderr } = await small.cli(["connect"]);
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^telepresence: error: whether namespace telepresence has a traffic-manager cannot be seen by this user, and none can be installed: user "small" may not create deployments\.apps in namespace telepresence; .*`list` on pods and deployments.* pods\/portforward, in namespace telepresence; .*--manager-namespace; .*`kubectl --context small auth can-i create deployments\.apps -n telepresence`.*\n$/,
    );
    await lab.quit();
    await asBefore();
  });
  test("with a small Role works with the manager that is there", async () => {
    await lab.ok("connect");
    await lab.quit();
    await cluster.grantSmall("telepresence");
    await cluster.deploySamples("small", ["hello"]);
    const small = new Lab({ clusterUser: "small" });
    const { code, stderr } = await small.cli(["connect"]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    for (const name of ["hello", "hello.small", "hello.small.svc.cluster.local", "hello.default.svc"]) {
      const { stdout } = await cluster.onLaptop(["curl", "-sS", "-m", "10", `http://${name}/`], small.laptopOptions);
      expect(stdout).toContain("Hello from the cluster");
    }
    expect(await small.ok("list")).toContain("hello: ready to intercept");
  });
});

describe("a large cluster", () => {
  const names = Array.from({ length: 120 }, (_, index) => `many-${index}`);
  afterAll(async () => {
    await kubectl("delete", "namespace", ...names, "--ignore-not-found", "--wait=false");
  });
  test("does not make connect slower, nor are its services left out (trap 54)", async () => {
    const manifest = names.map((name) => ({ apiVersion: "v1", kind: "Namespace", metadata: { name } }));
    await apply("default", ...manifest);
    await lab.ok("connect");
    await lab.quit();
    const [result, ms] = await timed(() => lab.cli(["connect"]));
    figure("connect with 120 namespaces more", ms);
    expect(result).toMatchObject({ code: 0, stderr: "" });
    expect(ms).toBeLessThan(10_000);
    await apply("many-117", service("far", [{ port: 80 }]));
    await until("far.many-117", async () => (await lab.sh("getent hosts far.many-117")).code === 0);
  });
});

describe("the laptop's network", () => {
  /** Of the laptop, as root; undone after the test. */
  const undo: string[] = [];
  afterEach(async () => {
    for (const line of undo.splice(0)) await lab.rootSh(line);
  });
  async function change(line: string, back: string): Promise<void> {
    undo.push(back);
    await lab.rootSh(line);
  }

  test("has a route that overlaps: both are named, and the cluster is seen at other addresses (trap 11)", async () => {
    await change(
      "ip link add vpn0 type veth peer name vpn1; ip link set vpn1 up; ip link set vpn0 up; ip route add 10.96.0.0/16 dev vpn0",
      "ip link del vpn0",
    );
    const { code, stderr } = await lab.cli(["connect"]);
    expect(code).toBe(0);
    expect(stderr).toMatch(/10\.96\.0\.0\/16 overlaps .* vpn0; here its addresses are seen at 240\.0\.0\.0\/16\n$/);
    const { stdout: seen } = await lab.sh("getent ahostsv4 hello.default");
    expect(seen).toMatch(/^240\.0\.\d+\.\d+ /);
    expect((await lab.sh(`getent hosts ${seen.split(" ")[0]}`)).stdout).toContain("hello.default.svc.cluster.local");
    await helloAnswers();
    expect((await lab.sh("ip route get 10.96.0.10")).stdout).toContain("dev vpn0");
    expect((await lab.cli(["status"])).stdout).toMatch(
      /Seen elsewhere\s*:\s+10\.96\.0\.0\/16 as 240\.0\.0\.0\/16: .*vpn0/,
    );
    await lab.quit();
    const [refused, ms] = await timed(() => lab.cli(["connect", "--vnat", "off"]));
    figure("overlapping route named after", ms);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(/^telepresence: error: .*10\.96\.0\.0\/16.*vpn0.*\n$/);
    await lab.quit();
    // and the other way out that the hint names
    expect(await lab.cli(["connect", "--never-proxy", "10.96.0.0/16"])).toMatchObject({ code: 0, stderr: "" });
  });
  test("has a wider route, of which the cluster takes its part where that is allowed", async () => {
    await change(
      "ip link add vpn0 type veth peer name vpn1; ip link set vpn1 up; ip link set vpn0 up; ip route add 10.64.0.0/10 dev vpn0",
      "ip link del vpn0",
    );
    const allowed = ["connect", "--allow-conflicting-subnets", "10.96.0.0/16"];
    expect(await lab.cli(allowed)).toMatchObject({ code: 0, stderr: "" });
    await helloAnswers();
    expect((await lab.sh("ip route get 10.96.0.10")).stdout).toMatch(/dev tel/);
    expect((await lab.sh("ip route get 10.97.0.10")).stdout).toContain("dev vpn0");
    expect(await lab.json("status")).toMatchObject({ root_daemon: { allow_conflicting_subnets: ["10.96.0.0/16"] } });
  });
  test("may hold blackhole and unreachable routes elsewhere (trap 15)", async () => {
    await change(
      "ip route add blackhole 192.0.2.0/24; ip route add unreachable 198.51.100.0/24",
      "ip route del blackhole 192.0.2.0/24; ip route del unreachable 198.51.100.0/24",
    );
    expect(await lab.cli(["connect"])).toMatchObject({ code: 0, stderr: "" });
    await helloAnswers();
  });
  test("has a firewall that drops what comes from the device: named at once", async () => {
    const rules =
      "table inet hostfw { chain in { type filter hook input priority 0; policy accept; iifname tel* tcp dport != 53 drop; }; }";
    await change(`nft '${rules}'`, "nft delete table inet hostfw");
    const [{ code, stderr }, ms] = await timed(() => lab.cli(["connect"]));
    figure("firewall named after", ms);
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^telepresence: error: packets that came in on tel\w+ never reached this machine's own port; the host's firewall drops them: allow input on the device, e\.g\. nft insert rule inet filter input iifname "tel\w+" accept\n$/,
    );
    expect(ms).toBeLessThan(15_000);
    await until("the helper's end", () => lab.pids("helper").length === 0, { limitMs: 5000 });
  });
  test("never loses the API server to the device, whatever is proxied (trap 12)", async () => {
    expect(await lab.cli(["connect", "--also-proxy", "172.31.0.0/16"])).toMatchObject({ code: 0, stderr: "" });
    expect((await lab.sh(`ip route get ${nodeAddress}`)).stdout).toContain("dev eth0");
    expect((await lab.sh("ip route get 172.31.77.11")).stdout).toMatch(/dev tel/);
    expect((await lab.sh("kubectl get --raw=/readyz")).stdout).toBe("ok");
    await helloAnswers();
  });
  test("is not taken away by a range that covers it (trap 13)", async () => {
    const { code, stderr } = await lab.cli(["connect", "--also-proxy", "192.168.77.0/24"]);
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^telepresence: error: the cluster's range 192\.168\.77\.0\/\d+ overlaps this machine's route 192\.168\.77\.0\/24 dev eth0; [^\n]+\n$/,
    );
    expect((await lab.sh("curl -sS -m 10 http://example.com/")).stdout).toContain("This is example.com");
  });
  test("may have nameservers that do not answer, comments, and several of them (traps 1, 9)", async () => {
    const file =
      "; a comment\\n# another\\nnameserver 192.0.2.1\\nnameserver 192.0.2.2\\noptions timeout:1 attempts:1\\n";
    await change(
      `cp /etc/resolv.conf /run/resolv.keep; printf '${file}' > /etc/resolv.conf`,
      "cp /run/resolv.keep /etc/resolv.conf",
    );
    const [result, ms] = await timed(() => lab.cli(["connect"]));
    figure("connect without a nameserver that answers", ms);
    expect(result).toMatchObject({ code: 0, stderr: "" });
    await helloAnswers();
    expect((await lab.sh("getent hosts hello.default")).code).toBe(0);
  });
  test("routes --also-proxy, and leaves --never-proxy out", async () => {
    const flags = ["--also-proxy", "203.0.113.10/32", "--never-proxy", "10.244.0.128/25"];
    expect(await lab.cli(["connect", ...flags])).toMatchObject({ code: 0, stderr: "" });
    expect((await lab.sh("ip route get 203.0.113.10")).stdout).toMatch(/dev tel/);
    expect((await lab.sh("ip route get 10.244.0.129")).stdout).toContain("dev eth0");
    expect((await lab.sh("ip route get 10.244.0.5")).stdout).toMatch(/dev tel/);
    // the public web sees the cluster's node, not the laptop
    expect((await lab.sh("curl -sS -m 10 http://203.0.113.10/")).stdout).toContain(`seen from ${nodeAddress}`);
  });
  test("resolves the mapped namespaces only", async () => {
    expect(await lab.cli(["connect", "--mapped-namespaces", "default,restricted"])).toMatchObject({ code: 0 });
    await helloAnswers();
    expect((await lab.sh("getent hosts kube-dns.kube-system")).code).toBe(2);
    expect((await lab.sh("getent hosts kube-dns.kube-system.svc.cluster.local")).code).toBe(0);
  });
});

describe("a laptop whose network leads to the cluster", () => {
  const inNode = (...argv: string[]): Promise<RunResult> => run("ip", ["netns", "exec", namespaces.node, ...argv]);
  const inRouter = (...argv: string[]): Promise<RunResult> => run("ip", ["netns", "exec", namespaces.router, ...argv]);
  const ranges = ["10.244.0.0/16", "10.96.0.0/16"];
  beforeAll(async () => {
    await inNode("nft", "insert", "rule", "inet", "guard", "forwarding", "accept");
    for (const range of ranges) await inRouter("ip", "route", "add", range, "via", nodeAddress);
  });
  afterAll(async () => {
    for (const range of ranges) await inRouter("ip", "route", "del", range);
    const { stdout } = await inNode("nft", "-a", "list", "chain", "inet", "guard", "forwarding");
    const handle = /^\s*accept # handle (\d+)$/m.exec(stdout)?.[1] ?? "";
    await inNode("nft", "delete", "rule", "inet", "guard", "forwarding", "handle", handle);
  });

  test("keeps its own way there, and is told", async () => {
    const { code, stderr } = await lab.cli(["connect"]);
    expect(code).toBe(0);
    expect(stderr).toBe(
      "Warning: this machine reaches 10.96.0.0/16 and 10.244.0.0/24 of the cluster by itself, by eth0: not routed here\n",
    );
    expect((await lab.sh("ip route get 10.96.0.10")).stdout).toContain("dev eth0");
    expect((await lab.cli(["status"])).stdout).toMatch(/Reached directly\s*: \[10\.96\.0\.0\/16 10\.244\.0\.0\/24\]/);
    await helloAnswers(); // by its name, which the cluster tells
  });
});

describe("connect --direct", () => {
  const guard = ["rule", "inet", "guard", "forwarding"];
  const nft = (...argv: string[]): Promise<RunResult> => run("ip", ["netns", "exec", namespaces.node, "nft", ...argv]);
  /** What the node does with the laptops' packets to the manager's direct port, until disposed. */
  const direct = async (verdict: "accept" | "drop"): Promise<AsyncDisposable> => {
    const rule = ["iifname", "wan0", "tcp", "dport", "8444", verdict];
    const { stdout } = await nft("--echo", "--handle", "insert", ...guard, ...rule);
    const handle = /handle (\d+)/.exec(stdout)?.[1] ?? "";
    return { [Symbol.asyncDispose]: async () => void (await nft("delete", ...guard, "handle", handle)) };
  };
  const transport = async (): Promise<string | undefined> =>
    /Transport\s*: (.*)/.exec((await lab.cli(["status"])).stdout)?.[1];

  test("goes past the API server where that is open, and by it again when it is shut", async () => {
    await using _open = await direct("accept");
    expect((await lab.cli(["connect", "--direct", "nodeport", "--transport", "direct"])).code).toBe(0);
    await until("the direct way", async () => (await transport())?.startsWith("direct (TLS to "));
    await helloAnswers();
    await using _shut = await direct("drop");
    await until("the port-forward", async () => (await transport())?.startsWith("port-forward"));
    await helloAnswers();
    expect((await lab.cli(["status"])).stdout).toMatch(/Link\s*: (never lost|lost (once|\d times)), moved/);
  });
});

describe("connect --via", () => {
  const namespace = "it-via";
  beforeAll(async () => {
    await freshNamespaces(namespace);
    const script = readFileSync(join(import.meta.dirname, "fixtures/one-answer-dns.py"), "utf8");
    const container = {
      command: ["sh", "-c", 'python3 -c "$NAMESERVER" & exec python3 /samples/hello.py'],
      env: [
        { name: "POD_NAME", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
        { name: "NAMESERVER", value: script },
      ],
    };
    const pod = { dnsPolicy: "None", dnsConfig: { nameservers: ["127.0.0.1"] } };
    await apply(namespace, ...webApp({ name: "web" }), ...webApp({ name: "names", servicePorts: [], container, pod }));
    await rolledOut(namespace, "deployment/web", "deployment/names");
  });
  afterAll(async () => {
    await lab.quit();
    await removeNamespaces(namespace);
  });

  test("has connections leave from the workload's pod, whose loopback is there, and goes on in another pod", async () => {
    expect(await lab.cli(["connect", "-n", namespace, "--via", "deploy/web"])).toMatchObject({ code: 0, stderr: "" });
    expect((await lab.cli(["status"])).stdout).toMatch(/Via\s*: web\n[^]*127\.0\.0\.0\/24 as 240\.0\.0\.0\/24/);
    await helloAnswers();
    const podOf = async (): Promise<string | undefined> =>
      /in pod <b>(web-[\w-]+)<\/b>/.exec((await lab.sh("curl -sS -m 10 http://240.0.0.1:8000/")).stdout)?.[1];
    const first = await podOf();
    expect(first).toBeDefined();
    // the agent's own ports are nobody's
    expect((await lab.sh(`curl -sS -m 10 http://240.0.0.1:${agentIntroductionPort}/`)).code).toBe(7);
    await kubectl("delete", "pod", "-n", namespace, first ?? "", "--wait=false");
    await until("another pod to answer", async () => ![undefined, first].includes(await podOf()));
    await helloAnswers();
  });

  test("has look-ups answered by the workload's own resolver", async () => {
    const asked = "who.default.svc.cluster.local";
    expect(await lab.cli(["connect", "-n", namespace])).toMatchObject({ code: 0 });
    expect((await lab.sh(`getent hosts ${asked}`)).code).toBe(2);
    await lab.quit();
    expect(await lab.cli(["connect", "-n", namespace, "--via", "deploy/names"])).toMatchObject({ code: 0, stderr: "" });
    expect((await lab.sh(`getent ahostsv4 ${asked}`)).stdout).toMatch(/^192\.0\.2\.77 /);
  });

  test("of a subnet alone leaves the rest as it is, look-ups too", async () => {
    const wish = ["--proxy-via", "127.0.0.0/8=deploy/names"];
    expect(await lab.cli(["connect", "-n", namespace, ...wish])).toMatchObject({ code: 0, stderr: "" });
    const { stdout: said } = await lab.cli(["status"]);
    expect(said).toContain("127.0.0.0/8 by names");
    const first = /127\.0\.0\.0\/8 as (\d+)\./.exec(said)?.[1];
    expect((await lab.sh(`curl -sS -m 10 http://${first}.0.0.1:8000/`)).stdout).toMatch(/in pod <b>names-/);
    expect((await lab.sh("curl -sS -m 10 http://web/")).stdout).toMatch(/in pod <b>web-/);
    expect((await lab.sh("getent hosts who.default.svc.cluster.local")).code).toBe(2);
    await helloAnswers();
  });
});
