// Intercepts that nobody else notices (DESIGN 12, 14; TARGETS' reliability table): the agent as an ephemeral container.
// Nothing is restarted, nothing is lost, the application is never the one that goes when memory is short, and where the
// cluster does not allow any of this, the rollout comes with the reason.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { countOf, patience } from "#test/rounds.ts";
import * as cluster from "#testbed/cluster.ts";
import * as layout from "#testbed/layout.ts";
import { listPids } from "#testbed/processes.ts";
import {
  Lab,
  apply,
  field,
  fixture,
  freshNamespaces,
  kubectl,
  prepare,
  removeNamespaces,
  report,
  rolledOut,
  toolsImage,
  until,
  webApp,
} from "./lab.ts";
import { Load, countByWho, failures } from "./load.ts";

const namespace = "it-ephemeral";
const restricted = "it-ephemeral-restricted";
const managerNamespace = "it-manager";
const lab = new Lab({ managerNamespace, agent: "auto" });
const second = new Lab({ managerNamespace, agent: "auto", laptop: 2 });

beforeAll(async () => {
  await prepare();
  await Promise.all([lab.quit(), second.quit()]);
  await freshNamespaces(namespace, restricted);
  await kubectl("label", "namespace", restricted, "pod-security.kubernetes.io/enforce=restricted");
  await apply(namespace, ...webApp({ name: "web" }));
  await rolledOut(namespace, "deployment/web");
  await lab.ok("connect", "-n", namespace);
});
afterAll(async () => {
  await Promise.all([lab.quit(), second.quit()]);
  await removeNamespaces(namespace, restricted);
});

interface PodView {
  readonly metadata: { readonly name: string; readonly uid: string; readonly deletionTimestamp?: string };
  readonly spec: { readonly ephemeralContainers?: readonly { readonly name: string }[] };
  readonly status: {
    readonly podIP: string;
    readonly conditions: readonly { readonly type: string; readonly status: string }[];
    readonly containerStatuses: readonly Status[];
    readonly ephemeralContainerStatuses?: readonly Status[];
  };
}
interface Status {
  readonly name: string;
  readonly restartCount: number;
  readonly containerID?: string;
  readonly state: {
    readonly running?: object;
    readonly terminated?: { readonly reason: string; readonly exitCode: number };
  };
}

async function podsOf(app: string): Promise<readonly PodView[]> {
  const text = await kubectl("get", "pods", "-n", namespace, "-l", `app=${app}`, "-o", "json");
  return (JSON.parse(text) as { items: PodView[] }).items;
}
/** What changes when anything in the pods has been restarted or replaced. */
async function identity(...apps: readonly string[]): Promise<readonly string[]> {
  const all = (await Promise.all(apps.map(podsOf))).flat();
  return all.map(
    (pod) => `${pod.metadata.uid} ${pod.status.containerStatuses.map((item) => item.restartCount).join()}`,
  );
}
/** Two processors are few: a load that is no longer looked at must not slow the next test. */
const endLoads = async (...names: readonly string[]): Promise<unknown> =>
  await kubectl("delete", "-n", namespace, "--wait=false", ...names);
/** One that is ending stays ready for a while. */
const isReady = ({ metadata, status }: PodView): boolean =>
  metadata.deletionTimestamp === undefined &&
  status.conditions.some((item) => item.type === "Ready" && item.status === "True");
const agentsOf = (pod: PodView | undefined): readonly string[] =>
  (pod?.spec.ephemeralContainers ?? []).map((item) => item.name).toSorted();

async function agentPid(pod: PodView, name: string): Promise<number> {
  const id = pod.status.ephemeralContainerStatuses?.find((item) => item.name === name)?.containerID ?? "";
  const short = id.replace("containerd://", "");
  const pid = listPids().find((candidate) => {
    try {
      return short !== "" && readFileSync(`/proc/${candidate}/cgroup`, "utf8").includes(short);
    } catch {
      return false; // it has just ended
    }
  });
  if (pid === undefined) throw new Error(`no process of ${name} in ${pod.metadata.name}`);
  return pid;
}

