// Whether callers reach the agents is tried, not believed: canaries after attach and after each change, of which neither
// application nor laptop hears; a mesh that takes the port first is named; so are NetworkPolicies that would cut an agent
// off. The network of this cluster enforces no policy, so a cut is made by hand on the node.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import * as cluster from "#testbed/cluster.ts";
import { timed } from "./call.ts";
import type { Manifest, Running } from "./lab.ts";
import { Lab, apply, field, kubectl, report, rolledOut, toolsImage, until, webApp } from "./lab.ts";
import { stage } from "./stage.ts";
import { startToolsPod } from "./tools-pod.ts";

const namespace = "it-truth";
const managerNamespace = "it-truth-manager";
const lab = new Lab({ managerNamespace, agent: "auto" });
const witnessFile = join(import.meta.dirname, "fixtures/witness.py");
const witnessScript = readFileSync(witnessFile, "utf8");

stage([lab], namespace, managerNamespace);
beforeAll(async () => {
  await lab.ok("connect", "-n", namespace);
  await startToolsPod(namespace, "caller");
});

/** Speaks HTTP and has a service that says so, unless told otherwise; no probe, so that every line is a caller's. */
function witness(name: string, more: { readonly replicas?: number; readonly raw?: boolean } & Manifest = {}) {
  const { replicas = 1, raw = false, pod, targetPort = 8000 } = more;
  return webApp({
    name,
    replicas,
    ports: [{ name: "web", containerPort: 8000 }],
    servicePorts: [{ name: raw ? "raw" : "http", port: 80, targetPort }],
    container: {
      command: ["python3", "-c", witnessScript],
      env: [{ name: "RAW", value: raw ? "1" : "0" }],
      readinessProbe: undefined,
    },
    ...(pod === undefined ? {} : { pod: pod as Manifest }),
  });
}

/** A witness on the laptop. */
async function witnessOnLaptop(port: number, raw = false): Promise<Running> {
  const env = ["env", `PORT=${port}`, "WHO=laptop", `RAW=${raw ? 1 : 0}`];
  const running = lab.spawn([...env, "python3", "-u", "-c", witnessScript]);
  await until("the laptop's witness", async () => (await lab.sh(`ss -Hltn sport = :${port}`)).stdout !== "");
  return running;
}

interface CallerPath {
  readonly verdict: string;
  readonly age_ms: number;
  readonly through: readonly string[];
  readonly reason?: string;
}

async function callerPath(name: string): Promise<CallerPath | undefined> {
  const status = await lab.json<{
    user_daemon: { intercepts?: readonly { name: string; caller_path?: CallerPath }[] };
  }>("status");
  return status.user_daemon.intercepts?.find((item) => item.name === name)?.caller_path;
}

const linesOf = async (app: string): Promise<readonly string[]> => {
  const text = await kubectl("logs", "-n", namespace, "-l", `app=${app}`, "-c", app, "--tail=-1");
  return text.split("\n").filter((line) => line !== "");
};
const podIps = async (app: string): Promise<readonly string[]> =>
  (await kubectl("get", "pods", "-n", namespace, "-l", `app=${app}`, "-o", "jsonpath={.items[*].status.podIP}")).split(
    " ",
  );
const callIn = (url: string): Promise<string> =>
  kubectl("exec", "-n", namespace, "caller", "--", "curl", "-s", "-m", "5", url);
const leave = (name: string): Promise<string> => lab.ok("leave", name);

test("canaries verify pod and service after attach and after a rollout; nobody else hears of them", async () => {
  await apply(namespace, ...witness("web", { replicas: 2 }));
  await rolledOut(namespace, "deployment/web");
  await using laptop = await witnessOnLaptop(9301);
  const first = await lab.cli(["intercept", "web", "--port", "9301:80"]);
  expect(first).toMatchObject({ code: 0, stderr: "" });
  const ips = await podIps("web");
  const attached = await callerPath("web");
  expect(attached).toMatchObject({ verdict: "verified" });
  expect(attached?.through.toSorted()).toEqual([...ips.map((ip) => `${ip}:8000`), "web (ClusterIP)"].toSorted());
  expect(await lab.ok("status")).toMatch(/\n +verified [\d.]+ m?s ago through 10\.\S+:8000, \S+ and /);
  const heard = { application: await linesOf("web"), laptop: laptop.said };
  expect(heard).toEqual({ application: [], laptop: "" });

  await kubectl("rollout", "restart", "-n", namespace, "deployment/web");
  await rolledOut(namespace, "deployment/web");
  const renewed = await until("the new pods' canaries", async () => {
    const now = (await podIps("web")).map((ip) => `${ip}:8000`);
    const path = await callerPath("web");
    return now.length === 2 && now.every((place) => path?.through.includes(place)) ? path : undefined;
  });
  expect(renewed.verdict).toBe("verified");
  expect(laptop.said).toBe("");
  const lines = await linesOf("web");
  expect(lines).toEqual([]);
  expect(await callIn("http://web/hello")).toBe("laptop\n");
  await leave("web");
  report("canaries heard of", {
    application: lines.length,
    laptop: laptop.said.split("telepresence-canary").length - 1,
  });
  report("verified after a rollout", renewed);
});

