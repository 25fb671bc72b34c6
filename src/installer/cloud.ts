// The cloud server in a real cluster: applied on the server's side with a field manager of its own, so that what others
// set on the objects stays and a field of theirs is not overwritten; removed by exactly what was put there.
import { createHash } from "node:crypto";
import { AppError, isAppError } from "#base/error.ts";
import type { Kube } from "#kube/client.ts";
import { waitFor } from "#kube/live-set.ts";
import { deployments, ingresses, persistentVolumeClaims, pods, secrets, services } from "#kube/objects.ts";
import type { KubeObject, ObjectMeta, Pod, Resource } from "#kube/objects.ts";
import { isMissingPermission } from "#kube/status.ts";
import { findProblem, isLive, isReady } from "#kube/workloads/pod-problems.ts";
import type { Manifest } from "./cloud-manifest.ts";
import { cloudName, cloudSelector, namesDatabase } from "./cloud-manifest.ts";
import { createNamespace, removeNamespace } from "./manager.ts";
import type { IsGoing, Progress } from "./manager.ts";
import { Patience, WaitLimit } from "./patience.ts";

const fieldManager = "telepresence-cloud-install";
const selectorText = Object.entries(cloudSelector)
  .map(([key, value]) => `${key}=${value}`)
  .join(",");

/** In the order of their removal. */
const kinds: readonly Resource<KubeObject>[] = [ingresses, services, deployments, secrets, persistentVolumeClaims];

export interface CloudPlace {
  readonly namespace: string;
  readonly onProgress: Progress;
  readonly signal: AbortSignal;
}

/** On pods: what they were made of. Pods read their Secret once, so that another content of it takes new ones. */
const revisionAnnotation = "telepresence.io/revision";

export interface AppliedCloud {
  /** One sentence each. */
  readonly done: readonly string[];
  /** Of the pods that are on their way. */
  readonly revision: string;
}

/**
 * Brings the cluster to these objects: new, changed, and those of an earlier installation that are not wanted any more. The
 * user's own Secret that pods read is named, where there is one; nothing of it is changed.
 */
export async function applyCloud(
  kube: Kube,
  objects: readonly Manifest[],
  place: CloudPlace,
  ownSecret?: string,
): Promise<AppliedCloud> {
  const { namespace, signal, onProgress } = place;
  for (const object of objects) await refuseStranger(kube, object, signal);
  const done: string[] = [];
  let revision = "";
  let secretVersion = ownSecret === undefined ? "" : await versionOf(kube, ownSecret, place);
  if (secretVersion === undefined) {
    done.push(
      `Secret ${ownSecret} cannot be seen; if it has changed: kubectl rollout restart -n ${namespace} deployment/${cloudName}`,
    );
  }
  for (const object of objects) {
    if (object.kind === deployments.kind) {
      revision = createHash("sha256")
        .update(JSON.stringify([object, secretVersion]))
        .digest("hex")
        .slice(0, 16);
    }
    const applied = await applyOne(kube, withRevision(object, revision), place);
    if (object.kind === secrets.kind) secretVersion = applied.metadata.resourceVersion ?? "";
    done.push(`${object.kind} ${object.metadata.name} applied in namespace ${namespace}`);
    onProgress(`applied ${object.kind} ${object.metadata.name}`);
  }
  for (const kind of kinds) {
    // what people have stored goes only when it is said (`removeCloud`)
    if (kind === persistentVolumeClaims || objects.some((object) => object.kind === kind.kind)) continue;
    if (await removeOne(kube, kind, place)) done.push(`${kind.kind} ${cloudName} removed, it is not wanted any more`);
  }
  return { done, revision };
}

/** Of a Secret of the user's; "" where there is none, and undefined where that cannot be known. */
async function versionOf(kube: Kube, name: string, { namespace, signal }: CloudPlace): Promise<string | undefined> {
  const found = kube.find(secrets, { namespace, name }, signal);
  return await unlessForbidden(found.then((secret) => secret?.metadata.resourceVersion ?? ""));
}

function withRevision(object: Manifest, revision: string): Manifest {
  if (object.kind !== deployments.kind) return object;
  const { spec } = object as Manifest & { readonly spec: { readonly template: { readonly metadata: object } } };
  const metadata = { ...spec.template.metadata, annotations: { [revisionAnnotation]: revision } };
  return { ...object, spec: { ...spec, template: { ...spec.template, metadata } } } as Manifest;
}

async function applyOne(kube: Kube, object: Manifest, { namespace, signal }: CloudPlace): Promise<KubeObject> {
  const kind = kindOf(object);
  try {
    return await kube.apply(kind, object, fieldManager, signal);
  } catch (error) {
    if (!isAppError(error, "not_found")) throw error;
    await createNamespace(kube, namespace, signal);
    return await kube.apply(kind, object, fieldManager, signal);
  }
}

function kindOf(object: Manifest): Resource<KubeObject> {
  const kind = kinds.find((known) => known.kind === object.kind);
  if (kind === undefined) throw new AppError("internal", `${object.kind} is no kind of the cloud server's`);
  return kind;
}

function isCloud(labels: ObjectMeta["labels"]): boolean {
  return Object.entries(cloudSelector).every(([key, value]) => labels?.[key] === value);
}