async function echoOnLaptop(port: number): Promise<AsyncDisposable> {
  const script = join(layout.checkoutRoot, "testbed/samples/echo.py");
  const running = lab.spawn(["env", `PORT=${port}`, "python3", script]);
  await until("the laptop's echo", async () => (await lab.sh(`ss -Hltn sport = :${port}`)).stdout !== "");
  return running;
}

/** Starts fixtures/raw-stream.mjs; gives a way to read its state. */
async function rawStream(target: string): Promise<() => Promise<{ sent: number; opened: number; errors: string[] }>> {
  const script = readFileSync(join(import.meta.dirname, "fixtures/raw-stream.mjs"), "utf8");
  await apply(namespace, {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "raw-stream" },
    spec: {
      terminationGracePeriodSeconds: 1,
      containers: [
        {
          name: "raw",
          image: toolsImage,
          imagePullPolicy: "IfNotPresent",
          command: ["node", "--input-type=module", "-e", script],
          env: [{ name: "TARGET", value: target }],
        },
      ],
    },
  });
  await kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/raw-stream", "--timeout=60s");
  const ip = await field(namespace, "pod/raw-stream", ".status.podIP");
  const args = ["-s", "--max-time", "20", `http://${ip}:8080/`];
  return async () =>
    JSON.parse(await cluster.runIn(cluster.namespaces.node, "curl", args)) as {
      sent: number;
      opened: number;
      errors: string[];
    };
}

const echoApp = {
  ports: [{ name: "tcp", containerPort: 7000 }],
  servicePorts: [{ name: "tcp", port: 7000, targetPort: "tcp" }],
  container: {
    command: ["python3", "/samples/echo.py"],
    readinessProbe: { tcpSocket: { port: 7000 }, periodSeconds: 1 },
  },
};

describe("attach and detach under load", () => {
  const rounds = countOf(6, 60); // with those of reliability-http.test.ts 20, or 200
  test(
    `loses no request and no connection, ${rounds} cycles, and restarts nothing`,
    { timeout: patience(600_000, 6, 60) },
    async () => {
      await apply(namespace, ...webApp({ name: "raw", ...echoApp }));
      await rolledOut(namespace, "deployment/raw");
      const before = await identity("web", "raw");
      const load = await Load.start({ namespace, target: `http://web.${namespace}/`, perSecond: 200 });
      const raw = await rawStream(`raw.${namespace}:7000`);
      await using server = lab.spawn(fixture("laptop-server.mjs", "18700"));
      await server.says("listens on");
      await using _echo = await echoOnLaptop(18_701);
      const startMs = Date.now();
      const figures: { attachMs: number; laptopMs: number; leaveMs: number }[] = [];
      for (let round = 1; round <= rounds; round += 1) {
        const wishedMs = Date.now();
        const said = await lab.ok("intercept", "web", "--port", "18700");
        const attachMs = Date.now() - wishedMs;
        expect(said).toContain("ephemeral container, no pod was restarted");
        await lab.ok("intercept", "raw", "--port", "18701");
        const seen = await load.answeredBy(/^laptop$/, wishedMs);
        const first = seen.find((call) => call.who === "laptop");
        const leaveStartMs = Date.now();
        await lab.ok("leave", "web");
        const leaveMs = Date.now() - leaveStartMs;
        await lab.ok("leave", "raw");
        await load.answeredBy(/^web-/, Date.now());
        figures.push({ attachMs, laptopMs: (first?.atMs ?? 0) + (first?.tookMs ?? 0) - wishedMs, leaveMs });
      }
      const calls = await load.calls(startMs);
      const stream = await raw();
      const [attached, ...again] = figures;
      report("ephemeral, first attach of a pod: command, first answer by the laptop, leave, ms", attached);
      report("ephemeral, agent there: the same, median", {
        attachMs: median(again.map((item) => item.attachMs)),
        laptopMs: median(again.map((item) => item.laptopMs)),
        leaveMs: median(again.map((item) => item.leaveMs)),
      });
      report(`attach and detach, ${rounds} cycles, 200 requests/s wished for and a raw stream`, {
        calls: calls.length,
        callsPerSecond: Math.round((calls.length * 1000) / (Date.now() - startMs)),
        failed: failures(calls).length,
        ...countByWho(calls),
        rawConnections: stream.opened,
        rawErrors: stream.errors.length,
      });
      expect(failures(calls, startMs)).toEqual([]);
      expect(stream.errors).toEqual([]);
      expect(countByWho(calls)["laptop"]).toBeGreaterThan(100);
      expect(await identity("web", "raw")).toEqual(before);
      expect(agentsOf((await podsOf("web"))[0])).toEqual(["traffic-agent-1"]);
      await endLoads("deployment/load", "pod/raw-stream");
    },
  );

  test("keeps the ServiceAccount's token away, and gives the environment", async () => {
    const [pod] = await podsOf("web");
    const path = "/var/run/secrets/kubernetes.io";
    const script = `process.stdout.write(String(require("fs").existsSync("${path}")))`;
    const exec = ["exec", "-n", namespace, pod?.metadata.name ?? ""];
    expect(await kubectl(...exec, "-c", "web", "--", "ls", path)).toContain("serviceaccount");
    expect(await kubectl(...exec, "-c", "traffic-agent-1", "--", "/usr/bin/node", "-e", script)).toBe("false");
    const answer = await lab.cli([
      "intercept",
      "web",
      "--port",
      "18702",
      "--",
      "sh",
      "-c",
      "echo $DRAIN_SECONDS $POD_NAME",
    ]);
    expect(answer.stdout).toContain(`4 ${pod?.metadata.name ?? ""}`);
  });
});

