// Pure: how an agent comes into a workload's pod template, and how exactly that goes away again. Both work on the
// current object: `planRemoval(release(planInjection(w)))` is `release(w)`, whatever a release changed meanwhile.
import { AppError } from "#base/error.ts";
import type { Container, PodSpec, PodTemplate, Service, Workload } from "#kube/objects.ts";
import { markedContainer } from "#kube/workloads/resolve-container.ts";
import type { AgentConfig, AppPort } from "#wire/agent-api.ts";
import { agentConfigSchema, agentConfigVariable, agentContainerName, isSamePort } from "#wire/agent-api.ts";
import type { WorkloadRef } from "#wire/manager-api.ts";
import type { ImageChoice } from "./agent-container.ts";
import { buildAgentContainer, maskVolumeName } from "./agent-container.ts";
import { certificateVolumes } from "./certificate-volumes.ts";
import { agentRecordAnnotation, injectAnnotations, refuseManager } from "./marks.ts";
import { findProbes } from "./pod-probes.ts";
import { planAgain, planRestore, readReplacement } from "./replacement.ts";
import type { Rename, Takeover } from "./port-takeover.ts";
import { allContainers, planTakeover, renamePorts } from "./port-takeover.ts";

export interface InjectionOptions {
  readonly workload: WorkloadRef;
  /** Every service that selects the workload's pods. */
  readonly services: readonly Service[];
  /**
   * Ports that the intercept needs: taken where no service leads to the pods. None (`[]`): an agent without ports will
   * do, to read environment and files.
   */
  readonly needed?: readonly AppPort[];
  readonly image: ImageChoice;
  readonly server: { readonly major: number; readonly minor: number };
  /** Labels of the namespace where they can be read: pod security forbids the redirect there. */
  readonly namespaceLabels: Readonly<Record<string, string>>;
}

/** What removal needs and the agent's own configuration does not say. Kept in an annotation of the template. */
interface InjectionRecord {
  readonly version: 1;
  readonly renames: readonly Rename[];
  /** Fields that did not exist before and go when they are empty again. */
  readonly created: readonly string[];
}

/** The workload with an agent in its template. Injecting twice is injecting once; a replaced container stays replaced. */
export function planInjection(current: Workload, options: InjectionOptions): Workload {
  const replaced = readReplacement(current.spec.template);
  const injected = injectInto(current, options);
  return replaced === undefined ? injected : planAgain(injected, replaced);
}

function injectInto(current: Workload, options: InjectionOptions): Workload {
  const clean = planRemoval(current);
  const { template } = clean.spec;
  const pod = template.spec;
  const what = `${options.workload.kind.toLowerCase()} ${options.workload.name}`;
  refuseTemplate(template, what);
  const { services, needed } = options;
  // What the agent has by now somebody else may need.
  const asked = [...(needed ?? []), ...(readAgentConfig(current.spec.template.spec)?.ports ?? [])];
  const takeover = planTakeover(pod, { services, asked, what, by: "names" });
  if (takeover.ports.length === 0 && needed?.length !== 0) {
    throw new AppError("not_interceptable", `${what} has no port that an agent could take`, {
      hint: "create a Service that selects its pods",
    });
  }
  refuseRedirect(takeover, options.namespaceLabels, what);
  const config: AgentConfig = {
    workload: options.workload,
    ports: [...takeover.ports],
    containerName: primaryContainer(template, takeover),
    certificateVolumes: certificateVolumes(pod),
    probes: [...findProbes(pod)],
  };
  const native = sidecarsWork(options.server, takeover);
  const agent = buildAgentContainer({ config, declared: takeover.declared, pod, image: options.image, native });
  return withTemplate(clean, addAgent(template, { agent, renames: takeover.renames, native }));
}

/** Containers with restart policy are on from 1.29; services find their named ports from 1.33 (kubernetes#128850). */
function sidecarsWork(server: InjectionOptions["server"], takeover: Takeover): boolean {
  const needed = takeover.declared.length > 0 ? 33 : 29;
  return server.major > 1 || server.minor >= needed;
}

