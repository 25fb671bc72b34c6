// Every kind of workload that can be intercepted, each the whole way: attached, answered by the laptop, left, answered by
// the application, while a gentle load calls it and no call fails. Argo's controller is no part of the testbed: here
// rollout-controller.ts does what it would do with ReplicaSets and status.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import * as cluster from "#testbed/cluster.ts";
import {
  Lab,
  apply,
  field,
  fixture,
  kubectl,
  report,
  rolledOut,
  service,
  until,
  webApp,
  type Manifest,
  type Running,
} from "./lab.ts";
import { Load, countByWho, failures } from "./load.ts";
import { RolloutController, rolloutDefinition } from "./rollout-controller.ts";
import { stage } from "./stage.ts";
import { startToolsPod } from "./tools-pod.ts";

const namespace = "it-kinds";
const lab = new Lab({ managerNamespace: "it-kinds-manager", agent: "ephemeral" });
let server: Running;

stage([lab], namespace);
beforeAll(async () => {
  await startToolsPod(namespace, "caller");
  await lab.ok("connect", "-n", namespace);
  server = lab.spawn(fixture("laptop-server.mjs", "18710-18712"));
  await server.says("listens on 18712");
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await lab.cli(["uninstall", "--everything"]);
});

interface Template {
  readonly metadata: Manifest;
  readonly spec: { readonly containers: readonly Manifest[] };
}
/** The sample's pod template, with a service beside it. */
function sample(name: string, pod: Manifest = {}): { readonly template: Template; readonly service: Manifest } {
  const [workload, made] = webApp({ name, pod: { terminationGracePeriodSeconds: 6, ...pod } });
  return { template: (workload as { spec: { template: Template } }).spec.template, service: made ?? {} };
}
async function call(url: string): Promise<string> {
  const argv = ["exec", "-n", namespace, "caller", "--", "curl", "-sS", "-D-", "-o/dev/null", "--max-time", "5", url];
  const { stdout, stderr } = await cluster.kubectl(argv, { allowFailure: true });
  return /^x-pod: (.*?)\r?$/im.exec(stdout)?.[1] ?? stderr.trim().split("\n")[0] ?? "";
}
async function answeredBy(url: string, who: RegExp): Promise<void> {
  await until(`an answer by ${who} of ${url}`, async () => who.test(await call(url)), { limitMs: 30_000 });
}

interface Row {
  /** What the user says. */
  readonly target: string;
  readonly name: string;
  readonly application: RegExp;
  readonly flags?: readonly string[];
}

/** Attach, answers of the laptop, leave, answers of the application; no call fails. */
async function wholeWay({ target, name, application, flags = [] }: Row): Promise<string> {
  const load = await Load.start({ namespace, target: `http://${name}.${namespace}/`, perSecond: 20 });
  try {
    const startMs = Date.now();
    const said = await lab.ok("intercept", target, "--port", "18710", ...flags);
    const attachMs = Date.now() - startMs;
    await load.answeredBy(/^laptop$/, Date.now(), { inARow: 30 });
    await lab.ok("leave", target);
    await load.answeredBy(application, Date.now(), { inARow: 30 });
    const calls = await load.calls(startMs);
    report(`${target} ${flags.join(" ")}`.trim(), { attachMs, calls: calls.length, ...countByWho(calls) });
    expect(failures(calls, startMs)).toEqual([]);
    return said;
  } finally {
    await kubectl("delete", "-n", namespace, "deployment/load", "--wait=false");
  }
}

async function uninstalled(name: string): Promise<void> {
  expect(await lab.ok("uninstall", "--agent", name)).toMatch(/traffic-agent (removed|ends in)/);
}

describe("DaemonSet", () => {
  test("by an ephemeral agent, and by a sidecar", async () => {
    const { template, service: made } = sample("everywhere");
    await apply(namespace, made, {
      apiVersion: "apps/v1",
      kind: "DaemonSet",
      metadata: { name: "everywhere" },
      spec: {
        selector: { matchLabels: { app: "everywhere" } },
        updateStrategy: { rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } },
        template,
      },
    });
    await rolledOut(namespace, "daemonset/everywhere");
    expect(await lab.ok("list")).toContain("everywhere: ready to intercept");
    const row = { target: "ds/everywhere", name: "everywhere", application: /^everywhere-/ };
    const generation = await field(namespace, "daemonset/everywhere", ".metadata.generation");
    expect(await wholeWay(row)).toContain("Using DaemonSet everywhere\n");
    await uninstalled("everywhere");
    expect(await field(namespace, "daemonset/everywhere", ".metadata.generation")).toBe(generation);
    const before = await field(namespace, "daemonset/everywhere", ".spec.template");
    expect(await wholeWay({ ...row, flags: ["--agent", "sidecar"] })).not.toContain("ephemeral");
    await uninstalled("everywhere");
    expect(await field(namespace, "daemonset/everywhere", ".spec.template")).toBe(before);
    await kubectl("delete", "-n", namespace, "daemonset/everywhere", "--wait=false");
  });
});