describe("while an intercept lasts", () => {
  test(
    "a killed agent costs a second at most, and another takes its place",
    { timeout: patience(180_000, 2, 20) },
    async () => {
      const rounds = countOf(2, 20);
      const load = await Load.start({
        namespace,
        target: `http://web.${namespace}/`,
        perSecond: 50,
        name: "load-killed",
      });
      await using server = lab.spawn(fixture("laptop-server.mjs", "18703"));
      await server.says("listens on");
      await lab.ok("intercept", "web", "--port", "18703");
      const before = await identity("web");
      for (let round = 1; round <= rounds; round += 1) {
        await load.answeredBy(/^laptop$/, Date.now());
        const [pod] = await podsOf("web");
        const name = agentsOf(pod).at(-1) ?? "";
        const pid = pod === undefined ? -1 : await agentPid(pod, name);
        const killedMs = Date.now();
        process.kill(pid, "SIGKILL");
        const calls = await load.answeredBy(/^laptop$/, killedMs + 300, { limitMs: 30_000 });
        const fresh = calls.filter((call) => !call.kept && call.atMs > killedMs);
        const since = await load.calls(killedMs);
        const good = since.filter((call) => !call.kept && call.error === "");
        const lastLostMs = Math.max(
          0,
          ...since.filter((call) => !call.kept && call.error !== "").map((call) => call.atMs - killedMs),
        );
        const byApp = good.find((call) => call.who.startsWith("web-"));
        const backMs =
          (good.find((call) => byApp !== undefined && call.who === "laptop" && call.atMs > byApp.atMs)?.atMs ?? 0) -
          killedMs;
        report("agent killed: first answer by the application, last loss, intercepted again, ms", {
          round,
          applicationMs: (byApp?.atMs ?? 0) + (byApp?.tookMs ?? 0) - killedMs,
          lastLostMs,
          backMs,
          fresh: fresh.length,
        });
        expect(byApp).toBeDefined();
        expect((byApp?.atMs ?? 0) - killedMs).toBeLessThanOrEqual(1000);
        expect(lastLostMs).toBeLessThanOrEqual(1000);
        // the next number, and only that
        expect(agentsOf((await podsOf("web"))[0])).toHaveLength(agentsOf(pod).length + 1);
      }
      await lab.ok("leave", "web");
      expect(await identity("web")).toEqual(before);
      await endLoads("deployment/load-killed");
    },
  );

  test("a release loses no request, and its pods are intercepted too", async () => {
    const load = await Load.start({
      namespace,
      target: `http://web.${namespace}/`,
      perSecond: 50,
      name: "load-release",
    });
    await using server = lab.spawn(fixture("laptop-server.mjs", "18709"));
    await server.says("listens on");
    await lab.ok("intercept", "web", "--port", "18709");
    await load.answeredBy(/^laptop$/, Date.now());
    const [old] = await podsOf("web");
    const startMs = Date.now();
    await kubectl("rollout", "restart", "-n", namespace, "deployment/web");
    await rolledOut(namespace, "deployment/web");
    await until("the old pod's end", async () => {
      const live = await podsOf("web");
      return live.length === 1 && live[0]?.metadata.uid !== old?.metadata.uid;
    });
    const calls = await load.answeredBy(/^laptop$/, startMs, { inARow: 30 });
    report("release during an intercept, 50 requests/s", {
      calls: calls.length,
      failed: failures(calls).length,
      ...countByWho(calls),
    });
    expect(failures(calls, startMs)).toEqual([]);
    await lab.ok("leave", "web");
    await endLoads("deployment/load-release");
  });
});

