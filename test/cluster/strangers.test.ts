// TARGETS' row "strangers", of what exists: a pod without a key or with another one, a dial of the manager to itself, to
// metadata, to a node, somebody else's intercept, and another user of the laptop. Refused, logged, nothing leaked.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import * as cluster from "#testbed/cluster.ts";
import * as layout from "#testbed/layout.ts";
import { createIdentity } from "#tunnel/identity.ts";
import { agentHealthPort, agentIntroductionPort } from "#wire/agent-api.ts";
import { managerAgentPort, managerDirectPort, managerHealthPort, managerLaptopPort } from "#wire/manager-api.ts";
import { Lab, apply, kubectl, rolledOut, until, webApp, report } from "./lab.ts";
import type { StrangerArgs } from "./stranger-driver.ts";
import { stage } from "./stage.ts";
import { startToolsPod } from "./tools-pod.ts";

const manager = "it-strangers-manager";
const namespace = "it-strangers";
const lab = new Lab({ managerNamespace: manager });
let managerPod = { name: "", ip: "" };
let agentIp = "";

stage([lab], namespace, manager);
beforeAll(async () => {
  await apply(namespace, ...webApp({ name: "web" }));
  await startToolsPod(namespace, "stranger");
  await rolledOut(namespace, "deployment/web");
  await lab.ok("intercept", "web", "--port", "18700", "-n", namespace);
  const [name = "", ip = ""] = (await podOf(manager, "app.kubernetes.io/name=traffic-manager")).split(" ");
  managerPod = { name, ip };
  agentIp = (await podOf(namespace, "app=web")).split(" ")[1] ?? "";
});

async function podOf(where: string, selector: string): Promise<string> {
  const path = "{.items[0].metadata.name} {.items[0].status.podIP}";
  const running = "--field-selector=status.phase=Running";
  return await kubectl("get", "pods", "-n", where, "-l", selector, running, "-o", `jsonpath=${path}`);
}

/** What doors say to a pod of the cluster. */
async function knock(
  host: string,
  doors: readonly string[],
  key?: ReturnType<typeof createIdentity>,
): Promise<unknown> {
  const script = readFileSync(join(import.meta.dirname, "fixtures/tls-stranger.mjs"), "utf8");
  const env = key === undefined ? [] : ["env", `CERT=${key.certificatePem}`, `KEY=${key.privateKeyPem}`];
  const argv = [...env, "node", "--input-type=module", "-e", script, "--", host, ...doors];
  return JSON.parse(await kubectl("exec", "-n", namespace, "stranger", "--", ...argv));
}

const turnedAway = expect.stringMatching(/^(closed|ECONNRESET|ERR_SSL_\w+|EPIPE)$/) as string;

describe("a pod of the cluster", () => {
  test("is turned away at the manager without a key, and with one that nobody introduced", async () => {
    const key = createIdentity("stranger");
    for (const port of [managerAgentPort, managerDirectPort]) {
      const [plain, tls] = [`${port}`, `${port}:tls`];
      expect(await knock(managerPod.ip, [plain, tls])).toEqual({ [plain]: turnedAway, [tls]: turnedAway });
      expect(await knock(managerPod.ip, [tls], key)).toEqual({ [tls]: turnedAway });
    }
    await until("the refusal in the manager's log", async () => {
      const log = await kubectl("logs", "-n", manager, managerPod.name);
      return log.split("\n").some((line) => line.includes('"warn"') && /refused|stranger|turned away/.test(line));
    });
    expect(await kubectl("logs", "-n", manager, managerPod.name)).not.toMatch(/PRIVATE KEY|BEGIN/);
  });
  test("does not reach the laptops' port of the manager, nor the introduction port of an agent", async () => {
    const doors = [String(managerLaptopPort), String(agentIntroductionPort)] as const;
    expect(await knock(managerPod.ip, [doors[0]])).toEqual({ [doors[0]]: "ECONNREFUSED" });
    expect(await knock(agentIp, [doors[1]])).toEqual({ [doors[1]]: "ECONNREFUSED" });
  });
  test("reads nothing of the intercept where probes ask", async () => {
    const said = JSON.stringify([
      await knock(managerPod.ip, [String(managerHealthPort)]),
      await knock(agentIp, [String(agentHealthPort)]),
    ]);
    expect(said).toContain("HTTP/1.1");
    expect(said).not.toMatch(/web|dev@|18700|fingerprint|session/i);
  });
});