describe("Job", () => {
  const job = (name: string, pod: Manifest): Manifest => {
    const { template } = sample(name, { restartPolicy: "Never" });
    return {
      apiVersion: "batch/v1",
      kind: "Job",
      metadata: { name },
      spec: { backoffLimit: 0, template: { ...template, spec: { ...template.spec, ...pod } } },
    };
  };
  test("by an ephemeral agent; says why not by a sidecar, and when the job has ended", async () => {
    await apply(namespace, sample("task").service, job("task", {}));
    await kubectl("wait", "-n", namespace, "pod", "-l", "app=task", "--for=condition=Ready", "--timeout=60s");
    const refused = await lab.cli(["intercept", "job/task", "--port", "18710", "--agent", "sidecar"]);
    expect(refused.stderr).toContain("job task takes no sidecar: the pod template of a Job cannot be changed");
    await wholeWay({ target: "job/task", name: "task", application: /^task-/, flags: ["--agent", "auto"] });
    await lab.ok("intercept", "job/task", "--port", "18710");
    const pod = await kubectl("get", "pods", "-n", namespace, "-l", "app=task", "-o", "name");
    await kubectl(
      "exec",
      "-n",
      namespace,
      pod.trim(),
      "-c",
      "task",
      "--",
      "python3",
      "-c",
      "import os; os.kill(1, 15)",
    );
    await kubectl("wait", "-n", namespace, "job/task", "--for=condition=Complete", "--timeout=60s");
    await until("the end to be told", async () => (await lab.ok("list")).includes("job task has ended"));
    report("job/task, ended while intercepted", await lab.ok("list"));
    await lab.ok("leave", "job/task");
    const late = await lab.cli(["intercept", "job/task", "--port", "18710"]);
    expect(late.stderr).toContain("job task in namespace it-kinds is finished: it has no pods");
    await kubectl("delete", "-n", namespace, "job/task", "service/task");
  });
});

describe("CronJob", () => {
  const start = async (name: string): Promise<void> => {
    await kubectl("create", "job", "-n", namespace, `--from=cronjob/tick`, name);
    const ready = async (): Promise<boolean> =>
      (
        await kubectl("get", "pods", "-n", namespace, "-l", `job-name=${name}`, "-o", "jsonpath={..conditions}")
      ).includes('"status":"True","type":"Ready"');
    await until(`the pod of job ${name}`, ready);
  };
  test("by ephemeral agents, those of the next job too", async () => {
    const { template, service: made } = sample("tick", { restartPolicy: "Never" });
    await apply(namespace, made, {
      apiVersion: "batch/v1",
      kind: "CronJob",
      metadata: { name: "tick" },
      spec: { schedule: "0 0 1 1 *", jobTemplate: { spec: { backoffLimit: 0, template } } },
    });
    const early = await lab.cli(["intercept", "cronjob/tick", "--port", "18710"]);
    expect(early.stderr).toContain("cronjob tick has no running pods");
    await start("tick-1");
    await wholeWay({ target: "cronjob/tick", name: "tick", application: /^tick-1-/ });
    await lab.ok("intercept", "cronjob/tick", "--port", "18710");
    await kubectl("delete", "-n", namespace, "job/tick-1");
    await until("the pause to be told", async () => (await lab.ok("list")).includes("no job of cronjob tick runs now"));
    await start("tick-2");
    await answeredBy(`http://tick.${namespace}/`, /^laptop$/);
    report("cronjob/tick, its next job", await call(`http://tick.${namespace}/`));
    await lab.ok("leave", "cronjob/tick");
    await answeredBy(`http://tick.${namespace}/`, /^tick-2-/);
    await kubectl("delete", "-n", namespace, "cronjob/tick", "service/tick");
  });
});