describe("an application with little memory left", () => {
  const grower = (name: string): Parameters<typeof webApp>[0] => ({
    name,
    container: {
      command: [
        "node",
        "--input-type=module",
        "-e",
        readFileSync(join(import.meta.dirname, "fixtures/grow.mjs"), "utf8"),
      ],
      resources: { requests: { cpu: "10m", memory: "256Mi" }, limits: { memory: "256Mi" } },
    },
  });

  // Story: an agent of 45 MB beside an application with 13 MB of room, in one cgroup, had it OOM-killed.
  test("gets its agent by a rollout, the reason is told, and all of its own memory stays its own", async () => {
    await apply(namespace, ...webApp(grower("small")));
    await rolledOut(namespace, "deployment/small");
    const { code, stderr } = await lab.cli(["intercept", "small", "--port", "18705"]);
    report("little memory", stderr);
    expect(code).toBe(0);
    expect(stderr).toMatch(/Warning: the agent of deployment small comes by a rollout.*memory limit of 256 MiB/);
    const [pod, ...others] = (await podsOf("small")).filter(isReady);
    expect([agentsOf(pod), others]).toEqual([[], []]);
    // Node's own 45 MB come on top: what is left of 256 would not hold an agent.
    const grownMib = 180;
    for (let mib = 0; mib < grownMib; mib += 20) {
      await cluster.runIn(cluster.namespaces.node, "curl", ["-sf", `http://${pod?.status.podIP}:8000/grow/20`]);
    }
    await new Promise((resolve) => setTimeout(resolve, 2000));
    const [now] = (await podsOf("small")).filter(isReady);
    const restarts = now?.status.containerStatuses.map((item) => item.restartCount);
    report("application that uses its memory beside an agent by rollout", { grownMib, limitMib: 256, restarts });
    expect([now?.metadata.uid, restarts]).toEqual([pod?.metadata.uid, [0]]);
    await lab.ok("leave", "small");
  });

  // The kernel may end the application as well, a moment later, on a machine that is busy: see oom-volunteer.ts. Who
  // does not insist gets a rollout instead.
  test("is not the first that the kernel ends, also where an ephemeral agent was insisted on", async () => {
    await apply(namespace, ...webApp(grower("forced")));
    await rolledOut(namespace, "deployment/forced");
    const forced = await lab.cli(["intercept", "forced", "--port", "18706", "--agent", "ephemeral"]);
    expect(forced.code).toBe(0);
    expect(forced.stderr).toContain("the application may be ended with the agent");
    const [pod] = await podsOf("forced");
    const grow = ["-s", "--max-time", "10", `http://${pod?.status.podIP}:8000/grow/4`];
    let grown = 0;
    const ended = await until(
      "the agent's end",
      async () => {
        await cluster.runIn(cluster.namespaces.node, "curl", grow).catch(() => undefined); // ended with it
        grown += 4;
        const [now] = await podsOf("forced");
        return now?.status.ephemeralContainerStatuses?.find((item) => item.state.terminated !== undefined);
      },
      { limitMs: 90_000, everyMs: 50 },
    );
    const [now] = await podsOf("forced");
    const applicationRestarts = now?.status.containerStatuses[0]?.restartCount;
    report("application that grows to its limit beside an agent", {
      grownMib: grown,
      agent: ended.state.terminated?.reason,
      applicationRestarts,
    });
    expect(ended.state.terminated?.reason).toBe("OOMKilled");
    await lab.ok("leave", "forced");
    const { stderr } = await lab.cli(["intercept", "forced", "--port", "18706"]);
    expect(stderr).toContain("was ended because the pod's memory ran out");
    expect(await field(namespace, "deployment/forced", ".spec.template")).toContain("traffic-agent");
    await lab.ok("leave", "forced");
  });
});

