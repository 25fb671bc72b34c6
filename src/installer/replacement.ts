// Pure: how a container of a workload's pod template makes way for a stand-in, and how exactly it comes back (DESIGN 17).
// The stand-in keeps the container's name, ports, environment and volumes and runs our image; what it listens on and says
// is agent/stand-in.ts. What was there before stands in an annotation of the template.
// Invariant: `planRestore(release(planReplacement(w)))` is `release(w)`: a field of ours that somebody has changed
// meanwhile is his, and nothing else is touched.
import { AppError } from "#base/error.ts";
import type { Container, EnvVar, PodSpec, PodTemplate, Probe, Workload } from "#kube/objects.ts";
import { parseAmount } from "#kube/quantity.ts";
import type { FoundWorkload } from "#kube/workloads/workloads.ts";
import { agentConfigVariable } from "#wire/agent-api.ts";
import type { StandIn } from "#wire/stand-in.ts";
import { standInCommand, standInSchema } from "#wire/stand-in.ts";
import type { ImageChoice } from "./agent-container.ts";
import { replacedAnnotation } from "./marks.ts";
import { equalJson } from "./merge-patch.ts";
import { findProbes } from "./pod-probes.ts";

export interface ReplacementOptions {
  readonly containerName: string;
  /** `deployment hello`. */
  readonly what: string;
  /** Who replaces it, for people, and the installation that will put it back. */
  readonly by: string;
  readonly installId: string;
  /** Ports of the application on which its services rely. */
  readonly ports: readonly number[];
  readonly image: ImageChoice;
}

/** All that a stand-in may need other than the application. */
const fieldNames = [
  "image",
  "imagePullPolicy",
  "command",
  "args",
  "workingDir",
  "livenessProbe",
  "readinessProbe",
  "startupProbe",
  "lifecycle",
  "resources",
  "securityContext",
] as const;
type Fields = Readonly<Record<string, unknown>>;

export interface ReplacementRecord {
  readonly container: string;
  readonly by: string;
  readonly installId: string;
  /** Of each field that was changed; null for one that was not there. */
  readonly before: Fields;
  readonly ours: Fields;
  /** The variable that would have told Node what to load, as often as the container names it; left out: not touched. */
  readonly nodeOptions?: readonly EnvVar[];
}

/** Chosen: as for the agent, a Node program of 45–70 MB. A limit below this is raised. */
const memoryLimit = "128Mi";
/** What the application's variable of this name loads is not in our image. */
const nodeOptions: EnvVar = { name: "NODE_OPTIONS", value: "--no-warnings" };
/** protocol: below this only root may listen, unless the node says otherwise. */
const firstFreePort = 1024;

/** The workload, which has an agent, with a stand-in in the container's place. Throws when somebody else replaces one. */
export function planReplacement(current: Workload, options: ReplacementOptions): Workload {
  const { template } = current.spec;
  const present = readReplacement(template);
  if (present !== undefined) {
    refuseOthers(present, options);
    return current;
  }
  const container = template.spec.containers.find(({ name }) => name === options.containerName);
  if (container === undefined) {
    throw new AppError("not_found", `${options.what} has no container ${options.containerName} that could be replaced`);
  }
  const { containerName, what: workload, by, installId } = options;
  const ports = portsOf(container, template.spec, options.ports);
  const standIn = buildStandIn(container, template.spec, {
    ...options,
    ports,
    told: { workload, container: containerName, by, ports: [...ports] },
  });
  const { before, ours } = compare(container, standIn);
  const variables = (container.env ?? []).filter(({ name }) => name === nodeOptions.name);
  const needsVariable = variables.length > 0 || (container.envFrom ?? []).length > 0;
  const record: ReplacementRecord = {
    container: containerName,
    by,
    installId,
    before,
    ours,
    ...(needsVariable ? { nodeOptions: variables } : {}),
  };
  const replaced = needsVariable ? withVariable(standIn) : standIn;
  return withTemplate(current, tellAgent(annotate(withContainer(template, replaced), JSON.stringify(record)), true));
}

/** Throws unless it is this installation's replacement of this container. */
export function refuseOthers(
  present: ReplacementRecord,
  options: Pick<ReplacementOptions, "containerName" | "what" | "installId">,
): void {
  if (present.installId === options.installId && present.container === options.containerName) return;
  throw new AppError("conflict", `container ${present.container} of ${options.what} is replaced by ${present.by}`, {
    hint: "`telepresence uninstall --agent` puts it back for everybody",
  });
}