describe("Pod", () => {
  const bare = (name: string): Manifest => {
    const { template } = sample(name);
    return { apiVersion: "v1", kind: "Pod", ...template, metadata: { ...template.metadata, name } };
  };
  test("without an owner, behind a service", async () => {
    await apply(namespace, sample("alone").service, bare("alone"));
    await kubectl("wait", "-n", namespace, "pod/alone", "--for=condition=Ready", "--timeout=60s");
    const refused = await lab.cli(["intercept", "alone", "--port", "18710", "--agent", "sidecar"]);
    expect(refused.stderr).toContain("pod alone takes no sidecar: the containers of a pod that runs cannot be changed");
    await wholeWay({ target: "alone", name: "alone", application: /^alone$/ });
    await uninstalled("alone");
    await kubectl("delete", "-n", namespace, "pod/alone", "service/alone");
  });
  test("without a service, named by its own name", async () => {
    await apply(namespace, bare("hermit"));
    await kubectl("wait", "-n", namespace, "pod/hermit", "--for=condition=Ready", "--timeout=60s");
    const url = `http://${await field(namespace, "pod/hermit", ".status.podIP")}:8000/`;
    for (const port of ["18710", "18710:http", "18710:8000"]) {
      await lab.ok("intercept", "pod/hermit", "--port", port);
      await answeredBy(url, /^laptop$/);
      await lab.ok("leave", "hermit");
      await answeredBy(url, /^hermit$/);
    }
    report("pod/hermit, no service", "3 times laptop, 3 times hermit");
    await kubectl("delete", "-n", namespace, "pod/hermit");
  });
});

describe("Rollout of Argo", () => {
  const rollout = (name: string, spec: Manifest): Manifest => ({
    apiVersion: "argoproj.io/v1alpha1",
    kind: "Rollout",
    metadata: { name },
    spec: { replicas: 2, ...spec },
  });
  beforeAll(async () => {
    await apply(namespace, rolloutDefinition);
    await kubectl("wait", "crd/rollouts.argoproj.io", "--for=condition=Established", "--timeout=30s");
  });
  afterAll(async () => {
    await kubectl("delete", "crd/rollouts.argoproj.io", "--wait=false");
  });
  const ready = (name: string): Promise<unknown> =>
    until(`rollout ${name}`, async () => (await field(namespace, `rollout/${name}`, ".status.readyReplicas")) === "2");

  test("with a template of its own, by ephemeral agents and by sidecars", async () => {
    const { template, service: made } = sample("argo");
    await apply(namespace, made, rollout("argo", { selector: { matchLabels: { app: "argo" } }, template }));
    await using _controller = new RolloutController(namespace, "argo");
    await ready("argo");
    expect(await lab.ok("list")).toContain("argo: ready to intercept");
    const row = { target: "rollout/argo", name: "argo", application: /^argo-/ };
    expect(await wholeWay(row)).toContain("Using Rollout argo\n");
    await uninstalled("argo");
    const before = await field(namespace, "rollout/argo", ".spec.template");
    await wholeWay({ ...row, flags: ["--agent", "sidecar"] });
    await uninstalled("argo");
    expect(await field(namespace, "rollout/argo", ".spec.template")).toBe(before);
    await kubectl("delete", "-n", namespace, "rollout/argo", "service/argo");
  });

  test("with the template of a Deployment that it refers to", async () => {
    const [deployment, made] = webApp({ name: "referred", replicas: 0 });
    await apply(namespace, deployment ?? {}, made ?? {});
    const workloadRef = { apiVersion: "apps/v1", kind: "Deployment", name: "referred" };
    await apply(namespace, rollout("referring", { workloadRef }));
    await using _controller = new RolloutController(namespace, "referring");
    await ready("referring");
    const row = { target: "ro/referring", name: "referred", application: /^referring-/ };
    await wholeWay(row);
    await uninstalled("referring");
    const before = await field(namespace, "deployment/referred", ".spec.template");
    await wholeWay({ ...row, flags: ["--agent", "sidecar"] });
    await uninstalled("referring");
    expect(await field(namespace, "deployment/referred", ".spec.template")).toBe(before);
    await kubectl("delete", "-n", namespace, "rollout/referring", "deployment/referred", "service/referred");
  });
});

describe("refused before anything is touched", () => {
  const rows: readonly (readonly [string, Manifest, string])[] = [
    ["hosted", { hostNetwork: true }, "deployment hosted uses the node's network (hostNetwork)"],
    ["glass", { nodeSelector: { "kubernetes.io/os": "windows" } }, "deployment glass runs on Windows nodes"],
  ];
  test.each(rows)("%s", async (name, pod, text) => {
    await apply(namespace, ...webApp({ name, pod, ports: [{ name: "http", containerPort: 18_790 }] }));
    for (const agent of ["auto", "ephemeral", "sidecar"]) {
      const { code, stderr } = await lab.cli(["intercept", name, "--port", "18710", "--agent", agent]);
      expect(code).toBe(1);
      expect(stderr).toContain(text);
    }
    report(name, (await lab.ok("list", "-o=false")).split("\n").find((line) => line.startsWith(name)) ?? "");
    expect(await field(namespace, `deployment/${name}`, ".metadata.generation")).toBe("1");
    const added = await kubectl(
      "get",
      "pods",
      "-n",
      namespace,
      "-l",
      `app=${name}`,
      "-o",
      "jsonpath={..ephemeralContainers}",
    );
    expect(added).toBe("");
    await kubectl("delete", "-n", namespace, `deployment/${name}`, `service/${name}`);
  });
});