describe("where the cluster does not allow it", () => {
  test("pod security: the agent comes by a rollout, with the reason, and nothing was tried on the pod", async () => {
    await apply(restricted, ...webApp({ name: "strict" }));
    await rolledOut(restricted, "deployment/strict");
    const { code, stderr } = await lab.cli(["intercept", "strict", "--port", "18707", "-n", restricted]);
    report("pod security restricted", stderr);
    expect(code).toBe(0);
    expect(stderr).toContain("the namespace's pod security (restricted:latest) forbids NET_ADMIN");
    await lab.ok("leave", "strict");
    const insisting = ["intercept", "strict2", "--port", "18707", "-n", restricted, "--agent", "ephemeral"];
    await apply(restricted, ...webApp({ name: "strict2" }));
    await rolledOut(restricted, "deployment/strict2");
    const refused = await lab.cli(insisting);
    expect({ code: refused.code, text: refused.stderr }).toEqual({
      code: 1,
      text: expect.stringContaining("violates PodSecurity") as string,
    });
  });
});

describe("two laptops at the same moment", () => {
  test("share one agent in each pod", async () => {
    const ports = [
      { name: "http", containerPort: 8000 },
      { name: "admin", containerPort: 8001 },
    ];
    const servicePorts = [
      { name: "http", port: 80, targetPort: "http" },
      { name: "admin", port: 81, targetPort: 8001 },
    ];
    await apply(namespace, ...webApp({ name: "shared", replicas: 2, ports, servicePorts }));
    await rolledOut(namespace, "deployment/shared");
    const before = await identity("shared");
    await second.ok("connect", "-n", namespace);
    const startMs = performance.now();
    await Promise.all([
      lab.ok("intercept", "shared", "--port", "18708:http"),
      second.ok("intercept", "shared", "--port", "18708:admin"),
    ]);
    report("two laptops, two pods: both attached, ms", Math.round(performance.now() - startMs));
    for (const pod of await podsOf("shared")) expect(agentsOf(pod)).toEqual(["traffic-agent-1"]);
    expect(await identity("shared")).toEqual(before);
    await Promise.all([lab.ok("leave", "shared"), second.ok("leave", "shared")]);
  });
});

describe("uninstall", () => {
  test("makes an agent leave that serves nobody, and says what stays", async () => {
    const said = await lab.ok("uninstall", "--agent", "shared");
    expect(said).toBe(
      "Deployment shared: traffic-agent ends in 2 pods (its entry stays in the pod's status until the pod is replaced)\n",
    );
    await until("the agents' end", async () => {
      const states = (await podsOf("shared")).flatMap((pod) => pod.status.ephemeralContainerStatuses ?? []);
      return states.length === 2 && states.every((item) => item.state.terminated?.exitCode === 0);
    });
    const { code } = await lab.cli(["uninstall", "--agent", "shared"]);
    expect(code).toBe(1);
  });
});

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