test("repeats them on a port that speaks HTTP", async () => {
  await apply(namespace, ...witness("again"));
  await rolledOut(namespace, "deployment/again");
  await using laptop = await witnessOnLaptop(9302);
  await lab.ok("intercept", "again", "--port", "9302:80");
  const ages: number[] = [];
  await until(
    "a second canary",
    async () => {
      ages.push((await callerPath("again"))?.age_ms ?? 0);
      return (ages.at(-1) ?? 0) < (ages.at(-2) ?? 0);
    },
    { limitMs: 50_000, everyMs: 1000 },
  );
  expect(Math.max(...ages)).toBeLessThan(35_000);
  expect({ application: await linesOf("again"), laptop: laptop.said }).toEqual({ application: [], laptop: "" });
  await leave("again");
});

test("tries a port that may speak anything once, by a connection that nobody hears of", async () => {
  await apply(namespace, ...witness("raw", { raw: true }));
  await rolledOut(namespace, "deployment/raw");
  await using laptop = await witnessOnLaptop(9303, true);
  const told = await lab.cli(["intercept", "raw", "--port", "9303:80"]);
  expect(told).toMatchObject({ code: 0, stderr: "" });
  const [ip = ""] = await podIps("raw");
  expect(await callerPath("raw")).toMatchObject({ verdict: "verified", through: [`${ip}:8000`] });
  expect({ application: await linesOf("raw"), laptop: laptop.said }).toEqual({ application: [], laptop: "" });
  await leave("raw");
});

/** Takes port 8000 before anybody else does and answers it, as a mesh's proxy does with its own rules. */
function meshed(name: string): Manifest {
  const script = `nft 'table ip mesh { chain in { type nat hook prerouting priority -150; tcp dport 8000 redirect to :15006; }; }' && exec python3 -c "$WITNESS"`;
  return {
    containers: [
      {
        name,
        image: toolsImage,
        imagePullPolicy: "IfNotPresent",
        command: ["python3", "-c", witnessScript],
        ports: [{ name: "web", containerPort: 8000 }],
      },
      {
        name: "istio-proxy",
        image: toolsImage,
        imagePullPolicy: "IfNotPresent",
        command: ["sh", "-c", script],
        env: [
          { name: "WITNESS", value: witnessScript },
          { name: "PORT", value: "15006" },
          { name: "WHO", value: "mesh" },
        ],
        securityContext: { runAsUser: 0, capabilities: { add: ["NET_ADMIN"] } },
      },
    ],
    securityContext: {},
  };
}

test("a mesh that takes the port before the agent is named, in the command and in status", async () => {
  await apply(namespace, ...witness("meshed", { pod: meshed("meshed") }));
  await rolledOut(namespace, "deployment/meshed");
  await until("the mesh", async () => (await callIn("http://meshed/")) === "mesh\n");
  await using laptop = await witnessOnLaptop(9304);
  const [told, ms] = await timed(() => lab.cli(["intercept", "meshed", "--port", "9304:80"]));
  const [ip = ""] = await podIps("meshed");
  const reason = `somebody else (HTTP 200) answered at ${ip}:8000, not the agent in pod `;
  const remedy =
    'Istio (container istio-proxy) takes the port before the agent: annotate the workload\'s pods with traffic.sidecar.istio.io/excludeInboundPorts: "8000"';
  expect(told.code).toBe(0);
  expect(told.stderr).toContain(`Warning: callers may not reach the traffic-agent: ${reason}`);
  expect(told.stderr).toContain(remedy);
  expect(await callerPath("meshed")).toMatchObject({ verdict: "by-passed" });
  expect(await lab.ok("status")).toMatch(/by-passed, seen .* ago: somebody else/);
  expect(await lab.ok("list", "--intercepts")).toContain("Istio (container istio-proxy)");
  expect(await callIn("http://meshed/")).toBe("mesh\n"); // the truth of it
  expect(laptop.said).toBe("");
  // What made it by-passed goes away: the next canary finds the agent.
  await kubectl(
    "exec",
    "-n",
    namespace,
    "deployment/meshed",
    "-c",
    "istio-proxy",
    "--",
    "nft",
    "delete",
    "table",
    "ip",
    "mesh",
  );
  await until("the agent", async () => (await callerPath("meshed"))?.verdict === "verified", { limitMs: 50_000 });
  await leave("meshed");
  report("by-pass told within", `${Math.round(ms)} ms: ${told.stderr.trim()}`);
});

