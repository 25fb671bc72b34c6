// An agent that cannot come up: the cluster's own reason within seconds, in one sentence, and our patch taken back.
// Told by the command line, as a person meets it; installer.test.ts asks the installer itself.
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import * as cluster from "#testbed/cluster.ts";
import {
  Lab,
  apply,
  field,
  fixture,
  kubectl,
  rolledOut,
  until,
  webApp,
  report,
  toolsImage,
  type Manifest,
} from "./lab.ts";
import { stage } from "./stage.ts";

const namespace = "it-failures";
const restricted = "it-restricted";
const lab = new Lab({ managerNamespace: "it-manager" });
/** chosen: `seconds rather than a time-out`, on a machine that does ten other things. */
const limitMs = 45_000;

stage([lab], namespace, restricted);
beforeAll(async () => {
  const level = "pod-security.kubernetes.io/enforce=restricted";
  await kubectl("label", "namespace", restricted, level);
});

async function failsToIntercept(name: string, flags: readonly string[], where = namespace): Promise<string> {
  const before = await field(where, `deployment/${name}`, ".spec.template");
  const startMs = performance.now();
  const { code, stdout, stderr } = await lab.cli(["intercept", name, "--port", "18400", "-n", where, ...flags]);
  const tookMs = Math.round(performance.now() - startMs);
  report("intercept that cannot come up", `${tookMs} ms: ${stderr}`);
  expect({ code, lines: stderr.trim().split("\n").length }).toEqual({ code: 1, lines: 1 });
  expect(stdout).not.toContain("Using");
  expect(await field(where, `deployment/${name}`, ".spec.template")).toBe(before);
  expect(tookMs).toBeLessThan(limitMs);
  expect(await lab.ok("list", "--intercepts", "-n", where)).not.toContain("ACTIVE");
  return stderr;
}

describe("an agent that cannot come up is named with the reason, and taken back", () => {
  beforeEach(async () => {
    await lab.quit();
    await apply(namespace, ...webApp({ name: "web" }));
    await rolledOut(namespace, "deployment/web");
  });
  test("an image that nobody has", async () => {
    await lab.ok("connect", "-n", namespace); // with the right one: the manager is there
    await lab.quit();
    const image = ["--image", "docker.io/testbed/no-such-image:1", "--image-pull-policy", "Never"];
    expect(await failsToIntercept("web", image)).toContain(
      "image docker.io/testbed/no-such-image:1 of container traffic-agent",
    );
  });
  test("a quota", async () => {
    await kubectl("create", "quota", "tiny", "--hard=pods=1", "-n", namespace);
    expect(await failsToIntercept("web", [])).toContain("exceeded quota: tiny");
    await kubectl("delete", "quota", "tiny", "-n", namespace);
  });
  test("no node for it, because the application wants one to itself", async () => {
    const own = { labelSelector: { matchLabels: { app: "alone" } }, topologyKey: "kubernetes.io/hostname" };
    const pod = { affinity: { podAntiAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [own] } } };
    await apply(namespace, ...webApp({ name: "alone", pod }));
    await rolledOut(namespace, "deployment/alone");
    expect(await failsToIntercept("alone", [])).toMatch(/finds no node: 0\/1 nodes are available/);
  });
  test("a release made meanwhile stays", async () => {
    await kubectl("create", "quota", "tiny", "--hard=pods=1", "-n", namespace);
    const running = lab.start(["intercept", "web", "--port", "18400", "-n", namespace]);
    await until("our patch", async () =>
      (await field(namespace, "deployment/web", ".spec.template")).includes("traffic-agent"),
    );
    await kubectl("set", "env", "-n", namespace, "deployment/web", "RELEASE=meanwhile");
    expect(await running.ends()).toBe(1);
    const template = await field(namespace, "deployment/web", ".spec.template");
    expect(template).toContain("meanwhile");
    expect(template).not.toContain("traffic-agent");
    await kubectl("delete", "quota", "tiny", "-n", namespace);
  });
});