/** Without its people and previews a server would come up, and the Secret with the way to them would go. */
export async function refuseToForget(kube: Kube, { namespace, signal }: CloudPlace): Promise<void> {
  const found = await unlessForbidden(kube.find(deployments, { namespace, name: cloudName }, signal));
  if (found === undefined || !isCloud(found.metadata.labels)) return;
  const containers = found.spec?.template.spec.containers ?? [];
  if (!containers.some(namesDatabase)) return;
  throw new AppError("conflict", `the cloud server in namespace ${namespace} has a database, and this names none`, {
    hint: "name it again, with --database-url-file or --secret; or begin anew after `telepresence cloud uninstall`",
  });
}

async function refuseStranger(kube: Kube, object: Manifest, signal: AbortSignal): Promise<void> {
  const { namespace, name } = object.metadata;
  const found = await unlessForbidden(kube.find(kindOf(object), { namespace, name }, signal));
  if (found === undefined || isCloud(found.metadata.labels)) return;
  throw new AppError("conflict", `${object.kind} ${name} in namespace ${namespace} is somebody else's`, {
    hint: "choose another namespace with --cloud-namespace",
  });
}

/** chosen: a volume may be made first. */
const readyMs = 180_000;

/** Resolves when a pod of this revision answers; those of an earlier one may still be there. */
export async function waitForCloud(
  kube: Kube,
  { namespace, signal, onProgress }: CloudPlace,
  revision: string,
): Promise<void> {
  const patience = new Patience();
  using limit = new WaitLimit({ clock: kube.clock, ms: readyMs, what: "waiting for the cloud server" }, signal);
  onProgress("waiting for the cloud server");
  await waitFor(kube, {
    watched: { pods: { kind: pods, query: { namespace, labelSelector: selectorText } } },
    evaluate: (sets) => {
      const isOfThis = ({ metadata }: Pod): boolean => metadata.annotations?.[revisionAnnotation] === revision;
      const live = (sets.pods as readonly Pod[]).filter((pod) => isLive(pod) && isOfThis(pod));
      if (live.some(isReady)) return true;
      const problem = findProblem(...live);
      if (problem !== undefined && patience.isOver(problem, kube.clock.now(), false)) {
        throw new AppError("manager_failed", `the cloud server does not come up: ${problem.text}`, {
          hint: `kubectl logs -n ${namespace} deployment/${cloudName}`,
        });
      }
      return undefined;
    },
    signal: limit.signal,
  });
}

export interface RemovedCloud {
  readonly removed: readonly string[];
  /** What was left and why, one sentence each. */
  readonly notes: readonly string[];
}

/** Of stored data only when that is wanted. */
export async function removeCloud(kube: Kube, place: CloudPlace, deleteData: boolean): Promise<RemovedCloud> {
  const { namespace, signal } = place;
  const removed: string[] = [];
  const notes: string[] = [];
  let isDataKept = false;
  for (const kind of kinds) {
    if (kind === persistentVolumeClaims && !deleteData) {
      const kept = await unlessForbidden(kube.find(kind, { namespace, name: cloudName }, signal));
      if (kept !== undefined && isCloud(kept.metadata.labels)) {
        isDataKept = true;
        notes.push(
          `PersistentVolumeClaim ${cloudName} was left with what people have stored; --delete-data removes it`,
        );
      }
      continue;
    }
    if (await removeOne(kube, kind, place)) removed.push(`${kind.kind} ${cloudName} in namespace ${namespace} removed`);
  }
  await waitForEnd(kube, place);
  // with the namespace would go a traffic-manager that stands there too, and the volume
  const isGoing: IsGoing = (labels, plural) =>
    isCloud(labels) && (deleteData || plural !== persistentVolumeClaims.plural);
  const note = isDataKept ? undefined : await removeNamespace(kube, namespace, isGoing, signal);
  if (note !== undefined) notes.push(note);
  return { removed, notes };
}

async function removeOne(kube: Kube, kind: Resource<KubeObject>, { namespace, signal }: CloudPlace): Promise<boolean> {
  const found = await unlessForbidden(kube.find(kind, { namespace, name: cloudName }, signal));
  if (found === undefined || !isCloud(found.metadata.labels)) return false;
  return kube.delete(kind, { namespace, name: cloudName, uid: found.metadata.uid }, signal);
}

/** chosen: its requests have ten seconds. */
const goneMs = 30_000;

async function waitForEnd(kube: Kube, { namespace, signal }: CloudPlace): Promise<void> {
  using limit = new WaitLimit({ clock: kube.clock, ms: goneMs, what: "waiting for the cloud server's end" }, signal);
  try {
    await waitFor(kube, {
      watched: { pods: { kind: pods, query: { namespace, labelSelector: selectorText }, optional: true } },
      evaluate: (sets) => (sets.pods.length === 0 ? true : undefined),
      signal: limit.signal,
    });
  } catch (error) {
    if (!isAppError(error, "timeout") || signal.aborted) throw error;
  }
}

async function unlessForbidden<T>(promise: Promise<T>): Promise<T | undefined> {
  return await promise.catch((error: unknown) => {
    if (isMissingPermission(error)) return undefined;
    throw error;
  });
}