function refuseTemplate(template: PodTemplate, what: string): void {
  refuseManager(template.metadata?.labels, what);
  if (template.spec.hostNetwork === true) {
    throw new AppError(
      "not_interceptable",
      `${what} uses the node's network (hostNetwork): an agent's ports would be the node's`,
      {
        hint: "run it without hostNetwork",
      },
    );
  }
  if (allContainers(template.spec).some((container) => container.name === agentContainerName)) {
    throw new AppError(
      "not_interceptable",
      `${what} has a container ${agentContainerName} that is not this product's`,
      {
        hint: "uninstall the other Telepresence from it",
      },
    );
  }
  const optOut = injectAnnotations.find((name) => template.metadata?.annotations?.[name] === "disabled");
  if (optOut !== undefined) {
    throw new AppError("not_interceptable", `${what} refuses agents by its annotation ${optOut}: disabled`, {
      hint: "remove the annotation from its pod template",
    });
  }
}

const enforceLabel = "pod-security.kubernetes.io/enforce";

function refuseRedirect(takeover: Takeover, labels: Readonly<Record<string, string>>, what: string): void {
  const port = takeover.ports.find((item) => item.takeover === "redirect");
  const level = labels[enforceLabel];
  if (port === undefined || (level !== "restricted" && level !== "baseline")) return;
  throw new AppError(
    "not_interceptable",
    `${what} needs a redirect for its port ${port.containerPort} (its service finds it by number or is headless), and the namespace's pod security level ${level} forbids that`,
    {
      hint: `name the port in the container and use that name as the service's targetPort`,
      fields: { enforceLabel, level },
    },
  );
}

/** Whose environment the agent repeats: kubectl's default container, else that of the first port taken. */
export function primaryContainer(template: PodTemplate, takeover: Takeover): string {
  const marked = markedContainer(template);
  if (marked !== undefined) return marked;
  const first = takeover.ports[0]?.containerName;
  const isPlain = template.spec.containers.some((container) => container.name === first);
  return (isPlain ? first : template.spec.containers[0]?.name) ?? "";
}

interface Addition {
  readonly agent: Container;
  readonly renames: readonly Rename[];
  readonly native: boolean;
}

function addAgent(template: PodTemplate, { agent, renames, native }: Addition): PodTemplate {
  const { metadata, spec } = template;
  const record: InjectionRecord = { version: 1, renames, created: missingFields(template) };
  const containers = renamePorts(spec.containers, renames);
  const before = spec.initContainers === undefined ? undefined : renamePorts(spec.initContainers, renames);
  const initContainers = native ? [...(before ?? []), agent] : before;
  return {
    ...template,
    metadata: {
      ...metadata,
      annotations: { ...metadata?.annotations, [agentRecordAnnotation]: JSON.stringify(record) },
    },
    spec: {
      ...spec,
      containers: native ? containers : [...containers, agent],
      ...(initContainers === undefined ? {} : { initContainers }),
      volumes: [...(spec.volumes ?? []), { name: maskVolumeName, emptyDir: {} }],
    },
  };
}

function missingFields({ metadata, spec }: PodTemplate): readonly string[] {
  const missing: string[] = [];
  if (metadata === undefined) missing.push("metadata");
  if (metadata === null) missing.push("metadata=null");
  if (metadata?.annotations === undefined) missing.push("annotations");
  if (spec.initContainers === undefined) missing.push("initContainers");
  if (spec.volumes === undefined) missing.push("volumes");
  return missing;
}

/** The workload without what an injection added; the same object when there is nothing of ours. */
export function planRemoval(workload: Workload): Workload {
  const current = planRestore(workload);
  const { template } = current.spec;
  const record = readRecord(template);
  const ours = findAgent(template.spec) !== undefined;
  if (record === undefined && !ours) return current;
  return withTemplate(current, dropAgent(template, record ?? { version: 1, renames: [], created: [] }));
}

