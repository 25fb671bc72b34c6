// Stands in for Argo's controller, which is no part of the testbed: makes a ReplicaSet of each template that a Rollout
// has, scales the older ones down once the new pods are ready, and writes the status as Argo does (generations as text).
// What it leaves out: steps, analysis, traffic routing.
import { createHash } from "node:crypto";
import * as cluster from "#testbed/cluster.ts";
import { apply, kubectl, type Manifest } from "./lab.ts";

/** The fields that matter here; Argo's own definition has a schema as well. */
export const rolloutDefinition: Manifest = {
  apiVersion: "apiextensions.k8s.io/v1",
  kind: "CustomResourceDefinition",
  metadata: { name: "rollouts.argoproj.io" },
  spec: {
    group: "argoproj.io",
    scope: "Namespaced",
    names: { kind: "Rollout", listKind: "RolloutList", plural: "rollouts", singular: "rollout", shortNames: ["ro"] },
    versions: [
      {
        name: "v1alpha1",
        served: true,
        storage: true,
        subresources: { status: {} },
        schema: { openAPIV3Schema: { type: "object", "x-kubernetes-preserve-unknown-fields": true } },
      },
    ],
  },
};

interface Made {
  readonly metadata: { readonly name: string; readonly uid: string; readonly generation: number };
  readonly spec: {
    readonly replicas: number;
    readonly template?: Template;
    readonly workloadRef?: { readonly name: string };
  };
  readonly status?: { readonly readyReplicas?: number };
}
interface Template {
  readonly metadata: { readonly labels: Readonly<Record<string, string>> };
  readonly spec: object;
}

const hashLabel = "rollouts-pod-template-hash";

async function read(namespace: string, object: string): Promise<Made> {
  return JSON.parse(await kubectl("get", "-n", namespace, object, "-o", "json")) as Made;
}

/** Brings the cluster one step nearer to what the Rollout says. */
export async function reconcile(namespace: string, name: string): Promise<void> {
  const rollout = await read(namespace, `rollout/${name}`);
  const { workloadRef } = rollout.spec;
  const holder = workloadRef === undefined ? rollout : await read(namespace, `deployment/${workloadRef.name}`);
  const template = holder.spec.template;
  if (template === undefined) return;
  const hash = createHash("sha256").update(JSON.stringify(template)).digest("hex").slice(0, 8);
  const current = `${name}-${hash}`;
  const labels = { ...template.metadata.labels, [hashLabel]: hash };
  const owner = { apiVersion: "argoproj.io/v1alpha1", kind: "Rollout", name, uid: rollout.metadata.uid };
  await apply(namespace, {
    apiVersion: "apps/v1",
    kind: "ReplicaSet",
    metadata: { name: current, labels, ownerReferences: [{ ...owner, controller: true }] },
    spec: {
      replicas: rollout.spec.replicas,
      selector: { matchLabels: labels },
      template: { ...template, metadata: { ...template.metadata, labels } },
    },
  });
  const { status } = await read(namespace, `replicaset/${current}`);
  const ready = status?.readyReplicas ?? 0;
  if (ready >= rollout.spec.replicas) await scaleDownOthers(namespace, name, current);
  const counts = { replicas: ready, updatedReplicas: ready, readyReplicas: ready, availableReplicas: ready };
  const generations = {
    observedGeneration: String(rollout.metadata.generation),
    ...(workloadRef === undefined ? {} : { workloadObservedGeneration: String(holder.metadata.generation) }),
  };
  const patch = JSON.stringify({ status: { ...counts, ...generations, phase: "Healthy" } });
  await kubectl("patch", "-n", namespace, `rollout/${name}`, "--subresource=status", "--type=merge", "-p", patch);
}

async function scaleDownOthers(namespace: string, name: string, current: string): Promise<void> {
  const names = await kubectl("get", "replicasets", "-n", namespace, "-o", "jsonpath={.items[*].metadata.name}");
  for (const other of names.split(" ").filter((item) => item.startsWith(`${name}-`) && item !== current)) {
    await cluster.kubectl(["scale", "-n", namespace, `replicaset/${other}`, "--replicas=0"]);
  }
}

/** Keeps at it until it is disposed. */
export class RolloutController implements AsyncDisposable {
  readonly #ending = new AbortController();
  readonly #running: Promise<void>;

  constructor(namespace: string, ...names: readonly string[]) {
    this.#running = this.#run(namespace, names);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort();
    await this.#running;
  }

  async #run(namespace: string, names: readonly string[]): Promise<void> {
    while (!this.#ending.signal.aborted) {
      for (const name of names) await reconcile(namespace, name).catch(() => undefined); // changed meanwhile: once more
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
  }
}