describe("an admission controller's refusal is told in its own words, and nothing is left", () => {
  /** chosen: a refusal is known at once; pods that a controller makes are refused within a few tries of its own. */
  const refusedMs = 15_000;
  const made: string[] = [];
  beforeEach(async () => {
    await lab.quit();
    await apply(namespace, ...webApp({ name: "web" }));
    await rolledOut(namespace, "deployment/web");
  });
  afterEach(async () => {
    for (const object of made.splice(0)) await kubectl("delete", "-n", namespace, object, "--ignore-not-found");
  });
  const add = async (...manifests: readonly Manifest[]): Promise<void> => {
    for (const item of manifests) {
      made.push(`${String(item["kind"])}/${(item["metadata"] as { readonly name: string }).name}`);
    }
    await apply(namespace, ...manifests);
  };
  const selected = { namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": namespace } } };
  const rule = (kind: "pods" | "deployments", operation: string): Manifest => ({
    apiGroups: [kind === "pods" ? "" : "apps"],
    apiVersions: ["v1"],
    operations: [operation],
    resources: [kind],
  });
  const admission = { apiVersion: "admissionregistration.k8s.io/v1" };
  /** Refuses objects with our container; given by where the pod's spec is. */
  const policy = (name: string, kind: "pods" | "deployments", spec: string): readonly Manifest[] => [
    {
      ...admission,
      kind: "ValidatingAdmissionPolicy",
      metadata: { name },
      spec: {
        matchConstraints: { resourceRules: [rule(kind, kind === "pods" ? "CREATE" : "UPDATE")] },
        validations: [
          {
            expression: `!${spec}.?initContainers.orValue([]).exists(c, c.name == 'traffic-agent')`,
            message: "no agents in this house",
          },
        ],
      },
    },
    {
      ...admission,
      kind: "ValidatingAdmissionPolicyBinding",
      metadata: { name },
      spec: { policyName: name, validationActions: ["Deny"], matchResources: selected },
    },
  ];
  /** Its server is never there. */
  const webhook = (name: string, kind: "pods" | "deployments"): Manifest => ({
    ...admission,
    kind: "ValidatingWebhookConfiguration",
    metadata: { name },
    webhooks: [
      {
        name: `${name}.example.com`,
        admissionReviewVersions: ["v1"],
        sideEffects: "None",
        failurePolicy: "Fail",
        timeoutSeconds: 2,
        clientConfig: { service: { name: "away", namespace } },
        rules: [rule(kind, kind === "pods" ? "CREATE" : "UPDATE")],
        ...selected,
      },
    ],
  });
  /** The API server takes a moment to heed what was added: until it refuses what we are about to send. */
  const heeded = async (kind: "pods" | "deployments"): Promise<void> => {
    const agent = { name: "traffic-agent", image: toolsImage };
    const change = { spec: { template: { spec: { initContainers: [agent] } } } };
    const pod = { apiVersion: "v1", kind: "Pod", metadata: { name: "probe" } };
    const spec = { containers: [{ ...agent, name: "app" }], initContainers: [agent] };
    const [argv, input] =
      kind === "pods"
        ? [["create", "-f", "-"], JSON.stringify({ ...pod, spec })]
        : [["patch", "deployment", "web", "-p", JSON.stringify(change)], ""];
    await until("the refusal", async () => {
      const dry = await cluster.kubectl([...argv, "-n", namespace, "--dry-run=server"], { input, allowFailure: true });
      return dry.code !== 0 && /denied|webhook/.test(dry.stderr);
    });
  };
  async function isRefused(kind: "pods" | "deployments"): Promise<string> {
    await heeded(kind);
    const startMs = performance.now();
    const said = await failsToIntercept("web", []);
    expect(performance.now() - startMs).toBeLessThan(refusedMs);
    expect(await field(namespace, "deployment/web", ".metadata.annotations")).not.toContain("telepresence");
    return said;
  }

  test("a policy on workloads", async () => {
    await add(...policy("no-agents", "deployments", "object.spec.template.spec"));
    const generation = await field(namespace, "deployment/web", ".metadata.generation");
    expect(await isRefused("deployments")).toBe(
      `telepresence: error: patch deployments.apps web in namespace ${namespace} was refused by the cluster: ValidatingAdmissionPolicy 'no-agents' with binding 'no-agents' denied request: no agents in this house; ask the cluster's administrator\n`,
    );
    expect(await field(namespace, "deployment/web", ".metadata.generation")).toBe(generation);
  });
  test("a policy on pods", async () => {
    await add(...policy("no-agent-pods", "pods", "object.spec"));
    expect(await isRefused("pods")).toBe(
      `telepresence: error: injecting the traffic-agent into deployment web failed: its new pods are refused: ValidatingAdmissionPolicy 'no-agent-pods' with binding 'no-agent-pods' denied request: no agents in this house; kubectl describe pod -n ${namespace}\n`,
    );
    await rolledOut(namespace, "deployment/web");
  });
  test("a webhook whose service is away", async () => {
    await add(webhook("away", "deployments"));
    expect(await isRefused("deployments")).toMatch(
      /^telepresence: error: patch deployments\.apps web in namespace \S+ was refused by the cluster: failed calling webhook "away\.example\.com": [^\n]+: service "away" not found; ask the cluster's administrator\n$/,
    );
  });
  test("a webhook whose server does not answer, for pods", async () => {
    const silent = ["python3", "-c", "import socket, time; s = socket.create_server(('', 8000)); time.sleep(1e6)"];
    const probe = { tcpSocket: { port: 8000 } };
    const container = { command: silent, readinessProbe: probe };
    await add(...webApp({ name: "away", servicePorts: [{ port: 443, targetPort: 8000 }], container }));
    await rolledOut(namespace, "deployment/away");
    await add(webhook("silent", "pods"));
    expect(await isRefused("pods")).toMatch(
      /^telepresence: error: injecting the traffic-agent into deployment web failed: its new pods are refused: failed calling webhook "silent\.example\.com": [^\n]+\n$/,
    );
  });
});

describe("pod security at its strictest", () => {
  test("admits an agent for a named port, the whole way", async () => {
    await lab.quit();
    await apply(restricted, ...webApp({ name: "web" }));
    await rolledOut(restricted, "deployment/web");
    await using server = lab.spawn(fixture("laptop-server.mjs", "18401"));
    await server.says("listens on");
    await lab.ok("intercept", "web", "--port", "18401", "-n", restricted);
    // kube-proxy may send the first ones to the pod that is leaving.
    await until("an answer of the laptop", async () => {
      const { stdout } = await lab.sh(`curl -sS --max-time 10 http://web.${restricted}/`);
      return stdout === "hello from laptop\n";
    });
    await lab.ok("leave", "web");
    await lab.ok("uninstall", "--all-agents", "-n", restricted);
    expect(await field(restricted, "deployment/web", ".spec.template")).not.toContain("traffic-agent");
  });
  test("forbids a redirect, which is told before anything is changed", async () => {
    await apply(restricted, ...webApp({ name: "number", servicePorts: [{ port: 80, targetPort: 8000 }] }));
    await rolledOut(restricted, "deployment/number");
    const generation = await field(restricted, "deployment/number", ".metadata.generation");
    const said = await failsToIntercept("number", [], restricted);
    expect(said).toMatch(/needs a redirect for its port 8000 .*restricted forbids that; name the port/);
    expect(await field(restricted, "deployment/number", ".metadata.generation")).toBe(generation);
  });
});

interface Container {
  readonly name: string;
  readonly securityContext?: object;
}

// Traps 47, 48 and 53: a user of the cluster's choice, which is the agent's as well; none at all; and a host name.
test("admits agents beside applications of any user, and under a LimitRange", async () => {
  const limits = { type: "Container", min: { memory: "16Mi" }, max: { memory: "600Mi" }, default: { memory: "300Mi" } };
  const range = { apiVersion: "v1", kind: "LimitRange", metadata: { name: "limits" }, spec: { limits: [limits] } };
  const seccompProfile = { type: "RuntimeDefault" };
  const strict = { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } };
  const apps = {
    random: {
      pod: {
        hostname: "one",
        subdomain: "random",
        securityContext: { runAsNonRoot: true, runAsUser: 1_000_620_000, fsGroup: 1_000_620_000, seccompProfile },
      },
      container: { securityContext: strict },
    },
    unsaid: { pod: { securityContext: {} }, container: { securityContext: {} } },
  };
  const places = { random: restricted, unsaid: namespace };
  await lab.quit();
  await apply(restricted, range);
  const one = async (name: keyof typeof apps, port: string): Promise<unknown> => {
    const where = places[name];
    await apply(where, ...webApp({ name, ...apps[name] }));
    await rolledOut(where, `deployment/${name}`);
    await lab.ok("intercept", name, "--port", port, "-n", where, "--agent", "sidecar");
    const answer = async (): Promise<string> =>
      (await lab.sh(`curl -sS --max-time 10 http://${name}.${where}/`)).stdout;
    await until("an answer of the laptop", async () => (await answer()) === "hello from laptop\n");
    const template = await field(where, `deployment/${name}`, ".spec.template.spec");
    const { containers, initContainers = [] } = JSON.parse(template) as Readonly<Record<string, Container[]>>;
    const agent = [...containers!, ...initContainers].find((container) => container.name === "traffic-agent");
    await lab.ok("leave", name);
    expect(await answer()).toContain("Hello from the cluster");
    await lab.ok("uninstall", "--agent", name, "-n", where);
    return agent?.securityContext;
  };
  await using server = lab.spawn(fixture("laptop-server.mjs", "18402-18403"));
  await server.says("listens on 18403");
  expect(await one("random", "18402")).toMatchObject({ runAsUser: 1_000_620_000 });
  expect(await one("unsaid", "18403")).not.toHaveProperty("runAsUser");
  await kubectl("delete", "-n", restricted, "limitrange/limits");
});