describe("NetworkPolicies", () => {
  const policy = (name: string, spec: Manifest): Manifest => ({
    apiVersion: "networking.k8s.io/v1",
    kind: "NetworkPolicy",
    metadata: { name },
    spec,
  });
  const web = { matchLabels: { app: "policed" } };
  beforeAll(async () => {
    await apply(namespace, ...witness("policed", { targetPort: "web" }));
    await rolledOut(namespace, "deployment/policed");
  });

  test("that admit a port by its number are named before a sidecar takes its name", async () => {
    const byNumber = policy("by-number", { podSelector: web, ingress: [{ ports: [{ port: 8000 }] }] });
    await apply(namespace, byNumber);
    const ephemeral = await lab.cli(["intercept", "policed", "--port", "9305:80"]);
    expect(ephemeral).toMatchObject({ code: 0, stderr: "" }); // the port stays
    await leave("policed");
    const sidecar = await new Lab({ managerNamespace, agent: "sidecar" }).cli([
      "intercept",
      "policed",
      "--port",
      "9305:80",
    ]);
    expect(sidecar.code).toBe(0);
    expect(sidecar.stderr).toBe(
      `Warning: NetworkPolicy by-number in namespace ${namespace} admits callers to port 8000 of deployment policed by its number, and with a sidecar they come to port 24900: admit the port by its name (web), or 24900 as well\n`,
    );
    // The rollout's last pods may still be leaving: each change asks for a new look.
    const path = await until("the sidecar's canary", () => callerPath("policed"));
    expect(path).toMatchObject({ verdict: "verified" });
    await leave("policed");
    await lab.ok("uninstall", "--agent", "policed");
    await kubectl("delete", "networkpolicy", "-n", namespace, "by-number");
    report("NetworkPolicy", sidecar.stderr);
  });

  test("that cut the agents' way to the manager are named, and the failure that follows is told at once", async () => {
    const noWayOut = policy("no-way-out", {
      podSelector: web,
      policyTypes: ["Egress"],
      egress: [{ ports: [{ port: 53 }] }],
    });
    const closed = policy("closed", { podSelector: {}, ingress: [] });
    await apply(namespace, noWayOut);
    await apply(managerNamespace, closed);
    const warned = await lab.cli(["intercept", "policed", "--port", "9305:80"]);
    expect(warned.code).toBe(0); // nobody enforces them here
    const there = `port 8443 of the traffic-manager in namespace ${managerNamespace}`;
    expect(warned.stderr).toBe(
      [
        `Warning: NetworkPolicy no-way-out in namespace ${namespace} lets no connection from the pods of deployment policed out to ${there}, which its agent needs: add an egress rule for it\n`,
        `Warning: NetworkPolicy closed in namespace ${managerNamespace} lets no connection from the pods of deployment policed in namespace ${namespace} in to ${there}, which its agent needs: add an ingress rule for it\n`,
      ].join(""),
    );
    await leave("policed");
    // One whose link stands would not have to make the way.
    await kubectl("rollout", "restart", "-n", namespace, "deployment/policed");
    await rolledOut(namespace, "deployment/policed");

    const from = (await podIps("policed")).join(", ");
    const cut = `table ip cut { chain forward { type filter hook forward priority 0; ip saddr { ${from} } tcp dport 8443 drop; }; }`;
    await cluster.runIn(cluster.namespaces.node, "nft", ["-f", "-"], cut);
    try {
      const [failed, ms] = await timed(() => lab.cli(["intercept", "policed", "--port", "9305:80"]));
      expect(failed.code).toBe(1);
      expect(failed.stderr).toContain("the agent's pod cannot reach the traffic-manager at");
      expect(failed.stderr).toContain(`NetworkPolicy no-way-out in namespace ${namespace}`);
      expect(ms).toBeLessThan(15_000);
      report("a cut is told within", `${Math.round(ms)} ms: ${failed.stderr.trim()}`);
    } finally {
      await cluster.runIn(cluster.namespaces.node, "nft", ["delete", "table", "ip", "cut"]);
      await kubectl("delete", "networkpolicy", "-n", namespace, "no-way-out");
      await kubectl("delete", "networkpolicy", "-n", managerNamespace, "closed");
    }
  });
});

test("costs an intercept nothing that is felt", async () => {
  await apply(namespace, ...witness("quick"));
  await rolledOut(namespace, "deployment/quick");
  await lab.ok("intercept", "quick", "--port", "9306:80"); // its agent stays
  const path = await callerPath("quick");
  await leave("quick");
  const times: number[] = [];
  for (let count = 0; count < 5; count += 1) {
    const [, ms] = await timed(() => lab.ok("intercept", "quick", "--port", "9306:80"));
    times.push(Math.round(ms));
    await leave("quick");
  }
  expect(path?.verdict).toBe("verified");
  report("intercept with its canaries, agent there, ms", times);
  expect(await field(namespace, "deployment/quick", ".status.readyReplicas")).toBe("1");
});
