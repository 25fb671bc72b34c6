// The environment of a container. Best is what the container itself says (`cat`, by exec): that has what its image sets
// and what Kubernetes adds. Where that cannot be, what the pod's specification comes to: as the agent's container was
// given it, else worked out here with the user's own rights.
import { deadline } from "#base/abort.ts";
import { AppError, isAppError, toAppError } from "#base/error.ts";
import { computeEnvironment, neededForEnvironment, type NeededObject } from "#kube/workloads/container-environment.ts";
import type { Kube } from "#kube/client.ts";
import { execInPod } from "#kube/streams/exec.ts";
import { listWorkloadPods } from "#kube/workloads/workload-pods.ts";
import { findWorkload } from "#kube/workloads/workloads.ts";
import type { WorkloadRef } from "#wire/manager-api.ts";
import { configMaps, secrets, services, type ConfigMap, type Container, type Pod } from "#kube/objects.ts";
import type { Secret, Service } from "#kube/objects.ts";
import { cannotStart } from "#daemon/volumes/pod-archive.ts";
import { findPod } from "#daemon/volumes/volume-copies.ts";
import type { WorkloadPod } from "./workload-access.ts";

export interface PodEnvironment {
  readonly values: Readonly<Record<string, string>>;
  /** What is missing in it, and why. */
  readonly warnings: readonly string[];
}

export interface EnvironmentPlace {
  readonly namespace: string;
  readonly pod: Pick<WorkloadPod, "name" | "agent" | "environmentOf">;
  readonly containerName: string;
}

type Values = Readonly<Record<string, string>>;

/** `before`: of a container that has been replaced since, what it had said of itself. */
export async function readPodEnvironment(
  kube: Kube,
  place: EnvironmentPlace,
  signal: AbortSignal,
  before?: Values,
): Promise<PodEnvironment> {
  const { namespace, pod, containerName } = place;
  const [own, spec] = await Promise.all([
    settled(readOwn(kube, place, signal), signal),
    settled(findPod(kube, namespace, pod.name, signal), signal),
  ]);
  const container =
    spec instanceof AppError ? undefined : spec.spec.containers.find((item) => item.name === containerName);
  if (!(own instanceof AppError)) return { values: withoutPlaces(own, container), warnings: [] };
  const [repeated, computed] = await Promise.all([
    repeatedByAgent(kube, place, own, signal),
    spec instanceof AppError || container === undefined ? undefined : compute(kube, spec, container, signal),
  ]);
  if (repeated === undefined && computed === undefined) throw own;
  const values = withoutPlaces({ ...before, ...computed?.values, ...repeated }, container);
  const lacking = repeated === undefined ? (computed?.lacking ?? []) : [];
  if (before !== undefined) return { values, warnings: lacking };
  const why = `the container's own environment could not be read: ${withHint(own)}`;
  return {
    values,
    warnings: [`${why}; it is what the pod's specification says, without what the image sets`, ...lacking],
  };
}

function withHint({ message, hint }: AppError): string {
  return hint === undefined ? message : `${message} (${hint})`;
}

/** chosen: a container that does not say it by then is replaced all the same. */
const beforeTimeoutMs = 5000;

/** What a container says of itself that is to be replaced; undefined when none that runs can be asked. */
export async function readReplacedEnvironment(
  kube: Kube,
  { workload, containerName }: { readonly workload: WorkloadRef; readonly containerName: string },
  signal: AbortSignal,
): Promise<Values | undefined> {
  const found = await findWorkload(kube, workload, signal);
  if (found === undefined) return undefined;
  const runs = ({ status }: Pod): boolean =>
    status?.containerStatuses?.some((item) => item.name === containerName && item.state?.running !== undefined) ===
    true;
  const pod = (await listWorkloadPods(kube, found, signal)).find(runs);
  if (pod === undefined) return undefined;
  const { namespace = "", name = "" } = pod.metadata;
  using limit = deadline(kube.clock, beforeTimeoutMs, "reading the container's environment", signal);
  const own = await settled(readOwn(kube, { namespace, pod: { name }, containerName }, limit.signal), signal);
  return own instanceof AppError ? undefined : own;
}

/** A failure as a value; only the end of the command is thrown. */
async function settled<T>(promise: Promise<T>, signal: AbortSignal): Promise<T | AppError> {
  return await promise.catch((error: unknown) => {
    if (signal.aborted) throw error;
    return toAppError(error);
  });
}

/** Not of process 1: with a shared process namespace that is another one's. An exec gets the container's own. */
async function readOwn(
  kube: Kube,
  { namespace, pod, containerName }: Omit<EnvironmentPlace, "pod"> & { readonly pod: Pick<WorkloadPod, "name"> },
  signal: AbortSignal,
): Promise<Values> {
  const command = ["cat", "/proc/self/environ"];
  const options = { namespace, pod: pod.name, container: containerName, command, signal };
  const { stdout, exitCode } = await execInPod(kube, options).catch((error: unknown) => {
    throw cannotStart(error, "cat");
  });
  if (exitCode === 0) return parseEnviron(stdout.toString("utf8"));
  throw new AppError(
    "unsupported",
    exitCode >= 126 ? "the container has no `cat`" : `its \`cat\` ended with ${exitCode}`,
  );
}

