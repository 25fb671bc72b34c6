// For teams whose manifests are kept elsewhere (GitOps): what an uninstall takes out, or a second intercept changes, the
// next synchronisation would bring back.
import { describe, expect, test } from "vitest";
import type { CronJob, KubeObject, Pod, PodTemplate, Service, Workload } from "#kube/objects.ts";
import { coversPorts, findAgent, planRemoval } from "./agent.ts";
import { planManifest } from "./manifest-agent.ts";
import { isInManifest } from "./marks.ts";

const labels = { app: "hello" };
const template: PodTemplate = {
  metadata: { labels },
  spec: { containers: [{ name: "web", ports: [{ name: "http", containerPort: 8080 }] }] },
};
const services: Service[] = [
  { metadata: { name: "hello" }, spec: { selector: labels, ports: [{ port: 80, targetPort: "http" }] } },
];
const metadata = { name: "hello", namespace: "shop" };
const deployment: Workload = {
  apiVersion: "apps/v1",
  kind: "Deployment",
  metadata: {
    ...metadata,
    uid: "u",
    resourceVersion: "7",
    generation: 3,
    annotations: { "deployment.kubernetes.io/revision": "3" },
  },
  spec: { replicas: 2, selector: { matchLabels: labels }, template },
  status: { replicas: 2 },
};
const options = (kind: "Deployment" | "Job" | "CronJob" | "Pod", minor = 34) => ({
  workload: { kind, ...metadata },
  services,
  image: { image: "registry.example/telepresence:1" },
  server: { major: 1, minor },
});

describe("planManifest()", () => {
  const plan = planManifest(deployment, options("Deployment"));
  const printed = plan.object as Workload;

  test("prints what can be applied: nothing of the server's own", () => {
    expect(printed.metadata).toEqual(metadata);
    expect(printed).not.toHaveProperty("status");
    expect(printed.spec.replicas).toBe(2);
  });
  test("has an agent that intercepts use as it is, and that is marked to stay", () => {
    expect(isInManifest(printed.spec.template)).toBe(true);
    expect(coversPorts(printed, [{ containerPort: 8080, protocol: "tcp" }])).toBe(true);
    expect(findAgent(printed.spec.template.spec)).toMatchObject({ restartPolicy: "Always" });
  });
  test("is the same when it is printed of what it has printed", () => {
    expect(planManifest(printed, options("Deployment")).object).toEqual(printed);
  });
  test("knows what the manifest is without it, so that names mean what their owner knows", () => {
    const { containers } = planRemoval(printed).spec.template.spec;
    expect(containers).toEqual(template.spec.containers);
  });
  test("prints the parts, and what they do not do by themselves", () => {
    expect(plan.container).not.toHaveProperty("restartPolicy");
    expect(plan.initContainer.restartPolicy).toBe("Always");
    expect(plan.volumes).toEqual([{ name: "telepresence-no-token", emptyDir: {} }]);
    expect(plan.annotations["telepresence.io/manually-injected"]).toBe("true");
    expect(plan.config.workload).toEqual({ kind: "Deployment", ...metadata });
    expect(plan.byHand).toEqual([
      "the agent takes the name http: call port 8080 of container web tm-http, in its probes too",
    ]);
  });

  const pod: Pod = { apiVersion: "v1", kind: "Pod", metadata: { ...metadata, labels }, spec: template.spec };
  const cron: CronJob = {
    apiVersion: "batch/v1",
    kind: "CronJob",
    metadata,
    spec: { schedule: "* * * * *", jobTemplate: { spec: { template } } },
  };
  test("finds the template of a CronJob and of a pod", () => {
    const { spec } = planManifest(cron, options("CronJob")).object as CronJob;
    expect(spec.schedule).toBe("* * * * *");
    expect(findAgent(spec.jobTemplate.spec.template.spec)).toBeDefined();
    const printedPod = planManifest(pod, options("Pod")).object as Pod;
    expect(printedPod.metadata).toMatchObject({ name: "hello", labels });
    expect(isInManifest(printedPod)).toBe(true);
    expect(findAgent(printedPod.spec)).toBeDefined();
  });
  test("refuses what would never end, and what has no template", () => {
    const job = { ...deployment, kind: "Job" };
    expect(() => planManifest(job, options("Job", 28))).toThrow("job hello would never end with a sidecar");
    const rollout: KubeObject = { kind: "Rollout", metadata, spec: { workloadRef: {} } } as KubeObject;
    expect(() => planManifest(rollout, options("Deployment"))).toThrow("has no pod template of its own");
  });
});