describe("several", () => {
  test("services on one port, and ports of two containers in one intercept", async () => {
    const servicePorts = [
      { name: "http", port: 80, targetPort: "http" },
      { name: "admin", port: 81, targetPort: "admin" },
    ];
    const [deployment, ...rest] = webApp({ name: "many", servicePorts });
    const { containers } = (deployment as { spec: { template: { spec: { containers: Manifest[] } } } }).spec.template
      .spec;
    const [first] = containers;
    const admin = { name: "admin", ports: [{ name: "admin", containerPort: 8001 }], readinessProbe: undefined };
    containers.push({ ...first, ...admin, command: ["sh", "-c", "PORT=8001 python3 /samples/hello.py"] });
    await apply(namespace, deployment ?? {}, ...rest);
    await apply(namespace, service("other", [{ port: 90, targetPort: 8000 }], {}, "many"));
    await rolledOut(namespace, "deployment/many");
    const asked = await lab.cli(["intercept", "deploy/many", "--port", "18710"]);
    expect(asked.stderr).toContain("has several service ports");
    const args = ["intercept", "many", "--port", "18710:http", "--port", "18711:admin"];
    const { code, stderr } = await lab.cli(args);
    expect(code).toBe(0);
    expect(stderr).toContain("Warning: port 8000 also serves service other:90: its callers are intercepted too");
    for (const url of ["http://many/", "http://many:81/", "http://other:90/"]) await answeredBy(url, /^laptop$/);
    await lab.ok("leave", "many");
    for (const url of ["http://many/", "http://many:81/", "http://other:90/"]) await answeredBy(url, /^many-/);
    report("2 ports and 3 service ports in one intercept", "3 of 3 by the laptop, then 3 of 3 by the application");
    await kubectl("delete", "-n", namespace, "deployment/many", "service/many", "service/other");
  });
});

describe("applications that listen on one address only", () => {
  /** hello.py on another address than all of them. */
  const listening = (address: string): string =>
    `import os, runpy, socketserver, http.server, socket
host = os.environ["POD_IP"] if "${address}" == "pod" else "${address}"
old = socketserver.TCPServer.__init__
def init(self, at, *more, **named):
    self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
    old(self, (host, at[1]), *more, **named)
socketserver.TCPServer.__init__ = init
runpy.run_path("/samples/hello.py", run_name="__main__")`;
  const addresses = ["pod", "127.0.0.1", "::", "0.0.0.0"];
  const nameOf = (address: string): string => `on-${addresses.indexOf(address)}`;
  test.each(addresses)("%s", async (address) => {
    const name = nameOf(address);
    const container = {
      command: ["python3", "-c", listening(address)],
      readinessProbe: undefined,
      env: [
        { name: "POD_NAME", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
        { name: "POD_IP", valueFrom: { fieldRef: { fieldPath: "status.podIP" } } },
        { name: "DRAIN_SECONDS", value: "0" },
      ],
    };
    await apply(namespace, ...webApp({ name, container }));
    await rolledOut(namespace, `deployment/${name}`);
    const url = `http://${name}/`;
    // Without an agent nobody reaches an application on loopback.
    const itself = address === "127.0.0.1" ? /refused|Failed to connect/ : new RegExp(`^${name}-`);
    await answeredBy(url, itself);
    await lab.ok("intercept", name, "--port", "18710");
    await answeredBy(url, /^laptop$/);
    await lab.ok("leave", name);
    await answeredBy(url, itself);
    await uninstalled(name);
    await lab.ok("intercept", name, "--port", "18710", "--agent", "sidecar");
    await answeredBy(url, /^laptop$/);
    await lab.ok("leave", name);
    // The agent that has the port's name finds the application on loopback too.
    await answeredBy(url, new RegExp(`^${name}-`));
    report(`application on ${address}`, "laptop and back, by an ephemeral agent and by a sidecar");
    await kubectl("delete", "-n", namespace, `deployment/${name}`, `service/${name}`, "--wait=false");
  });
});
