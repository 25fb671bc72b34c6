// `genyaml`: a manifest with the traffic-agent in it, from a file or from the cluster. Changes nothing. Services and the
// server's version are asked for where the cluster can be; a file alone must do where it cannot.
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, isAppError, toAppError } from "#base/error.ts";
import type { ManifestAgent } from "#installer/manifest-agent.ts";
import { planManifest } from "#installer/manifest-agent.ts";
import type { Kube } from "#kube/client.ts";
import { loadTarget } from "#kube/config.ts";
import type { KubeObject, Resource, Service, Workload } from "#kube/objects.ts";
import { matchesLabels, services } from "#kube/objects.ts";
import { resolveName } from "#kube/workloads/resolve-workload.ts";
import { allKinds, describeWorkload, workloadResources } from "#kube/workloads/workloads.ts";
import type { WorkloadKind } from "#kube/workloads/workloads.ts";
import type { controlApi } from "#wire/control-api.ts";
import type { WorkloadRef } from "#wire/manager-api.ts";
import type { ParamsOf, ResultOf } from "#wire/rpc.ts";
import { defaultImage, openUserKube } from "./cluster-session.ts";
import type { Caller } from "./control/server.ts";
import type { Session } from "./session.ts";
import { placeOf } from "./uninstall.ts";

type Params = ParamsOf<typeof controlApi, "genyaml">;
type Result = ResultOf<typeof controlApi, "genyaml">;

/** chosen: a few small requests. */
const askMs = 30_000;
/** Of the first version whose services find a sidecar's ports by name. */
const newestServer = { major: 1, minor: 33 };

export async function genyaml(
  params: Params,
  session: Session | undefined,
  caller: Caller,
  clock: Clock,
): Promise<Result> {
  using limit = deadline(clock, askMs, "reading the cluster", caller.gone);
  const { signal } = limit;
  const [kube, obstacle] = await openIfPossible(params, clock);
  using _closing = kube;
  if (params.input === undefined && kube === undefined) throw obstacle;
  const place = kube === undefined ? (params.namespace ?? "default") : placeOf(params, session, kube).namespace;
  const input = (params.input ?? []) as readonly KubeObject[];
  const chosen = params.input === undefined ? undefined : chooseManifest(input, params);
  const manifest = chosen ?? (await readManifest(requireKube(kube), params, place, signal));
  const workload = refOf(manifest, place);
  const known = await askCluster(kube, workload.namespace, signal);
  const all = mergeServices(input, known.services ?? []);
  const plan = planManifest(manifest, {
    workload,
    services: selecting(all, manifest, workload.kind),
    image: { image: params.target.image ?? defaultImage, pullPolicy: params.target.imagePullPolicy },
    server: known.server ?? newestServer,
  });
  const objects = chosen === undefined ? [plan.object] : input.map((item) => (item === chosen ? plan.object : item));
  return { ...toResult(plan, objects), warnings: [...known.warnings, ...describeScope(workload, manifest)] };
}

function toResult({ byHand, ...plan }: ManifestAgent, objects: readonly KubeObject[]): Omit<Result, "warnings"> {
  const parts = { config: plan.config, container: plan.container, initcontainer: plan.initContainer };
  return {
    objects: [...objects],
    parts: { ...parts, annotations: plan.annotations, volume: plan.volumes },
    byHand: [...byHand],
  };
}

async function openIfPossible({ target }: Params, clock: Clock): Promise<readonly [Kube | undefined, unknown]> {
  try {
    return [openUserKube(await loadTarget(target.kube), clock), undefined];
  } catch (error) {
    return [undefined, error];
  }
}

function requireKube(kube: Kube | undefined): Kube {
  if (kube !== undefined) return kube;
  throw new AppError("invalid_config", "there is no cluster to read the workload from");
}