/** False when nothing can be run there, so that an agent would see more; an exec that is not allowed is no such case. */
export async function hasPrograms(kube: Kube, place: EnvironmentPlace, signal: AbortSignal): Promise<boolean> {
  const own = await settled(readOwn(kube, place, signal), signal);
  return !isAppError(own, "unsupported");
}

/** `NAME=value`, each with a NUL behind it. */
export function parseEnviron(text: string): Values {
  const pairs = text.split("\0").filter((line) => line.indexOf("=") > 0);
  return Object.fromEntries(pairs.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]));
}

/** Undefined when the agent was given another container's, or cannot be asked. */
async function repeatedByAgent(
  kube: Kube,
  { namespace, pod, containerName }: EnvironmentPlace,
  own: AppError,
  signal: AbortSignal,
): Promise<Values | undefined> {
  if (isAppError(own, "forbidden") || pod.agent === undefined || pod.environmentOf !== containerName) return undefined;
  const command = ["/telepresence", "traffic-agent", "environment"];
  const options = { namespace, pod: pod.name, container: pod.agent, command, signal };
  const answer = await settled(execInPod(kube, options), signal);
  if (answer instanceof AppError || answer.exitCode !== 0) return undefined;
  return JSON.parse(answer.stdout.toString("utf8")) as Values;
}

interface Computed {
  readonly values: Values;
  /** Sentences on what is missing. */
  readonly lacking: readonly string[];
}

async function compute(kube: Kube, pod: Pod, container: Container, signal: AbortSignal): Promise<Computed> {
  const namespace = pod.metadata.namespace ?? "";
  const needed = new Map(neededForEnvironment(container).map((object) => [keyOf(object), object]));
  const [objects, links] = await Promise.all([
    Promise.all(
      [...needed].map(async ([key, { kind, name }]) => {
        const resource = kind === "Secret" ? secrets : configMaps;
        return [
          key,
          await settled(kube.find<ConfigMap | Secret>(resource, { namespace, name }, signal), signal),
        ] as const;
      }),
    ),
    serviceLinks(kube, pod, container, signal),
  ]);
  const known = new Map(objects);
  const find = (kind: NeededObject["kind"], name: string): ConfigMap | Secret | undefined => {
    const object = known.get(keyOf({ kind, name }));
    return object instanceof AppError ? undefined : object;
  };
  const { values, missing } = computeEnvironment({ pod, container, services: links, find });
  const refused = objects.flatMap(([key, object]) => (object instanceof AppError ? [`${key}: ${object.message}`] : []));
  const lacking = [
    ...(missing.length === 0 ? [] : [`the value of ${missing.join(", ")} is not known`]),
    ...(refused.length === 0 ? [] : [`the environment lacks what comes from ${refused.join("; ")}`]),
  ];
  return { values, lacking };
}

const keyOf = ({ kind, name }: Pick<NeededObject, "kind" | "name">): string => `${kind} ${name}`;

/** Kubelets name services to a container when it starts; that of Kubernetes itself to all. */
async function serviceLinks(
  kube: Kube,
  pod: Pod,
  container: Container,
  signal: AbortSignal,
): Promise<readonly Service[]> {
  const status = pod.status?.containerStatuses?.find(({ name }) => name === container.name);
  const started = status?.state?.running?.startedAt;
  const [own, api] = await Promise.all([
    pod.spec.enableServiceLinks === false
      ? []
      : settled(kube.list(services, { namespace: pod.metadata.namespace }, signal), signal),
    settled(kube.find(services, { namespace: "default", name: "kubernetes" }, signal), signal),
  ]);
  const before = ({ metadata }: Service): boolean =>
    started === undefined || (metadata.creationTimestamp ?? "") <= started;
  return [
    ...(api === undefined || api instanceof AppError ? [] : [api]),
    ...("items" in own ? own.items.filter(before) : []),
  ];
}

/** They describe the container's own system; on the laptop they would break programs. */
const containersOwn = new Set("HOME PATH HOSTNAME PWD OLDPWD SHLVL TERM SHELL USER LOGNAME _".split(" "));

/** As images set them: places in the container's file system. They stay where the pod's specification sets them. */
const imagePlaces = new Set(
  [
    "LD_LIBRARY_PATH LD_PRELOAD TMPDIR SSL_CERT_FILE SSL_CERT_DIR JAVA_HOME CLASSPATH CATALINA_HOME MAVEN_HOME",
    "GRADLE_HOME DOTNET_ROOT PYTHONHOME PYTHONPATH VIRTUAL_ENV CONDA_PREFIX NODE_PATH GOPATH GOROOT GEM_HOME GEM_PATH",
    "BUNDLE_APP_CONFIG PERL5LIB CARGO_HOME RUSTUP_HOME",
  ].flatMap((line) => line.split(" ")),
);

export function withoutPlaces(values: Values, container: Container | undefined): Values {
  const meant = new Set(container?.env?.map(({ name }) => name));
  const stays = (name: string): boolean => !containersOwn.has(name) && (!imagePlaces.has(name) || meant.has(name));
  return Object.fromEntries(Object.entries(values).filter(([name]) => stays(name)));
}