describe("a laptop that speaks to the manager past its daemon", () => {
  test("is not dialled to the manager itself, to metadata, to loopback or a node, and owns only its own", async () => {
    const targets = [
      { address: "127.0.0.1", port: 8081 },
      { address: "::ffff:127.0.0.1", port: 8081 },
      { address: managerPod.ip, port: 8443 },
      { address: managerPod.ip, port: 8081 },
      { address: "169.254.169.254", port: 80 },
      { address: layout.nodeAddress, port: 10_250 },
      { address: "0.0.0.0", port: 8081 },
    ];
    const items = await lab.json<readonly { readonly intercept_infos?: readonly { readonly id: string }[] }[]>("list");
    const foreignIntercept = items[0]?.intercept_infos?.[0]?.id ?? "";
    expect(foreignIntercept).toContain(":web");
    const args: StrangerArgs = { namespace: manager, pod: managerPod.name, targets, foreignIntercept };
    const driver = join(import.meta.dirname, "stranger-driver.ts");
    const node = join(layout.checkoutRoot, "dist/node/bin/node");
    const { stdout } = await cluster.onLaptop([node, driver, JSON.stringify(args)], { cwd: layout.checkoutRoot });
    const outcome = JSON.parse(stdout) as Record<string, string>;
    report("strangers at the manager", outcome);
    for (const { address, port } of targets) expect(outcome[`${address}:${port}`]).toMatch(/^(denied|unreachable): /);
    expect(outcome["dial before arriving"]).toMatch(/^(denied|protocol|link_lost): /);
    expect(outcome["remove somebody's intercept"]).toMatch(/^(denied|not_found|intercept_not_found): /);
    expect(outcome["open an inbound stream"]).toMatch(/^(denied|unsupported|protocol): /);
    expect(await lab.ok("list", "--intercepts")).toContain("web: intercepted");
  });
});

describe("another user of the laptop", () => {
  const runtime = `/run/user/${layout.ordinaryUser.uid}`;
  const nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
  /** Connects, says hello, and prints what comes back before the end. */
  const speak = (path: string): string =>
    `${nobody} python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect("${path}"); s.send(b"Content-Length: 60\\r\\n\\r\\n" + b" " * 60); print("got", s.recv(100))' 2>&1 | tail -1`;

  test("does not get to the daemon's nor the helper's socket", async () => {
    for (const socket of ["daemon.sock", "helper.sock"]) {
      expect(await lab.rootSh(speak(`${runtime}/telepresence/${socket}`))).toContain("Permission denied");
    }
  });
  test("is turned away even where the files let in", async () => {
    const folders = `${runtime} ${runtime}/telepresence`;
    const sockets = `${runtime}/telepresence/daemon.sock ${runtime}/telepresence/helper.sock`;
    await lab.rootSh(`chmod 711 ${folders}; chmod 666 ${sockets}`);
    try {
      for (const socket of ["daemon.sock", "helper.sock"]) {
        // closed without a word
        expect({ socket, said: await lab.rootSh(speak(`${runtime}/telepresence/${socket}`)) }).toEqual({
          socket,
          said: expect.stringMatching(/^(got b''|.*(Broken pipe|reset by peer|Connection refused).*)\n$/) as string,
        });
      }
    } finally {
      await lab.rootSh(`chmod 700 ${folders}; chmod 600 ${sockets}`);
    }
    const log = await lab.rootSh(`tail -20 ${layout.homeDir("dev", 1)}/.cache/telepresence/logs/daemon.log`);
    expect(log).toContain("control connection refused");
    expect(await lab.ok("list", "--intercepts")).toContain("web: intercepted");
  });
});
