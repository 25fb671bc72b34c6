// Pure: a workload's manifest with the agent in it, for teams whose manifests are kept elsewhere (GitOps): what `genyaml`
// prints. It is the injection's own plan, marked so that no intercept changes it and no uninstall takes it out.
import { AppError } from "#base/error.ts";
import type { Container, KubeObject, ObjectMeta, PodSpec, PodTemplate, Service, Volume } from "#kube/objects.ts";
import type { WorkloadKind } from "#kube/workloads/workloads.ts";
import type { AgentConfig } from "#wire/agent-api.ts";
import type { WorkloadRef } from "#wire/manager-api.ts";
import type { ImageChoice } from "./agent-container.ts";
import { maskVolumeName } from "./agent-container.ts";
import type { InjectionOptions } from "./agent.ts";
import { findAgent, planInjection, readAgentConfig } from "./agent.ts";
import { agentRecordAnnotation, inManifestAnnotation, isInManifest } from "./marks.ts";

export interface ManifestOptions {
  readonly workload: WorkloadRef;
  /** Every service that selects the workload's pods. */
  readonly services: readonly Service[];
  readonly image: ImageChoice;
  readonly server: InjectionOptions["server"];
}

export interface ManifestAgent {
  /** The whole object, with the agent. */
  readonly object: KubeObject;
  /** The parts that were added, for those who put them in by hand. */
  readonly config: AgentConfig;
  readonly container: Container;
  readonly initContainer: Container;
  readonly annotations: Readonly<Record<string, string>>;
  readonly volumes: readonly Volume[];
  /** What the parts alone do not do, a sentence each. */
  readonly byHand: readonly string[];
}

export function planManifest(manifest: KubeObject, options: ManifestOptions): ManifestAgent {
  const current = withoutServerFields(manifest);
  const { kind, name } = options.workload;
  const unmarked = readTemplate(kind, current);
  const what = `${kind.toLowerCase()} ${name}`;
  if (unmarked === undefined) {
    throw new AppError("not_interceptable", `${what} has no pod template of its own to put an agent into`, {
      hint: "give the manifest of the workload that it refers to",
    });
  }
  const template = mark(unmarked);
  // An agent that is there already is replaced: the manifest is printed anew after a change of its ports.
  const injected = planInjection(
    { metadata: current.metadata, spec: { template } },
    { ...options, namespaceLabels: {} },
  );
  const marked = injected.spec.template;
  const agent = findAgent(marked.spec);
  const config = readAgentConfig(marked.spec);
  if (agent === undefined || config === undefined)
    throw new AppError("injection_failed", `${what} has no agent, expected one`);
  const { restartPolicy, ...container } = agent;
  if (restartPolicy === undefined && (kind === "Job" || kind === "CronJob")) {
    throw new AppError("unsupported", `${what} would never end with a sidecar of this Kubernetes version`, {
      hint: "sidecars that end with their pod come with 1.29, those that take a port by its name with 1.33",
    });
  }
  const { annotations = {} } = marked.metadata ?? {};
  return {
    object: writeTemplate(kind, current, marked),
    config,
    container,
    initContainer: { ...container, restartPolicy: "Always" },
    annotations: Object.fromEntries(
      [inManifestAnnotation, agentRecordAnnotation].map((key) => [key, annotations[key] ?? ""]),
    ),
    volumes: (marked.spec.volumes ?? []).filter((volume) => volume.name === maskVolumeName),
    byHand: describeRenames(template.spec, marked.spec),
  };
}

function mark(template: PodTemplate): PodTemplate {
  if (isInManifest(template)) return template;
  const { metadata } = template;
  return {
    ...template,
    metadata: { ...metadata, annotations: { ...metadata?.annotations, [inManifestAnnotation]: "true" } },
  };
}

/** Ports whose names the agent takes: in whole manifests they are renamed already. */
function describeRenames(before: PodSpec, after: PodSpec): readonly string[] {
  return before.containers.flatMap((container) => {
    const now = after.containers.find((item) => item.name === container.name);
    return (container.ports ?? []).flatMap((port, index) => {
      const name = now?.ports?.[index]?.name;
      if (name === undefined || name === port.name) return [];
      const ref = `port ${port.containerPort} of container ${container.name}`;
      return [`the agent takes the name ${port.name ?? ""}: call ${ref} ${name}, in its probes too`];
    });
  });
}

interface CronJobManifest extends KubeObject {
  readonly spec: { readonly jobTemplate: { readonly spec: { readonly template: PodTemplate } } };
}

function readTemplate(kind: WorkloadKind, object: KubeObject): PodTemplate | undefined {
  if (kind === "Pod") return { metadata: object.metadata, spec: (object as KubeObject & { spec: PodSpec }).spec };
  if (kind === "CronJob") return (object as Partial<CronJobManifest>).spec?.jobTemplate.spec.template;
  return (object as KubeObject & { spec?: { template?: PodTemplate } }).spec?.template;
}

function writeTemplate(kind: WorkloadKind, object: KubeObject, template: PodTemplate): KubeObject {
  if (kind === "Pod") return { ...object, ...template } as KubeObject;
  if (kind !== "CronJob") {
    const { spec } = object as KubeObject & { readonly spec: object };
    return { ...object, spec: { ...spec, template } } as KubeObject;
  }
  const { spec } = object as CronJobManifest;
  const jobTemplate = { ...spec.jobTemplate, spec: { ...spec.jobTemplate.spec, template } };
  return { ...object, spec: { ...spec, jobTemplate } } as KubeObject;
}

/** What the server writes, and what a manifest must not say. */
const serverFields = ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink"];
const serverAnnotations = ["kubectl.kubernetes.io/last-applied-configuration", "deployment.kubernetes.io/revision"];

function withoutServerFields(object: KubeObject): KubeObject {
  const { status: _status, ...rest } = object as KubeObject & { readonly status?: unknown };
  const metadata = without(object.metadata, serverFields) as ObjectMeta;
  const annotations = metadata.annotations === undefined ? undefined : without(metadata.annotations, serverAnnotations);
  const kept = annotations !== undefined && Object.keys(annotations).length > 0;
  const { annotations: _annotations, ...others } = metadata;
  return { ...rest, metadata: { ...others, ...(kept ? { annotations } : {}) } } as KubeObject;
}

function without(object: object, keys: readonly string[]): object {
  return Object.fromEntries(Object.entries(object).filter(([key]) => !keys.includes(key)));
}