/** The workload with its container again; the same object when none is replaced. */
export function planRestore(current: Workload): Workload {
  const { template } = current.spec;
  const record = readReplacement(template);
  if (record === undefined) return current;
  const container = template.spec.containers.find(({ name }) => name === record.container);
  const restored = container === undefined ? template : withContainer(template, restore(container, record));
  return withTemplate(current, tellAgent(annotate(restored, undefined), false));
}

/** A sentence on what planRestore() leaves to whoever changed it, while it ran with what else is the stand-in's. */
export function changedMeanwhile(template: PodTemplate, what: string): string | undefined {
  const record = readReplacement(template);
  const found = template.spec.containers.find(({ name }) => name === record?.container);
  if (record === undefined || found === undefined) return undefined;
  const fields = found as unknown as Fields;
  const changed = Object.entries(record.ours).filter(([name, value]) => !equalJson(fields[name] ?? null, value));
  if (changed.length === 0) return undefined;
  const names = changed.map(([name]) => name).join(", ");
  return (
    `${names} of container ${record.container} of ${what} was changed while it was replaced, and stays as it was changed; ` +
    "all else is the application's again: pods that failed meanwhile are replaced now, see `kubectl get pods`"
  );
}

/** What planRestore() takes back, made again on the template as it is now. */
export function planAgain(current: Workload, record: ReplacementRecord): Workload {
  const { container: containerName, by, installId, ours } = record;
  const told = readStandIn(ours["args"]);
  const { image, imagePullPolicy } = ours;
  const isThere = current.spec.template.spec.containers.some(({ name }) => name === containerName);
  if (told === undefined || typeof image !== "string" || !isThere) return current;
  const pullPolicy = imagePullPolicy as ImageChoice["pullPolicy"];
  const { workload: what, ports } = told;
  return planReplacement(current, { containerName, what, by, installId, ports, image: { image, pullPolicy } });
}

/** Of a workload, whose record is on its template, but for a CronJob. */
export function replacementOf({ kind, object }: Pick<FoundWorkload, "kind" | "object">): ReplacementRecord | undefined {
  return readReplacement(kind === "CronJob" ? object : object.spec.template);
}

/** Undefined when no container is replaced, or when somebody has made the annotation unreadable. */
export function readReplacement({ metadata }: Pick<PodTemplate, "metadata">): ReplacementRecord | undefined {
  const text = metadata?.annotations?.[replacedAnnotation];
  if (text === undefined) return undefined;
  try {
    const record = JSON.parse(text) as Partial<ReplacementRecord>;
    const { container, by = "", installId = "", before, ours, nodeOptions: variables } = record;
    if (typeof container !== "string" || before === undefined || ours === undefined) return undefined;
    return { container, by, installId, before, ours, ...(variables === undefined ? {} : { nodeOptions: variables }) };
  } catch {
    return undefined;
  }
}

function readStandIn(args: unknown): StandIn | undefined {
  try {
    return standInSchema.parse(JSON.parse((args as readonly string[])[2] ?? ""));
  } catch {
    return undefined;
  }
}

interface StandInPlan {
  readonly image: ImageChoice;
  readonly ports: readonly number[];
  readonly told: StandIn;
}

function buildStandIn(container: Container, pod: PodSpec, { image, ports, told }: StandInPlan): Container {
  const {
    command: _command,
    workingDir: _workingDir,
    lifecycle: _lifecycle,
    ...kept
  } = container as Container & Fields;
  const { livenessProbe, readinessProbe, startupProbe, ...rest } = kept;
  return {
    ...(rest as Container),
    image: image.image,
    imagePullPolicy: image.pullPolicy ?? "IfNotPresent",
    args: ["traffic-agent", standInCommand, JSON.stringify(told)],
    ...(runsProgram(livenessProbe) ? {} : { livenessProbe }),
    ...(runsProgram(readinessProbe) ? {} : { readinessProbe }),
    ...(runsProgram(startupProbe) ? {} : { startupProbe }),
    ...withRoom(container),
    ...withUser(container, pod, ports),
  } as Container;
}

/** Its program is not in our image. */
function runsProgram(probe: Probe | undefined): boolean {
  return probe === undefined || (probe as Fields)["exec"] !== undefined;
}

function withRoom({ resources }: Container): object {
  const limit = parseAmount(resources?.limits?.["memory"]);
  if (limit === undefined || limit >= (parseAmount(memoryLimit) ?? 0)) return {};
  return { resources: { ...resources, limits: { ...resources?.limits, memory: memoryLimit } } };
}