function dropAgent(template: PodTemplate, record: InjectionRecord): PodTemplate {
  const back = record.renames.map(({ from, to, ...rename }) => ({ ...rename, from: to, to: from }));
  const restore = (items: readonly Container[]): readonly Container[] =>
    renamePorts(
      items.filter((container) => !isAgent(container)),
      back,
    );
  const spec: Record<string, unknown> = { ...template.spec, containers: restore(template.spec.containers) };
  const created = new Set(record.created);
  if (template.spec.initContainers !== undefined) {
    keepUnlessEmpty(spec, "initContainers", restore(template.spec.initContainers), created);
  }
  if (template.spec.volumes !== undefined) {
    const volumes = template.spec.volumes.filter((volume) => volume.name !== maskVolumeName);
    keepUnlessEmpty(spec, "volumes", volumes, created);
  }
  return { ...dropRecord(template, created), spec: spec as unknown as PodSpec };
}

function dropRecord(template: PodTemplate, created: ReadonlySet<string>): PodTemplate {
  if (template.metadata?.annotations === undefined) return template;
  const { [agentRecordAnnotation]: _record, ...annotations } = template.metadata.annotations;
  const metadata: Record<string, unknown> = { ...template.metadata, annotations };
  if (created.has("annotations") && Object.keys(annotations).length === 0) delete metadata["annotations"];
  const bare = Object.keys(metadata).length === 0;
  if (bare && created.has("metadata=null")) return { ...template, metadata: null };
  if (!bare || !created.has("metadata")) return { ...template, metadata };
  const { metadata: _metadata, ...rest } = template;
  return rest;
}

function keepUnlessEmpty(
  spec: Record<string, unknown>,
  key: string,
  items: readonly unknown[],
  created: ReadonlySet<string>,
): void {
  if (items.length === 0 && created.has(key)) delete spec[key];
  else spec[key] = items;
}

function readRecord(template: PodTemplate): InjectionRecord | undefined {
  const text = template.metadata?.annotations?.[agentRecordAnnotation];
  if (text === undefined) return undefined;
  try {
    const parsed = JSON.parse(text) as Partial<InjectionRecord>;
    return { version: 1, renames: parsed.renames ?? [], created: parsed.created ?? [] };
  } catch {
    return { version: 1, renames: [], created: [] }; // somebody edited it: the container still tells what is ours
  }
}

/** Ours by name and by its configuration: another product uses the same name. */
function isAgent(container: Container): boolean {
  return (
    container.name === agentContainerName && container.env?.some((item) => item.name === agentConfigVariable) === true
  );
}

export function findAgent(pod: PodSpec): Container | undefined {
  return allContainers(pod).find(isAgent);
}

/** Configuration of the agent in a pod or template. */
export function readAgentConfig(pod: PodSpec): AgentConfig | undefined {
  return readContainerConfig(findAgent(pod));
}

export function readContainerConfig(container: Container | undefined): AgentConfig | undefined {
  const text = container?.env?.find((item) => item.name === agentConfigVariable)?.value;
  if (text === undefined) return undefined;
  try {
    return agentConfigSchema.parse(JSON.parse(text));
  } catch {
    return undefined; // written by a version that we do not understand: it is injected anew
  }
}

/** Whether the agent in the template takes these container ports, and no release has taken a name back since. */
export function coversPorts(workload: Workload, needed: readonly AppPort[]): boolean {
  const pod = workload.spec.template.spec;
  const config = readAgentConfig(pod);
  const agent = findAgent(pod);
  if (config === undefined || agent === undefined) return false;
  return needed.every((wanted) => {
    const port = config.ports.find((item) => isSamePort(item, wanted));
    if (port === undefined) return false;
    if (port.takeover === "redirect") return true;
    const stolen = pod.containers.some(
      (container) => !isAgent(container) && container.ports?.some((item) => item.name === port.portName) === true,
    );
    return !stolen && agent.ports?.some((item) => item.name === port.portName) === true;
  });
}

/** `8080, 53/udp`, for messages. */
export function describePorts(ports: readonly AppPort[]): string {
  return ports.map((port) => `${port.containerPort}${port.protocol === "udp" ? "/udp" : ""}`).join(", ");
}

function withTemplate(workload: Workload, template: PodTemplate): Workload {
  return { ...workload, spec: { ...workload.spec, template } };
}
