// The kubelet's probes of an intercepted port, with the kubelet itself: a laptop's process that answers them badly, or
// hangs at a breakpoint, must not make the pod unready nor have its container restarted, unless its owner asked for it.
import { describe, expect, test } from "vitest";
import { Lab, apply, field, fixture, report, rolledOut, until, webApp } from "./lab.ts";
import { stage } from "./stage.ts";

const namespace = "it-probes";
const lab = new Lab({ managerNamespace: "it-probes-manager", agent: "ephemeral" });
/** chosen: the probes below fail after 2 s; a machine that is busy sends them late. */
const watchedMs = 15_000;

stage([lab], namespace);

interface Watched {
  /** Times at which the pod was seen. */
  readonly seen: number;
  readonly unready: number;
  readonly restarts: number;
}

async function watch(
  app: string,
  limitMs = watchedMs,
  enough: (found: Watched) => boolean = () => false,
): Promise<Watched> {
  const pods = `.items[?(@.metadata.labels.app=="${app}")].status`;
  const facts = `${pods}.conditions[?(@.type=="Ready")].status} {${pods}.containerStatuses[*].restartCount`;
  const endMs = Date.now() + limitMs;
  let found: Watched = { seen: 0, unready: 0, restarts: 0 };
  while (Date.now() < endMs && !enough(found)) {
    const text = await field(namespace, "pods", facts);
    const [ready, ...counts] = text.trim().split(/\s+/);
    const restarts = counts.reduce((sum, count) => sum + Number(count), 0);
    found = { seen: found.seen + 1, unready: found.unready + (ready === "True" ? 0 : 1), restarts };
  }
  return found;
}

const quick = { periodSeconds: 1, timeoutSeconds: 1, failureThreshold: 2 };
const byHttp = {
  readinessProbe: { httpGet: { path: "/healthz", port: 8000 }, ...quick },
  livenessProbe: { httpGet: { path: "/healthz", port: 8000 }, ...quick },
};
const byTcp = {
  readinessProbe: { tcpSocket: { port: 8000 }, ...quick },
  livenessProbe: { tcpSocket: { port: 8000 }, ...quick },
};
/** By number, so that the port is redirected; of a name that says nothing of its protocol. */
const servicePorts = [{ name: "main", port: 80, targetPort: 8000 }];

async function deploy(name: string, container: object): Promise<void> {
  await apply(
    namespace,
    ...webApp({ name, ports: [{ containerPort: 8000 }], servicePorts, container: { ...container } }),
  );
  await rolledOut(namespace, `deployment/${name}`);
}

describe("the kubelet's probes", () => {
  test("leave a pod alone whose laptop's process answers them badly, hangs, or is not there", async () => {
    await deploy("probed", byHttp);
    await deploy("asked", byTcp);
    await lab.ok("connect", "-n", namespace);
    await using process = lab.spawn(fixture("laptop-server.mjs", "18731", "laptop", "sick"));
    await process.says("listens on 18731");
    const calm = { unready: 0, restarts: 0 };

    await lab.ok("intercept", "probed", "--port", "18731");
    const sick = await watch("probed");
    report("httpGet probes, --probes app, a process that answers them with 500", sick);
    process.kill("SIGSTOP");
    const held = await watch("probed");
    report("… one that hangs", held);
    expect([sick, held]).toMatchObject([calm, calm]);
    const why = await lab.ok("why", "probed");
    expect(why).toContain("a probe of the kubelet's, which asks for the application");
    await lab.ok("leave", "probed");

    await lab.ok("intercept", "probed", "--port", "18731", "--probes", "agent");
    const byAgent = await watch("probed");
    report("… --probes agent, a process that hangs", byAgent);
    expect(byAgent).toMatchObject(calm);
    expect(await lab.ok("why", "probed")).toContain("which --probes agent has the agent answer");
    await lab.ok("leave", "probed");

    await lab.ok("intercept", "asked", "--port", "18732");
    const refused = await watch("asked");
    const status = await lab.ok("status");
    report("tcpSocket probes, no process", { ...refused, status: /refused[^\n]*/.exec(status)?.[0] ?? "none refused" });
    expect(refused).toMatchObject(calm);
    expect(status).not.toContain("refused");
    await lab.ok("leave", "asked");
    process.kill("SIGCONT");
  });

  test("reach the laptop's process when its owner says so", async () => {
    await lab.ok("connect", "-n", namespace);
    await using process = lab.spawn(fixture("laptop-server.mjs", "18733", "laptop", "sick"));
    await process.says("listens on 18733");
    const { code, stderr } = await lab.cli(["intercept", "probed", "--port", "18733", "--probes", "laptop"]);
    expect(code).toBe(0);
    expect(stderr).toContain("the local process answers the kubelet's probes");
    const seen = await watch("probed", 60_000, ({ unready, restarts }) => unready > 0 && restarts > 0);
    report("httpGet probes, --probes laptop, a process that answers them with 500", seen);
    expect(seen.unready).toBeGreaterThan(0);
    expect(seen.restarts).toBeGreaterThan(0);
    await lab.ok("leave", "probed");
    await until("the pod is well again", async () => (await watch("probed", 1)).unready === 0, { limitMs: 60_000 });
  });
});