/** The workload among the documents of a file. */
function chooseManifest(input: readonly KubeObject[], { workload, kind }: Params): KubeObject {
  const found = input.filter(
    (item) =>
      isWorkloadKind(item.kind) &&
      (workload === undefined || item.metadata.name === workload) &&
      (kind === undefined || item.kind === kind),
  );
  const [only, ...others] = found;
  if (only !== undefined && others.length === 0) return only;
  const names = (only === undefined ? input : found).map((item) => `${item.kind ?? "?"} ${item.metadata.name ?? "?"}`);
  if (only === undefined) {
    throw new AppError(
      "workload_not_found",
      `the input has no workload${workload === undefined ? "" : ` ${workload}`}`,
      {
        hint: `it has: ${names.join(", ") || "nothing"}`,
      },
    );
  }
  throw new AppError("ambiguous", `the input has ${found.length} workloads: ${names.join(", ")}`, {
    hint: "choose one with --workload KIND/NAME",
  });
}

function isWorkloadKind(kind: string | undefined): kind is WorkloadKind {
  return allKinds.some((known) => known === kind);
}

async function readManifest(
  kube: Kube,
  { workload, kind }: Params,
  namespace: string,
  signal: AbortSignal,
): Promise<KubeObject> {
  const name = workload ?? "";
  const found = await resolveName(kube, { namespace, kind, name }, signal);
  const resource: Resource<KubeObject> = workloadResources[found.kind];
  const object = await kube.get(resource, { namespace, name }, signal);
  const { group, version } = resource;
  return { ...object, apiVersion: group === "" ? version : `${group}/${version}`, kind: found.kind };
}

function refOf(manifest: KubeObject, place: string): WorkloadRef {
  const { name, namespace = place } = manifest.metadata;
  if (isWorkloadKind(manifest.kind) && name !== undefined) return { kind: manifest.kind, name, namespace };
  throw new AppError("usage", "the workload of the input has no name, expected one", { hint: "give it metadata.name" });
}

interface Known {
  readonly services: readonly Service[] | undefined;
  readonly server: { readonly major: number; readonly minor: number } | undefined;
  readonly warnings: readonly string[];
}

async function askCluster(kube: Kube | undefined, namespace: string, signal: AbortSignal): Promise<Known> {
  const without = "services are those of the input, and Kubernetes is taken to be 1.33 or newer";
  if (kube === undefined)
    return { services: undefined, server: undefined, warnings: [`without a cluster, ${without}`] };
  try {
    const [listed, server] = await Promise.all([
      kube.list(services, { namespace }, signal),
      kube.serverVersion(signal),
    ]);
    return { services: listed.items, server, warnings: [] };
  } catch (error) {
    if (isAppError(error, "cancelled")) throw error;
    return {
      services: undefined,
      server: undefined,
      warnings: [`the cluster could not be asked (${toAppError(error).message}): ${without}`],
    };
  }
}

/** The input's are newer than the cluster's. */
function mergeServices(input: readonly KubeObject[], known: readonly Service[]): readonly Service[] {
  const given = input.filter((item): item is Service => item.kind === "Service");
  const names = new Set(given.map((item) => item.metadata.name));
  return [...given, ...known.filter((item) => !names.has(item.metadata.name))];
}

function selecting(all: readonly Service[], manifest: KubeObject, kind: WorkloadKind): readonly Service[] {
  const { labels } = kind === "Pod" ? manifest.metadata : templateMeta(manifest, kind);
  return all.filter(({ spec }) => spec.type !== "ExternalName" && matchesLabels(spec.selector ?? {}, labels));
}

function templateMeta(manifest: KubeObject, kind: WorkloadKind): KubeObject["metadata"] {
  const outer = manifest as Workload & { readonly spec: { readonly jobTemplate?: Workload } };
  const { template } = (kind === "CronJob" ? outer.spec.jobTemplate?.spec : outer.spec) ?? {};
  return template?.metadata ?? {};
}

function describeScope(workload: WorkloadRef, { metadata }: KubeObject): readonly string[] {
  if (metadata.namespace !== undefined) return [];
  return [
    `the agent of ${describeWorkload(workload)} is written for namespace ${workload.namespace}: -n chooses another`,
  ];
}