/** Our image's user may not listen where that of the application's image may, where neither is said. */
function withUser({ securityContext }: Container, pod: PodSpec, ports: readonly number[]): object {
  const all = { ...(pod as { readonly securityContext?: object }).securityContext, ...securityContext } as Fields;
  const isFree = all["runAsUser"] === undefined && all["runAsNonRoot"] !== true;
  if (!isFree || ports.every((port) => port >= firstFreePort)) return {};
  return { securityContext: { ...securityContext, runAsUser: 0 } };
}

/** Those that it declares, that services lead to, and that probes ask. */
function portsOf(container: Container, pod: PodSpec, needed: readonly number[]): readonly number[] {
  const declared = (container.ports ?? []).filter(({ protocol = "TCP" }) => protocol === "TCP");
  const probed = findProbes({ ...pod, containers: [container], initContainers: [] });
  const all = [...declared.map((port) => port.containerPort), ...needed, ...probed.map((probe) => probe.containerPort)];
  return [...new Set(all)].toSorted((a, b) => a - b);
}

function compare(before: Container, after: Container): { readonly before: Fields; readonly ours: Fields } {
  const [old, now] = [before as unknown as Fields, after as unknown as Fields];
  const changed = fieldNames.filter((name) => !equalJson(old[name], now[name]));
  const pick = (from: Fields): Fields => Object.fromEntries(changed.map((name) => [name, from[name] ?? null]));
  return { before: pick(old), ours: pick(now) };
}

function restore(container: Container, { before, ours, nodeOptions: variables }: ReplacementRecord): Container {
  const fields: Record<string, unknown> = { ...container };
  for (const [name, value] of Object.entries(ours)) {
    if (!equalJson(fields[name] ?? null, value)) continue; // somebody else's by now
    if (before[name] === null) delete fields[name];
    else fields[name] = before[name];
  }
  const restored = fields as unknown as Container;
  return variables === undefined ? restored : withoutVariable(restored, variables);
}

function withVariable(container: Container): Container {
  const env = container.env ?? [];
  const set = env.map((item) => (item.name === nodeOptions.name ? nodeOptions : item));
  return { ...container, env: set.includes(nodeOptions) ? set : [...env, nodeOptions] };
}

function withoutVariable(container: Container, before: readonly EnvVar[]): Container {
  if (container.env === undefined) return container;
  const left = [...before];
  const env = container.env.flatMap((item) => (equalJson(item, nodeOptions) ? left.splice(0, 1) : [item]));
  if (env.length > 0) return { ...container, env };
  const { env: _env, ...rest } = container; // as the server has it
  return rest;
}

function withContainer(template: PodTemplate, replaced: Container): PodTemplate {
  const containers = template.spec.containers.map((item) => (item.name === replaced.name ? replaced : item));
  return { ...template, spec: { ...template.spec, containers } };
}

function annotate(template: PodTemplate, text: string | undefined): PodTemplate {
  const { [replacedAnnotation]: _text, ...annotations } = template.metadata?.annotations ?? {};
  const added = text === undefined ? {} : { [replacedAnnotation]: text };
  return { ...template, metadata: { ...template.metadata, annotations: { ...annotations, ...added } } };
}

/** The agent keeps its pod from being ready until it serves, where otherwise a stand-in would answer. */
function tellAgent(template: PodTemplate, standIn: boolean): PodTemplate {
  const { containers, initContainers } = template.spec;
  const tell = (items: readonly Container[]): readonly Container[] => items.map((item) => tellOne(item, standIn));
  const spec = { ...template.spec, containers: tell(containers) };
  return { ...template, spec: initContainers === undefined ? spec : { ...spec, initContainers: tell(initContainers) } };
}

function tellOne(container: Container, standIn: boolean): Container {
  const isConfig = ({ name, value }: EnvVar): boolean => name === agentConfigVariable && value !== undefined;
  if (container.env?.some(isConfig) !== true) return container;
  return { ...container, env: container.env.map((item) => (isConfig(item) ? tellConfig(item, standIn) : item)) };
}

function tellConfig(variable: EnvVar, standIn: boolean): EnvVar {
  try {
    const { standIn: _standIn, ...config } = JSON.parse(variable.value ?? "") as Fields;
    return { ...variable, value: JSON.stringify(standIn ? { ...config, standIn } : config) };
  } catch {
    return variable; // written by a version that we do not understand
  }
}

function withTemplate(workload: Workload, template: PodTemplate): Workload {
  return { ...workload, spec: { ...workload.spec, template } };
}
