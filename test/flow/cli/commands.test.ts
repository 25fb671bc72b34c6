// What a command sends to the daemon and what it prints, in this process, against a scripted daemon on a real socket.
import { mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { AppError } from "#base/error.ts";
import { Interrupts } from "#cli/interrupts.ts";
import type { Machine } from "#cli/machine.ts";
import { CliLab } from "./cli-lab.ts";
import { runHere } from "./run-cli.ts";
import type { Outcome } from "./run-cli.ts";
import { connection, interceptInfo, workload } from "./scripted-daemon.ts";
import type { Script, ScriptedDaemon } from "./scripted-daemon.ts";

const lab = CliLab.forEachTest();
const run = (...argv: string[]): Promise<Outcome> => lab.run(argv);

describe("with nothing running", () => {
  test("status, version, quit and leave answer and start nothing", async () => {
    expect(await run("status")).toEqual({
      code: 0,
      stdout: "OSS User Daemon: Not running\nOSS Root Daemon: Not running\nOSS Traffic Manager: Not connected\n",
      stderr: "",
    });
    expect((await run("version")).stdout).toMatch(/^OSS Client\s+: v\d+\.\d+\.\d+\nOSS Root Daemon\s+: not running\n/);
    expect(await run("quit")).toEqual({ code: 0, stdout: "Not connected\n", stderr: "" });
    const left = await run("leave", "hello");
    expect(left.code).toBe(1);
    expect(left.stderr).toMatch(/^telepresence: error: there is no intercept hello: telepresence is not connected; /);
  });

  test("status and version have their JSON", async () => {
    expect(JSON.parse((await run("status", "--output", "json")).stdout)).toEqual({
      user_daemon: { running: false, name: "OSS User Daemon" },
      root_daemon: { running: false, name: "OSS Root Daemon" },
      traffic_manager: { name: "OSS Traffic Manager" },
    });
    expect(JSON.parse((await run("version", "--format=json")).stdout)).toEqual({ client: expect.stringMatching(/^v/) });
    expect((await run("status", "--output", "yaml")).stdout).toContain("user_daemon:\n  running: false\n");
  });
});

// Scripts got text in an envelope, or nothing at all.
describe("the JSON of commands that change something", () => {
  const connected = {
    status: "Connected",
    installed_manager: false,
    kubernetes_server: "https://127.0.0.1:6443",
    kubernetes_context: "kind-dev",
    namespace: "default",
    manager_namespace: "telepresence",
    traffic_manager: expect.stringMatching(/^v/),
  };
  const standAt = (name: string): void => {
    lab.daemon.connected = true;
    lab.daemon.intercepts = [interceptInfo(name)];
  };
  test.each([
    ["version", [], { client: expect.stringMatching(/^v/), user_daemon: expect.stringMatching(/^v/) }],
    ["connect", [], { ...connected, fresh: true }],
    ["leave", ["hello"], { left: ["hello"] }],
    ["uninstall", ["--agent", "hello"], { removed: ["Deployment hello: traffic-agent removed"] }],
    ["quit", [], { was_running: true, was_connected: false }],
  ])("%s: an object, in the envelope or bare", async (command, words, object) => {
    for (const syntax of ["--output", "--format"]) {
      await lab.start();
      if (command === "leave") standAt("hello");
      const { code, stdout, stderr } = await run(command, ...words, syntax, "json");
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      expect(JSON.parse(stdout)).toEqual(syntax === "--output" ? { cmd: command, stdout: object } : object);
      await lab.daemon[Symbol.asyncDispose]();
    }
  });

  test("connect says so, too, when it was connected; quit when nothing ran", async () => {
    expect(JSON.parse((await run("quit", "--format", "json")).stdout)).toEqual({
      was_running: false,
      was_connected: false,
    });
    await lab.start();
    await run("connect");
    const again = JSON.parse((await run("connect", "--format", "json")).stdout) as object;
    expect(again).toEqual({ ...connected, fresh: false });
  });

  test("leave names those that were left before one could not be", async () => {
    await lab.start();
    standAt("hello");
    const { code, stdout } = await run("leave", "hello", "other", "--output", "json");
    expect(code).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({ stdout: { left: ["hello"] }, code: "intercept_not_found" });
  });
});

describe("connect", () => {
  test("tells where it has connected, and says nothing the second time", async () => {
    await lab.start();
    const first = await run("connect", "--context", "kind-dev", "-n", "default");
    expect(first).toEqual({
      code: 0,
      stdout: "Connected to context kind-dev, namespace default (https://127.0.0.1:6443)\n",
      stderr: "",
    });
    expect(lab.daemon.paramsOf("connect")).toMatchObject({
      kube: { flags: { context: "kind-dev", namespace: "default" }, cwd: lab.home.path, env: { HOME: lab.home.path } },
    });
    expect(await run("connect")).toEqual({ code: 0, stdout: "", stderr: "" });
  });

  describe("--proxy", () => {
    const proxy = { socks: "127.0.0.1:1080", http: "127.0.0.1:3128" };
    const rootless = { proxy: { socksPort: 1080, httpPort: 0 } };
    const through = { ...connection, rootless, proxy };
    const script: Script = {
      connect: () => ({ fresh: true, installedManager: false, connection: through, warnings: [] }),
      status: () => ({ ...lab.daemon.status(), helper: undefined, dns: undefined, connection: through }),
    };
    const startRootless = async (connected: boolean): Promise<void> => {
      Object.assign(await lab.start(script), { helperRunning: false, connected });
    };

    // A password was asked for although nothing needs root.
    test("starts no helper, and tells where the proxies are and how programs find them", async () => {
      await startRootless(false);
      const { code, stdout, stderr } = await run("connect", "--proxy", "--proxy-socks", "1080");
      expect([code, stderr]).toEqual([0, ""]);
      expect(stdout).toContain("Proxies: SOCKS5 127.0.0.1:1080, HTTP 127.0.0.1:3128");
      expect(stdout).toContain("\n  export ALL_PROXY=socks5h://127.0.0.1:1080\n");
      expect(stdout).toContain("\n  export https_proxy=http://127.0.0.1:3128\n");
      expect(lab.daemon.paramsOf("connect")).toMatchObject({ rootless });
    });
    test("gives the command after -- the variables; the API server is never behind the proxies", async () => {
      await startRootless(false);
      const seen = join(lab.home.path, "seen");
      const show = `echo "$ALL_PROXY $http_proxy $NO_PROXY" > ${seen}`;
      const { code, stdout } = await run("connect", "--proxy", "--", "sh", "-c", show);
      expect([code, stdout]).toEqual([0, expect.not.stringContaining("export")]); // the output is the command's
      const never = "localhost,127.0.0.1,::1";
      expect(readFileSync(seen, "utf8")).toBe(`socks5h://127.0.0.1:1080 http://127.0.0.1:3128 ${never}\n`);
    });
    test("in JSON, and in status", async () => {
      await startRootless(true);
      const object = JSON.parse((await run("connect", "--proxy", "--format", "json")).stdout) as object;
      expect(object).toMatchObject({ proxy: { ...proxy, environment: { ALL_PROXY: "socks5h://127.0.0.1:1080" } } });
      expect(lab.daemon.paramsOf("connect")).toMatchObject({ rootless }); // the port that it has already
      const { stdout } = await run("status");
      expect(stdout).toContain("SOCKS5: 127.0.0.1:1080\n");
      expect(stdout).toContain("OSS Root Daemon: Not running\n");
    });
    test("is what other commands keep, and what a plain connect is told of before root is asked for", async () => {
      await startRootless(true);
      expect((await run("list", "--context", "kind-dev")).code).toBe(0);
      expect(lab.daemon.paramsOf("connect")).toMatchObject({ rootless, meant: [] });
      expect((await run("list", "--context", "kind-dev", "--vnat", "off")).code).toBe(0);
      expect(lab.daemon.paramsOf("connect")).toMatchObject({ vnat: ["off"], meant: ["vnat"] });
      const { code, stderr } = await run("connect");
      expect([code, stderr]).toEqual([
        1,
        expect.stringContaining("connected without a network device, by proxies; run"),
      ]);
      expect(lab.daemon.helperFailures).toEqual([]);
    });
    test.each([
      [["--proxy-socks", "70000"], '--proxy-socks is "70000", expected a port number'],
      [["--proxy-http", "x"], '--proxy-http is "x", expected a port number'],
      [["--proxy-http", "80", "--proxy-socks", "80"], "are both 80, expected two ports"],
    ])("refuses %j", async (flags, why) => {
      await startRootless(false);
      const { code, stderr } = await run("connect", ...flags);
      expect([code, stderr]).toEqual([2, expect.stringContaining(why)]);
    });
  });

  describe("run", () => {
    const inHere = (machine: Machine): Machine => ({
      ...machine,
      requirePrivateNetworks: () => Promise.resolve(),
      privateCommand: ({ id }, command) =>
        Promise.resolve(["sh", "-c", `NETWORK=${id}; export NETWORK; exec "$@"`, "sh", ...command]),
    });
    test("connects without a device or a helper, and ends what it entered", async () => {
      await lab.start();
      lab.daemon.helperRunning = false;
      const seen = join(lab.home.path, "seen");
      const argv = ["run", "-n", "team", "--", "sh", "-c", `echo "$NETWORK" > ${seen}; exit 3`];
      const { code, stdout, stderr } = await runHere(argv, { env: lab.home.env, cwd: lab.home.path, machine: inHere });
      expect({ code, stdout, stderr }).toEqual({ code: 3, stdout: "", stderr: "" });
      expect(readFileSync(seen, "utf8")).toBe("1\n");
      expect(lab.daemon.methods()).toEqual(["connect", "enter", "leaveEntered"]);
      expect(lab.daemon.paramsOf("connect")).toMatchObject({ rootless: {}, kube: { flags: { namespace: "team" } } });
      expect(lab.daemon.helperFailures).toEqual([]);
    });
    test("takes whatever connection there is", async () => {
      await lab.start();
      lab.daemon.connected = true;
      await runHere(["run", "--", "true"], { env: lab.home.env, cwd: lab.home.path, machine: inHere });
      expect(lab.daemon.methods()).toEqual(["enter", "leaveEntered"]);
    });
    test("touches nothing where there is no command, or the system forbids it", async () => {
      await lab.start();
      expect((await run("run")).stderr).toContain("expected a command after --");
      const machine = (real: Machine): Machine => ({
        ...inHere(real),
        requirePrivateNetworks: () => Promise.reject(new AppError("unsupported", "not here", { hint: "do that" })),
      });
      const { code, stderr } = await runHere(["run", "--", "true"], { env: lab.home.env, cwd: lab.home.path, machine });
      expect({ code, stderr }).toEqual({ code: 1, stderr: "telepresence: error: not here; do that\n" });
      expect(lab.daemon.methods()).toEqual([]);
    });
  });

  test("takes every connection flag, before and after its name", async () => {
    await lab.start();
    const flags =
      "--kubeconfig k --cluster c --user u --server s --token t --as a --as-group g1 --as-group g2 " +
      "--certificate-authority ca --client-certificate cc --client-key ck --insecure-skip-tls-verify=true " +
      "--tls-server-name tn --request-timeout 5s";
    const own =
      "--manager-namespace mn --mapped-namespaces a,b --also-proxy 10.1.0.0/16 --never-proxy 10.2.0.0/16 --allow-conflicting-subnets 10.3.0.0/16";
    const image = "--image registry.example/t:1 --image-pull-policy never";
    await run(...flags.split(" "), "connect", ...own.split(" "), ...image.split(" "), "--no-report");
    expect(lab.daemon.paramsOf("connect")).toMatchObject({
      kube: {
        flags: {
          kubeconfig: "k",
          cluster: "c",
          user: "u",
          server: "s",
          token: "t",
          as: "a",
          asGroup: ["g1", "g2"],
          certificateAuthority: "ca",
          clientCertificate: "cc",
          clientKey: "ck",
          insecureSkipTlsVerify: true,
          tlsServerName: "tn",
          requestTimeout: "5s",
        },
      },
      managerNamespace: "mn",
      mappedNamespaces: ["a", "b"],
      alsoProxy: ["10.1.0.0/16"],
      neverProxy: ["10.2.0.0/16"],
      allowConflictingSubnets: ["10.3.0.0/16"],
      image: "registry.example/t:1",
      imagePullPolicy: "Never",
    });
  });

  test("reads config.yml; flags and environment win over it", async () => {
    await lab.start();
    mkdirSync(join(lab.home.path, ".config", "telepresence"), { recursive: true });
    writeFileSync(
      join(lab.home.path, ".config", "telepresence", "config.yml"),
      "images: {registry: reg.example, agentImage: tp:2, pullPolicy: Always}\n" +
        "cluster: {defaultManagerNamespace: fromfile}\ngrpc: {maxReceiveSize: 4Mi}\n",
    );
    const { stderr } = await run("connect", "--manager-namespace", "fromflag");
    expect(stderr).toBe("Warning: grpc.maxReceiveSize in config.yml has no effect in this version\n");
    expect(lab.daemon.paramsOf("connect")).toMatchObject({
      image: "reg.example/tp:2",
      imagePullPolicy: "Always",
      managerNamespace: "fromflag",
    });
  });

  test("gives the daemon's warnings and errors their form", async () => {
    let failing = false;
    await lab.start({
      connect: () => {
        if (failing) {
          throw new AppError("context_not_found", 'context "nope" was not found', {
            hint: "kubectl config get-contexts lists them",
          });
        }
        return { fresh: true, installedManager: true, connection, warnings: ["the manager is\n older"] };
      },
    });
    expect(await run("connect")).toEqual({
      code: 0,
      stdout:
        "Installed the traffic-manager in namespace telepresence\n" +
        "Connected to context kind-dev, namespace default (https://127.0.0.1:6443)\n",
      stderr: "Warning: the manager is older\n",
    });
    failing = true;
    expect(await run("connect", "--context", "nope")).toEqual({
      code: 1,
      stdout: "",
      stderr: 'telepresence: error: context "nope" was not found; kubectl config get-contexts lists them\n',
    });
    expect(JSON.parse((await run("connect", "--context", "nope", "--output", "json")).stdout)).toEqual({
      cmd: "connect",
      err: 'context "nope" was not found; kubectl config get-contexts lists them',
      code: "context_not_found",
    });
    const bare = await run("connect", "--context", "nope", "--format", "json");
    expect(bare.code).toBe(1);
    expect(JSON.parse(bare.stdout)).toMatchObject({ error: expect.stringContaining("nope") });
  });

  // Nothing was said when a connection that stood had its traffic-manager installed again.
  test("tells of a manager that it has installed again under a connection that stood", async () => {
    await lab.start({ connect: () => ({ fresh: false, installedManager: true, connection, warnings: [] }) });
    expect((await run("connect")).stdout).toBe("Installed the traffic-manager in namespace telepresence\n");
  });

  test("shows progress on a terminal and takes it away again", async () => {
    await lab.start();
    const { stderr } = await runHere(["connect"], { env: lab.home.env, terminal: true });
    expect(stderr).toContain("Connecting to the cluster");
    expect(stderr.endsWith("\r\u001b[K")).toBe(true);
  });

  test("warns when daemon and command are of different versions", async () => {
    await lab.start({
      hello: () => ({
        version: "9.9.9",
        pid: 99_999_999,
        executable: "",
        installId: "",
        connected: false,
        helperRunning: true,
      }),
    });
    expect((await run("connect")).stderr).toMatch(/^Warning: the running user daemon is version 9\.9\.9 .*quit`.*\n$/);
  });

  test("ends with 130 when it is interrupted, and the daemon is told", async () => {
    const interrupts = new Interrupts();
    let aborted: Promise<unknown> | undefined;
    await lab.start({
      connect: (_, signal) => {
        aborted = new Promise((resolve) => signal.addEventListener("abort", () => resolve(signal.reason)));
        setImmediate(() => interrupts.raise("SIGINT"));
        return new Promise(() => undefined);
      },
    });
    const { code, stderr } = await runHere(["connect"], { env: lab.home.env, interrupts });
    expect(code).toBe(130);
    expect(stderr).toBe("telepresence: error: the command was interrupted by SIGINT\n");
    await aborted;
  });

  test("names the log when the daemon dies in the middle", async () => {
    await lab.start({
      connect: () => {
        setImmediate(() => void lab.daemon.kill());
        return new Promise(() => undefined);
      },
    });
    const { code, stderr } = await run("connect");
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^telepresence: error: the user daemon ended before it answered; its log is .*daemon\.log\n$/,
    );
  });

  test("refuses a runtime directory that is not the user's alone", async () => {
    mkdirSync(join(lab.home.path, "open"), { mode: 0o755 });
    mkdirSync(join(lab.home.path, "open", "telepresence"), { mode: 0o777 });
    const { code, stderr } = await runHere(["status"], {
      env: { ...lab.home.env, XDG_RUNTIME_DIR: join(lab.home.path, "open") },
    });
    expect(code).toBe(1);
    expect(stderr).toContain("expected a directory of user");
  });
});

describe("status", () => {
  test("shows all that is known", async () => {
    const running = await lab.start();
    running.connected = true;
    running.intercepts = [interceptInfo("hello")];
    expect((await run("status")).stdout.trimEnd().split("\n")).toEqual([
      "OSS User Daemon: Running",
      "  Version           : v0.1.0",
      "  Executable        : /usr/bin/telepresence",
      "  Install ID        : install-1",
      "  Status            : Connected",
      "  Kubernetes server : https://127.0.0.1:6443",
      "  Kubernetes context: kind-dev",
      "  Namespace         : default",
      "  Manager namespace : telepresence",
      "  Transport         : port-forward (WebSocket)",
      "  Round trip        : 0.74 ms, last answer 1.2 s ago",
      "  Link              : lost 2 times, once with its connections, moved once",
      "  Intercepts        : 1 total",
      "      hello: alice@thinkpad, 8080 -> 127.0.0.1:8080",
      "OSS Root Daemon: Running",
      "  Version    : v0.1.0",
      "  Device     : tel-1000",
      "  DNS        :",
      "      Local address   : 127.0.0.1:40053",
      "      Hook            : resolved",
      "      Upstreams       : [192.168.1.1]",
      "      Cluster domain  : cluster.local",
      "      Names below     : dev.telepresence only (bare names are not this connection's)",
      "      Exclude suffixes: [.com .io]",
      "      Include suffixes: []",
      "      Excludes        : [printer]",
      "      Mappings        : [db: postgres.data]",
      "      Timeout         : 4s",
      "  Subnets    : (2 subnets, read 12.3 s ago)",
      "      - 10.96.0.0/16",
      "      - 10.244.0.0/24",
      "  Also Proxy : (0 subnets)",
      "  Never Proxy: (1 subnet)",
      "      - 172.18.0.2/32",
      "OSS Traffic Manager: Connected",
      "  Version      : v0.1.0",
      "  Pod          : traffic-manager-abc",
      "  Traffic Agent: telepresence/telepresence:0.1.0",
    ]);
    const json = JSON.parse((await run("status", "--output", "json")).stdout) as Record<string, unknown>;
    expect(json).toMatchObject({
      user_daemon: {
        running: true,
        name: "OSS User Daemon",
        status: "Connected",
        kubernetes_server: "https://127.0.0.1:6443",
        kubernetes_context: "kind-dev",
        namespace: "default",
        manager_namespace: "telepresence",
        intercepts: [{ name: "hello", client: "alice@thinkpad" }],
      },
      root_daemon: {
        running: true,
        dns: {
          local_address: "127.0.0.1:40053",
          suffix: "dev.telepresence",
          suffix_only: true,
          exclude_suffixes: [".com", ".io"],
          excludes: ["printer"],
          mappings: [{ name: "db", aliasFor: "postgres.data" }],
          lookup_timeout: 4_000_000_000,
        },
        subnets: ["10.96.0.0/16", "10.244.0.0/24"],
        subnets_age_ms: 12_345,
        never_proxy_subnets: ["172.18.0.2/32"],
      },
      traffic_manager: { traffic_agent: "telepresence/telepresence:0.1.0" },
    });
    expect(json["root_daemon"]).not.toHaveProperty("also_proxy_subnets");
    expect((await run("version")).stdout).toMatch(/Traffic Agent\s+: telepresence\/telepresence:0\.1\.0\n$/);
  });

  test("counts the connections that the laptop did not take, and says where an intercept's ports lead", async () => {
    const running = await lab.start();
    running.connected = true;
    const info = { ...interceptInfo("hello"), refusedByLaptop: 3 };
    const ports = info.spec.ports.map((port) => ({ ...port, targetHost: "::1", targetPort: 9000 }));
    const failing = { ...info, spec: { ...info.spec, ports, onRefused: "fail" as const } };
    const tap = { ...info, spec: { ...info.spec, name: "tap", kind: "wiretap" as const }, refusedByLaptop: 1 };
    running.intercepts = [info, failing, tap];
    const { stdout } = await run("status");
    expect(stdout).toContain(
      " hello: alice@thinkpad, 8080 -> 127.0.0.1:8080, 3 refused here went to the application\n",
    );
    expect(stdout).toContain(" hello: alice@thinkpad, 8080 -> [::1]:9000, 3 refused here failed\n");
    expect(stdout).toContain(" tap: alice@thinkpad, 8080 -> 127.0.0.1:8080, 1 copy refused here\n");
    expect(JSON.parse((await run("status", "--output", "json")).stdout)).toMatchObject({
      user_daemon: {
        intercepts: [
          {
            refused_by_laptop: 3,
            ports: [{ container_port: 8080, protocol: "TCP", target_host: "127.0.0.1", target_port: 8080 }],
          },
          { refused_by_laptop: 3 },
        ],
      },
    });
  });
});

describe("list", () => {
  const mine = { ...interceptInfo("orders"), mine: true };
  const theirs = { ...interceptInfo("billing"), mine: false, client: "bob@desk" };
  const workloads = [
    workload("api", { agentVersion: "0.1.0" }),
    workload("billing", { intercepts: [theirs], agentVersion: "0.1.0" }),
    workload("cron", { notInterceptableReason: "No service with matching selector" }),
    workload("orders", { intercepts: [mine], agentVersion: "0.1.0" }),
    workload("web"),
  ];

  test("shows active intercepts first", async () => {
    await lab.start({ list: () => ({ workloads, warnings: [] }) });
    expect((await run("list")).stdout.trimEnd().split("\n")).toEqual([
      "orders : intercepted",
      "   Intercept name: orders",
      "   State         : ACTIVE",
      "   Workload kind : Deployment",
      "   Intercepting  : 10.244.0.9 -> 127.0.0.1",
      "       8080 -> 8080 TCP",
      "billing: intercepted",
      "   Intercept name: billing",
      "   State         : ACTIVE",
      "   Workload kind : Deployment",
      "   Client        : bob@desk",
      "   Intercepting  : 10.244.0.9 -> 127.0.0.1",
      "       8080 -> 8080 TCP",
      "api    : ready to intercept (traffic-agent already installed)",
      "web    : ready to intercept (traffic-agent not yet installed)",
    ]);
    expect(lab.daemon.methods()).toEqual(["connect", "list"]);
  });

  // Trap 44: a list that was longer than one message could be was an error.
  test("is whole with 10,000 workloads", async () => {
    const services = ["a-service-with-a-name-of-its-own", "and-another-one"];
    const many = Array.from({ length: 10_000 }, (_, number) =>
      workload(`a-workload-with-a-long-name-${number}`, { services }),
    );
    await lab.start({ list: () => ({ workloads: many, warnings: [] }) });
    const { code, stdout } = await run("list");
    expect([code, stdout.trimEnd().split("\n").length]).toEqual([0, 10_000]);
  });

  test("filters", async () => {
    await lab.start({ list: () => ({ workloads, warnings: [] }) });
    expect((await run("list", "-i")).stdout.match(/^\w+/gm)).toEqual(["orders", "billing"]);
    expect((await run("list", "--agents")).stdout.match(/^\w+/gm)).toEqual(["orders", "billing", "api"]);
    const all = (await run("list", "--only-interceptable=false")).stdout;
    expect(all).toContain(
      "cron   : not interceptable (traffic-agent not installed): No service with matching selector",
    );
  });

  test("has the text and the JSON of an empty list", async () => {
    await lab.start();
    expect((await run("list")).stdout).toBe("No Workloads (Deployments, StatefulSets, ReplicaSets, or Rollouts)\n");
    expect((await run("list", "-i")).stdout).toBe("No intercepts\n");
    expect((await run("list", "--output", "json")).stdout).toBe('{"cmd":"list","stdout":[]}\n');
    expect((await run("list", "--format", "json")).stdout).toBe("[]\n");
    expect((await run("list", "--format", "json-stream")).stdout).toBe("");
  });

  test("has the JSON of 2.20", async () => {
    await lab.start({ list: () => ({ workloads, warnings: [] }) });
    const { stdout } = JSON.parse((await run("list", "--output", "json")).stdout) as { readonly stdout: object[] };
    expect(stdout[0]).toMatchObject({
      name: "orders",
      namespace: "default",
      workload_resource_type: "Deployment",
      intercept_infos: [
        { id: "session-1:orders", disposition: 1, spec: { target_port: 8080, workload_kind: "Deployment" } },
      ],
    });
    expect((await run("list", "--format", "json-stream")).stdout.trim().split("\n")).toHaveLength(4);
  });

  test("uses the connection that stands, whatever namespace is asked for", async () => {
    const running = await lab.start();
    running.connected = true;
    await run("list", "-n", "other");
    expect(running.methods()).toEqual(["list"]);
    expect(running.paramsOf("list")).toEqual({ namespace: "other" });
  });

  test("lets the daemon check a place that is named, and keeps the connection's namespace", async () => {
    const running = await lab.start();
    running.connected = true;
    await run("list", "-n", "other", "--context", "kind-dev");
    expect(running.methods()).toEqual(["status", "connect", "list"]);
    expect(running.paramsOf("connect")).toMatchObject({
      kube: { flags: { namespace: "default", context: "kind-dev" } },
    });
  });
});

describe("intercept", () => {
  test("tells what is intercepted", async () => {
    await lab.start();
    expect((await run("intercept", "hello", "--port", "8000")).stdout.trimEnd().split("\n")).toEqual([
      "Using Deployment hello",
      "   Intercept name: hello",
      "   State         : ACTIVE",
      "   Workload kind : Deployment",
      "   Intercepting  : 10.244.0.9 -> 127.0.0.1",
      "       8080 -> 8000 TCP",
    ]);
    expect(lab.daemon.paramsOf("intercept")).toEqual({
      name: "hello",
      agent: "auto",
      ports: ["8000"],
      address: "127.0.0.1",
      ownedByConnection: false,
      wantEnvironment: false,
      volumes: { copy: [], limitBytes: 256 * 2 ** 20 },
    });
  });

  test("passes its flags on", async () => {
    await lab.start();
    const flags = "-p 8000:http -p 9000:9090 --service s -w wl -n ns --container c --address 192.168.1.5 --mount=false";
    const { code, stderr } = await run(
      "intercept",
      "hello",
      ...flags.split(" "),
      "--http-match=all",
      "--agent=sidecar",
      "--mechanism=tcp",
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(lab.daemon.paramsOf("intercept")).toEqual({
      name: "hello",
      agent: "sidecar",
      ports: ["8000:http", "9000:9090"],
      address: "192.168.1.5",
      service: "s",
      workload: "wl",
      namespace: "ns",
      container: "c",
      ownedByConnection: false,
      wantEnvironment: false,
    });
  });

  test("hands its filters on as one expression, and tells what came of them", async () => {
    const overlaps = [{ id: "s:b", client: "bob@desk", name: "b", createdAtMs: 0, filter: "true", first: true }];
    const filter = 'request.method in ["GET", "PUT"] && request.headers["x-user"] == "ann"';
    await lab.start({
      intercept: ({ name }) => {
        const info = interceptInfo(name);
        return { info: { ...info, spec: { ...info.spec, filter }, overlaps }, warnings: [] };
      },
    });
    const flags = ["--http-header=x-user=ann", "--http-method=get,PUT", "--allow-overlap"];
    const { code, stdout, stderr } = await run("intercept", "hello", ...flags);
    expect(lab.daemon.paramsOf("intercept")).toMatchObject({ filter, allowOverlap: true });
    expect(code).toBe(0);
    expect(stdout).toContain(`: HTTP requests that match\n       ${filter}\n`);
    expect(stderr).toMatch(/^Warning: the same requests may be taken by bob@desk .* asked first\n$/);
  });

  test.each([
    ["--env-file", "/no/such/env", "/no/such/env cannot be written: there is no such file or directory"],
    ["--env-json", "/dev", "/dev cannot be written: it is a directory"],
    ["--mount", "/dev/null", "--mount is /dev/null, which is no directory"],
  ])("refuses %s %s before it asks the daemon for anything", async (flag, place, why) => {
    await lab.start();
    const { code, stderr } = await run("intercept", "hello", flag, place);
    expect(code).not.toBe(0);
    expect(stderr).toContain(why);
    expect(lab.daemon.calls).toEqual([]);
  });
  test("points at what is wrong in a filter before it asks the daemon for anything", async () => {
    await lab.start();
    const { code, stderr } = await run("intercept", "hello", "--match", "request.metod == 'GET'");
    expect(code).toBe(2);
    expect(stderr).toMatch(/^telepresence intercept: --match is wrong at column \d+: .*metod/);
    expect(stderr).toMatch(/\n +request\.metod == 'GET'\n +\^\n/);
    expect(lab.daemon.paramsOf("intercept")).toBeUndefined();
  });

  test("takes its port from config.yml, then 8080", async () => {
    await lab.start();
    await run("intercept", "hello");
    expect(lab.daemon.paramsOf("intercept")).toMatchObject({ ports: ["8080"] });
    writeFileSync(join(lab.home.path, "my.yml"), "intercept:\n  defaultPort: 9000\n");
    await run("intercept", "hello", "--config", join(lab.home.path, "my.yml"));
    expect(lab.daemon.paramsOf("intercept")).toMatchObject({ ports: ["9000"] });
  });

  test("writes environment files that only the user can read", async () => {
    await lab.start({
      intercept: ({ name }) => ({
        info: interceptInfo(name),
        environment: { B: "two words", A: "1", PASSWORD: "pa$$word's", NOTE: "x # y" },
        warnings: [],
      }),
    });
    writeFileSync(join(lab.home.path, "old.env"), "OLD=1\n", { mode: 0o644 });
    const { code } = await run("intercept", "hello", "--env-file", "old.env", "--env-json", "new.json");
    expect(code).toBe(0);
    expect(readFileSync(join(lab.home.path, "old.env"), "utf8")).toBe(
      "A=1\nB=two words\nNOTE='x # y'\nPASSWORD=\"pa\\$\\$word's\"\nTELEPRESENCE_CONTAINER=app\n" +
        "TELEPRESENCE_INTERCEPT_ID=session-1:hello\n",
    );
    expect(statSync(join(lab.home.path, "old.env")).mode & 0o777).toBe(0o600);
    expect(readFileSync(join(lab.home.path, "new.json"), "utf8")).toMatch(/^\{\n {2}"A": "1",\n/);
    expect(statSync(join(lab.home.path, "new.json")).mode & 0o777).toBe(0o600);
  });

  test("writes them in the language that is asked for, and says what it cannot express", async () => {
    await lab.start({
      intercept: ({ name }) => ({
        info: interceptInfo(name),
        environment: { A: "it's", LINES: "a\nb", "my.key": "1", DB_HOST: "x", DB_PORT: "1" },
        warnings: [],
      }),
    });
    const flags = ["--env-file", "my.env", "--env-exclude", "TELEPRESENCE_*,DB_*", "--env-syntax"];
    const sh = await run("intercept", "hello", ...flags, "sh:export");
    expect(sh.stderr).toBe("Warning: my.env lacks my.key, which --env-syntax sh:export cannot express\n");
    const text = readFileSync(join(lab.home.path, "my.env"), "utf8");
    expect(text).toBe(
      "export A='it'\\''s'\nexport LINES='a\nb'\nexport TELEPRESENCE_CONTAINER='app'\n" +
        "export TELEPRESENCE_INTERCEPT_ID='session-1:hello'\n",
    );
    expect((await run("intercept", "hello", ...flags, "docker")).stderr).toContain("lacks LINES, which");
    expect(await run("intercept", "hello", ...flags, "fish")).toMatchObject({ code: 2 });
  });

  test("says where the volumes are, to people, scripts and programs", async () => {
    const volumes = { root: "/run/copies/hello", mounts: ["/etc/app", "/var/run/secrets"] };
    await lab.start({
      intercept: ({ name }) => ({
        info: { ...interceptInfo(name), mountPoint: volumes.root },
        environment: {},
        volumes,
        warnings: [],
      }),
    });
    const wish = ["--mount", "there:ro", "--copy-volume", "data", "--copy-volume", "/cache", "--copy-limit", "1Gi"];
    const { stdout } = await run("intercept", "hello", ...wish, "--env-json", "my.json");
    expect(stdout).toContain("Volume Mount Point: /run/copies/hello\n");
    expect(lab.daemon.paramsOf("intercept")).toMatchObject({
      volumes: { path: join(lab.home.path, "there"), copy: ["data", "/cache"], limitBytes: 2 ** 30 },
    });
    expect(JSON.parse(readFileSync(join(lab.home.path, "my.json"), "utf8"))).toMatchObject({
      TELEPRESENCE_ROOT: "/run/copies/hello",
      TELEPRESENCE_MOUNTS: "/etc/app:/var/run/secrets",
    });
    const detailed = await run("intercept", "hello", "--detailed-output", "--output", "json");
    expect(JSON.parse(detailed.stdout)).toMatchObject({ mount: { local_dir: volumes.root, mounts: volumes.mounts } });
    await run("intercept", "hello", "--mount=false");
    expect(lab.daemon.paramsOf("intercept")).not.toHaveProperty("volumes");
  });

  // What did not fit the schema of the call ended as a mistake of the program itself, exit code 70.
  test.each([
    [["intercept", ""], "telepresence intercept: the name is empty\n"],
    [["intercept", "a".repeat(254)], "telepresence intercept: the name is too long or has too many values, expected"],
    [["intercept", "hello", "--workload", ""], "telepresence intercept: --workload is empty\n"],
    [["intercept", "hello", "--address", ""], 'telepresence intercept: --address is "", expected'],
    [["intercept", "hello", "-n", "a".repeat(64)], "telepresence intercept: --namespace is "],
    [["leave", ""], "telepresence leave: the name is empty\n"],
  ])("refuses %j as wrong usage", async (argv, text) => {
    const running = await lab.start();
    running.connected = true;
    const { code, stderr } = await run(...argv);
    expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringContaining(text) });
    expect(running.methods()).toEqual([]);
  });

  test("leaves again when the container that was named has no environment to give", async () => {
    const warnings = ["the environment of container app could not be read: no agent knows it"];
    const running = await lab.start({
      intercept: () => ({ info: interceptInfo("hello"), warnings }),
      leave: () => ({}),
    });
    const { code, stdout, stderr } = await run("intercept", "hello", "--container", "app", "--", "true");
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(
      /^Warning: .*\ntelepresence: error: the environment of container app of Deployment hello could not be read, so /,
    );
    expect(running.methods().at(-1)).toBe("leave");
  });

  test("leaves again when the environment cannot be had or written", async () => {
    const running = await lab.start({
      intercept: ({ name }) => ({ info: interceptInfo(name), warnings: ["no right to pods/exec"] }),
      leave: () => ({}),
    });
    const { code, stderr, stdout } = await run("intercept", "hello", "--env-file", "x.env");
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(
      /^Warning: no right to pods\/exec\ntelepresence: error: the environment of Deployment hello /,
    );
    expect(running.methods().at(-1)).toBe("leave");
  });

  test("has the JSON of 2.20", async () => {
    await lab.start();
    const detailed = await run("intercept", "hello", "--detailed-output", "--output", "json");
    expect(JSON.parse(detailed.stdout)).toMatchObject({
      id: "session-1:hello",
      name: "hello",
      disposition: "ACTIVE",
      workload_kind: "Deployment",
      target_host: "127.0.0.1",
      target_port: 8080,
      port_id: "http",
      environment: { GREETING: "hello from the pod" },
      filter_desc: "all TCP connections",
    });
    const plain = JSON.parse((await run("intercept", "hello", "--output", "json")).stdout) as Record<string, unknown>;
    expect(plain).toEqual({ cmd: "intercept", stdout: expect.stringContaining("Using Deployment hello\n") });
  });

  test("takes names as kubectl writes them, leave too", async () => {
    await lab.start();
    expect((await run("intercept", "deploy/hello")).code).toBe(0);
    expect(lab.daemon.paramsOf("intercept")).toMatchObject({ name: "hello", workload: "hello" });
    expect((await run("leave", "deploy/hello")).code).toBe(0);
    expect(await run("intercept", "node/hello")).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('the name is "node/hello", expected that of a service or workload') as string,
    });
    expect(await run("intercept", "svc/hello", "--service", "other")).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("service hello and --service other exclude each other") as string,
    });
  });

  test("does not count as refused what came before its command was started", async () => {
    await lab.start({
      intercept: ({ name }) => ({
        info: { ...interceptInfo(name), refusedByLaptop: 3 },
        environment: {},
        warnings: [],
      }),
      leave: () => ({}),
    });
    expect((await run("intercept", "hello")).stdout).toContain("Connections refused: 3 ");
    const { code, stdout } = await run("intercept", "hello", "--", "true");
    expect(code).toBe(0);
    expect(stdout).toContain("Intercept name");
    expect(stdout).not.toContain("Connections refused");
  });

  test("says clearly what other versions have and this one has not", async () => {
    await lab.start();
    expect(await run("intercept", "hello", "--mechanism=magic")).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^telepresence intercept: --mechanism is "magic", expected tcp, or/) as string,
    });
    expect((await run("intercept", "hello", "--preview-url=false")).code).toBe(0);
  });

  test.each([
    ["helo", "did you mean hello?"],
    // Services were not thought of.
    ["web-svx", "did you mean web-svc?"],
    ["payments", "see the list"],
  ])("suggests a name near to %s, if there is one", async (name, hint) => {
    await lab.start({
      intercept: () => {
        throw new AppError("workload_not_found", `no workload ${name}`, { hint: "see the list" });
      },
      list: () => ({ workloads: [workload("web", { services: ["web-svc"] }), workload("hello")], warnings: [] }),
    });
    expect(await run("intercept", name)).toEqual({
      code: 1,
      stdout: "",
      stderr: `telepresence: error: no workload ${name}; ${hint}\n`,
    });
  });

  test("keeps the first error when there is no list to suggest from", async () => {
    const fail = (text: string) => (): never => {
      throw new AppError("workload_not_found", text);
    };
    await lab.start({ intercept: fail("no workload helo"), list: fail("no list") });
    expect((await run("intercept", "helo")).stderr).toBe("telepresence: error: no workload helo\n");
  });

  test("passes the daemon's error and code on", async () => {
    await lab.start({
      intercept: () => {
        throw new AppError("port_in_use", "Port 127.0.0.1:8080 is already in use by intercept other");
      },
    });
    const { code, stderr } = await run("intercept", "hello");
    expect(code).toBe(1);
    expect(stderr).toBe("telepresence: error: Port 127.0.0.1:8080 is already in use by intercept other\n");
  });
});

describe("leave, uninstall, quit", () => {
  test("leave says nothing, and tells when there is no such intercept", async () => {
    const running = await lab.start();
    running.connected = true;
    running.intercepts = [interceptInfo("hello")];
    expect(await run("leave", "hello", "-n", "default")).toEqual({ code: 0, stdout: "", stderr: "" });
    expect(running.paramsOf("leave")).toEqual({ name: "hello", namespace: "default" });
    expect((await run("leave", "hello")).stderr).toMatch(/^telepresence: error: there is no intercept hello; /);
  });

  test("uninstall needs exactly one target", async () => {
    const running = await lab.start();
    expect((await run("uninstall", "--agent", "hello", "web", "-n", "ns")).stdout).toBe(
      "Deployment hello: traffic-agent removed\nDeployment web: traffic-agent removed\n",
    );
    expect(running.paramsOf("uninstall")).toMatchObject({
      mode: "agents",
      workloads: ["hello", "web"],
      namespace: "ns",
    });
    await run("uninstall", "hello", "-d");
    expect(running.paramsOf("uninstall")).toMatchObject({ mode: "agents", workloads: ["hello"] });
    await run("uninstall", "api");
    expect(running.paramsOf("uninstall")).toMatchObject({ mode: "agents", workloads: ["api"] });
    expect((await run("uninstall", "-a")).stdout).toBe("Nothing to uninstall\n");
    expect(running.paramsOf("uninstall")).toMatchObject({ mode: "all-agents", workloads: [] });
    for (const argv of [[], ["--agent"], ["-a", "-e"], ["hello", "--everything"]]) {
      const { code, stderr } = await run("uninstall", ...argv);
      expect(code).toBe(2);
      expect(stderr).toMatch(/^telepresence uninstall: .*\nSee 'telepresence uninstall --help'\.\n$/);
    }
    expect(running.methods()).not.toContain("connect");
    expect(running.methods()).not.toContain("quit");
  });

  describe("uninstall that would end intercepts of others", () => {
    const others = ["the intercept hello of bob@desk (Deployment hello, namespace shop, since 2026)"];
    const begin = (): Promise<ScriptedDaemon> =>
      lab.start({
        uninstall: ({ unlessOthers }) => ({ removed: [], warnings: [], ...(unlessOthers ? { others } : {}) }),
      });
    const runWith = (answer: string | undefined, ...argv: string[]): Promise<Outcome> => {
      const readAnswer = answer === undefined ? undefined : () => Promise.resolve(answer);
      return runHere(["uninstall", ...argv], { env: lab.home.env, machine: (real) => ({ ...real, readAnswer }) });
    };

    // It told of them when they had ended.
    test.each(["n", "", "yesterday"])("asks first, and does nothing when the answer is %j", async (answer) => {
      const running = await begin();
      expect(await runWith(answer, "--everything")).toEqual({
        code: 1,
        stdout: "Nothing was uninstalled\n",
        stderr: `This ends ${others[0]}.\nGo on? (y/N) `,
      });
      expect(running.methods()).toEqual(["uninstall"]);
    });
    test.each(["y", "Yes "])("goes on when the answer is %j", async (answer) => {
      const running = await begin();
      expect((await runWith(answer, "--everything")).stdout).toBe("Nothing to uninstall\n");
      expect(running.methods()).toEqual(["uninstall", "uninstall", "quit"]);
    });
    test("does not ask with --yes, nor where nobody can answer", async () => {
      const running = await begin();
      expect((await runWith("n", "--everything", "--yes")).code).toBe(0);
      expect((await runWith(undefined, "--all-agents")).code).toBe(0);
      expect(running.methods()).toEqual(["uninstall", "quit", "uninstall"]);
    });
  });

  test("uninstall --everything also quits", async () => {
    const running = await lab.start();
    expect((await run("uninstall", "--everything")).code).toBe(0);
    expect(running.methods()).toEqual(["uninstall", "quit"]);
  });

  test("quit ends the daemons, with -s too, and takes a hang-up for an answer", async () => {
    const running = await lab.start();
    expect(await run("quit", "-s")).toEqual({ code: 0, stdout: "Telepresence Daemons quitting...done\n", stderr: "" });
    expect(running.methods()).toEqual(["quit"]);
    await running[Symbol.asyncDispose]();
    await lab.start({
      quit: () => {
        setImmediate(() => void lab.daemon.kill());
        return new Promise(() => undefined);
      },
    });
    expect((await run("quit")).code).toBe(0);
  });
});
