// The traffic-manager in a real cluster: found, installed where the user may, waited for, removed.
// Namespaces in order: the flag, the kubeconfig's extension, `telepresence`, the connection's own (DESIGN 3).
import { deadline } from "#base/abort.ts";
import { AppError, isAppError, toAppError } from "#base/error.ts";
import { softwareVersion } from "#base/version.ts";
import type { Kube } from "#kube/client.ts";
import { waitFor } from "#kube/live-set.ts";
import type { Namespace, ObjectMeta, Pod, Workload } from "#kube/objects.ts";
import { mayForward } from "#kube/streams/port-forward.ts";
import { deployments, namespaces, pods } from "#kube/objects.ts";
import { isLive } from "#kube/workloads/pod-problems.ts";
import { isMissingPermission } from "#kube/status.ts";
import type { ImageChoice } from "./agent-container.ts";
import { waitForManager } from "./manager-wait.ts";
import { buildManager } from "./manifest.ts";
import { createdNamespaceLabel, isOurs, managerName, managerSelector, managerSelectorText } from "./marks.ts";
import { ensureDirectService, removeDirectService } from "./direct-service.ts";
import { listNodeIps, removeNodeList } from "./node-list.ts";

export type Progress = (text: string) => void;

export const defaultManagerNamespace = "telepresence";

export interface EnsureManagerOptions {
  /** `--manager-namespace`; only this namespace is tried. */
  readonly namespace?: string | undefined;
  readonly image: ImageChoice;
  readonly env?: Readonly<Record<string, string>>;
  /** How its direct port is made reachable (direct-service.ts); as it is when left out. */
  readonly direct?: string | undefined;
  readonly onProgress: Progress;
  readonly signal: AbortSignal;
  /** Whole wait for readiness; default 2 minutes. */
  readonly timeoutMs?: number;
}

export interface ManagerPlace {
  readonly namespace: string;
  /** A pod that is ready for port-forward, which kubelet may not know yet. */
  readonly podName: string;
  readonly podUid: string;
  /** Version of the installed manager, where it can be seen. */
  readonly version: string | undefined;
  /** True when this call installed it. */
  readonly installed: boolean;
  readonly warnings: readonly string[];
}

const namespaceGoneMs = 60_000;
const podsGoneMs = 20_000;

interface Candidates {
  readonly names: readonly string[];
  /** The user named it: no other will do. */
  readonly explicit: boolean;
}

export function managerNamespaces(kube: Kube, flag: string | undefined): Candidates {
  const named = flag ?? kube.target.extension.managerNamespace;
  if (named !== undefined && named !== "") return { names: [named], explicit: true };
  return { names: [...new Set([defaultManagerNamespace, kube.namespace])], explicit: false };
}

/** Finds the manager or installs it, and waits until a pod of it is ready. */
export async function ensureManager(kube: Kube, options: EnsureManagerOptions): Promise<ManagerPlace> {
  const candidates = managerNamespaces(kube, options.namespace);
  const found = await findManager(kube, candidates, options.signal);
  if (found !== undefined) {
    const pod = await waitForManager(kube, found.namespace, options);
    if (options.direct !== undefined) {
      await ensureDirectService(kube, found.namespace, options.direct, options.signal);
    }
    return {
      ...describePod(pod, found.namespace),
      version: found.version,
      installed: false,
      warnings: skewWarnings(found),
    };
  }
  const { namespace, created, warnings } = await install(kube, candidates, options);
  try {
    if (options.direct !== undefined) await ensureDirectService(kube, namespace, options.direct, options.signal);
    const pod = await waitForManager(kube, namespace, options);
    return { ...describePod(pod, namespace), version: softwareVersion, installed: true, warnings };
  } catch (error) {
    if (created) await undoInstall(kube, namespace, options.onProgress); // another laptop's is not ours to remove
    throw error;
  }
}

/** chosen: the caller may have given up already, and what we put there must go all the same. */
const undoMs = 15_000;

/** A manager that never came up would be found, and waited for, by every later `connect`. */
async function undoInstall(kube: Kube, namespace: string, onProgress: Progress): Promise<void> {
  using limit = deadline(kube.clock, undoMs, `removing the traffic-manager from namespace ${namespace}`);
  try {
    await removeManager(kube, { namespace, signal: limit.signal });
    onProgress(`removed the traffic-manager from namespace ${namespace} again`);
  } catch (error) {
    onProgress(`the traffic-manager stays in namespace ${namespace}: ${toAppError(error).message}`);
  }
}

interface FoundManager {
  readonly namespace: string;
  readonly version: string | undefined;
}

/** The first candidate that has a manager; a namespace that we may not look into counts as without. */
export async function findManager(
  kube: Kube,
  candidates: Candidates,
  signal: AbortSignal,
): Promise<FoundManager | undefined> {
  for (const namespace of candidates.names) {
    const found = await findIn(kube, namespace, signal);
    if (found === undefined) continue;
    if (candidates.names.at(-1) === namespace || (await mayForward(kube, namespace, signal))) return found;
  }
  return undefined;
}

async function findIn(kube: Kube, namespace: string, signal: AbortSignal): Promise<FoundManager | undefined> {
  try {
    const deployment = await kube.find(deployments, { namespace, name: managerName }, signal);
    if (deployment === undefined) return undefined;
    refuseStranger(deployment, namespace);
    return { namespace, version: versionOf(deployment) };
  } catch (error) {
    if (!isMissingPermission(error)) throw error;
  }
  // A small Role may hold pods and port-forward only. Not asked otherwise: pods outlive their deployment by a moment.
  const listed = await unlessForbidden(kube.list(pods, { namespace, labelSelector: managerSelectorText }, signal));
  const pod = listed?.items.find(isLive);
  return pod === undefined ? undefined : { namespace, version: versionOf(pod) };
}

function versionOf(object: Workload | Pod): string | undefined {
  return object.metadata.labels?.["app.kubernetes.io/version"];
}

function refuseStranger(deployment: Workload, namespace: string): void {
  if (isOurs(deployment.metadata)) return;
  throw new AppError(
    "manager_failed",
    `deployment ${managerName} in namespace ${namespace} is not this product's (another Telepresence?)`,
    { hint: "choose another namespace with --manager-namespace, or uninstall the other" },
  );
}

async function unlessForbidden<T>(promise: Promise<T>): Promise<T | undefined> {
  return await promise.catch((error: unknown) => {
    if (isMissingPermission(error)) return undefined;
    throw error;
  });
}

function skewWarnings({ namespace, version }: FoundManager): readonly string[] {
  if (version === undefined || version === softwareVersion) return [];
  return [
    `the traffic-manager in namespace ${namespace} has version ${version}, this is ${softwareVersion}; it is shared, so it is left as it is (\`telepresence uninstall --everything\`, then connect, replaces it)`,
  ];
}

async function install(
  kube: Kube,
  candidates: Candidates,
  options: EnsureManagerOptions,
): Promise<{ readonly namespace: string; readonly created: boolean; readonly warnings: readonly string[] }> {
  const nodeIps = await listNodeIps(kube, options.signal);
  const env = { ...options.env, TELEPRESENCE_OTHER_NODE_IPS: nodeIps.join(",") };
  let refusal: AppError | undefined;
  for (const namespace of candidates.names) {
    try {
      const created = await installIn(kube, namespace, { ...options, env });
      return { namespace, created, warnings: refusal === undefined ? [] : [describeFallback(namespace, refusal)] };
    } catch (error) {
      if (!isMissingPermission(error)) throw error;
      refusal ??= error as AppError;
    }
  }
  const [first] = candidates.names; // where an administrator puts it
  if (first !== undefined && (await isHidden(kube, first, options.signal))) throw cannotSee(first, refusal);
  throw cannotInstall(refusal);
}

/** Whether a manager in this namespace would be found: one that is there must not be called missing. */
async function isHidden(kube: Kube, namespace: string, signal: AbortSignal): Promise<boolean> {
  const questions = [
    kube.find(deployments, { namespace, name: managerName }, signal),
    kube.list(pods, { namespace, labelSelector: managerSelectorText }, signal),
  ];
  const answers = await Promise.all(questions.map((question) => unlessForbidden(question.then(() => "seen"))));
  return answers.every((answer) => answer === undefined);
}

function cannotSee(namespace: string, refusal: AppError | undefined): AppError {
  const why = refusal === undefined ? "" : `, and none can be installed: ${refusal.message}`;
  const toInstall = refusal?.hint === undefined ? "" : `; to install one: ${refusal.hint}`;
  return new AppError(
    "forbidden",
    `whether namespace ${namespace} has a traffic-manager cannot be seen by this user${why}`,
    {
      cause: refusal,
      hint: `if it has one, ask the cluster's administrator for \`list\` on pods and deployments, and \`get\` and \`create\` on pods/portforward, in namespace ${namespace}; if another has it, name that with --manager-namespace${toInstall}`,
      fields: refusal?.fields ?? {},
    },
  );
}

function describeFallback(namespace: string, refusal: AppError): string {
  return `the traffic-manager was installed in namespace ${namespace}, because ${refusal.message}`;
}

function cannotInstall(refusal: AppError | undefined): AppError {
  const why = refusal?.message ?? "there is no namespace for it";
  return new AppError("forbidden", `the traffic-manager is missing and cannot be installed: ${why}`, {
    cause: refusal,
    hint: refusal?.hint ?? "ask the cluster's administrator to install it",
    fields: refusal?.fields ?? {},
  });
}

/** False when another laptop was faster. */
async function installIn(kube: Kube, namespace: string, options: EnsureManagerOptions): Promise<boolean> {
  const { image, env = {}, signal, onProgress } = options;
  const manifest = buildManager({ namespace, image, version: softwareVersion, env });
  using limit = deadline(
    kube.clock,
    namespaceGoneMs,
    `installing the traffic-manager in namespace ${namespace}`,
    signal,
  );
  for (;;) {
    try {
      await kube.create(deployments, manifest, limit.signal);
      onProgress(`installed the traffic-manager in namespace ${namespace}`);
      return true;
    } catch (error) {
      if (isAppError(error, "conflict")) {
        await findIn(kube, namespace, limit.signal); // its manager is as good, if it is one
        return false;
      }
      if (isBeingRemoved(error)) {
        onProgress(`namespace ${namespace} is still being removed`);
        await kube.clock.sleep(500, limit.signal);
      } else if (isAppError(error, "not_found")) await createNamespace(kube, namespace, limit.signal);
      else throw error;
    }
  }
}

function isBeingRemoved(error: unknown): boolean {
  if (!isAppError(error)) return false;
  const causes = error.fields["causes"];
  return (Array.isArray(causes) && causes.includes("NamespaceTerminating")) || /being terminated/.test(error.message);
}

export async function createNamespace(kube: Kube, name: string, signal: AbortSignal): Promise<void> {
  const namespace: Namespace & { readonly apiVersion: string; readonly kind: string } = {
    apiVersion: "v1",
    kind: "Namespace",
    metadata: {
      name,
      labels: {
        "app.kubernetes.io/managed-by": "telepresence",
        [createdNamespaceLabel]: "true",
        "pod-security.kubernetes.io/enforce": "restricted",
      },
    },
  };
  await kube.create(namespaces, namespace, signal).catch((error: unknown) => {
    if (!isAppError(error, "conflict")) throw error; // another laptop made it
  });
}

function describePod(pod: Pod, namespace: string): Pick<ManagerPlace, "namespace" | "podName" | "podUid"> {
  return { namespace, podName: pod.metadata.name ?? "", podUid: pod.metadata.uid ?? "" };
}

export interface RemovedManager {
  readonly namespaces: readonly string[];
  /** What was left and why, one sentence each. */
  readonly notes: readonly string[];
}

/** Removes the manager, and the namespace when we created it and nobody else uses it. */
export async function removeManager(
  kube: Kube,
  options: { readonly namespace?: string | undefined; readonly signal: AbortSignal },
): Promise<RemovedManager> {
  const { signal } = options;
  const removed: string[] = [];
  const notes: string[] = [];
  for (const namespace of managerNamespaces(kube, options.namespace).names) {
    const deployment = await unlessForbidden(kube.find(deployments, { namespace, name: managerName }, signal));
    if (deployment !== undefined && isOurs(deployment.metadata)) {
      await kube.delete(deployments, { namespace, name: managerName, uid: deployment.metadata.uid }, signal);
      removed.push(namespace);
      const left = await waitForEnd(kube, namespace, signal);
      if (left !== undefined) notes.push(left);
    }
    await removeNodeList(kube, namespace, signal);
    await removeDirectService(kube, namespace, signal);
    const note = await removeNamespace(kube, namespace, isManagers, signal);
    if (note !== undefined) notes.push(note);
  }
  return { namespaces: removed, notes };
}

/** Until the manager's pods are gone, so that what is said to be removed is. Answers what is left after a while. */
async function waitForEnd(kube: Kube, namespace: string, signal: AbortSignal): Promise<string | undefined> {
  using limit = deadline(kube.clock, podsGoneMs, "waiting for the traffic-manager's end", signal);
  try {
    await waitFor(kube, {
      watched: { pods: { kind: pods, query: { namespace, labelSelector: managerSelectorText }, optional: true } },
      evaluate: (sets) => (sets.pods.length === 0 ? true : undefined),
      signal: limit.signal,
    });
    return undefined;
  } catch (error) {
    if (!isAppError(error, "timeout") || signal.aborted) throw error;
    return `the traffic-manager's pod in namespace ${namespace} is still ending`;
  }
}

/** Kinds that mean somebody uses the namespace; what Kubernetes puts there by itself is left out below. */
const ownedKinds: readonly (readonly [group: string, plural: string])[] = [
  ["", "pods"],
  ["", "services"],
  ["", "configmaps"],
  ["", "secrets"],
  ["", "serviceaccounts"],
  ["", "persistentvolumeclaims"],
  ["apps", "deployments"],
  ["apps", "statefulsets"],
  ["apps", "daemonsets"],
  ["apps", "replicasets"],
  ["batch", "jobs"],
  ["batch", "cronjobs"],
];

/** Whether an object is of what was just removed, and goes by itself. */
export type IsGoing = (labels: ObjectMeta["labels"], plural: string) => boolean;

/** One that we made, when nobody else uses it; otherwise says why it was left. */
export async function removeNamespace(
  kube: Kube,
  name: string,
  isGoing: IsGoing,
  signal: AbortSignal,
): Promise<string | undefined> {
  const namespace = await unlessForbidden(kube.find(namespaces, { name }, signal));
  if (namespace?.metadata.labels?.[createdNamespaceLabel] !== "true") return undefined;
  if (namespace.metadata.deletionTimestamp !== undefined) return undefined;
  const foreign = await findForeign(kube, name, isGoing, signal);
  if (foreign !== undefined) return `namespace ${name} was left: ${foreign}`;
  try {
    await kube.delete(namespaces, { name, uid: namespace.metadata.uid }, signal);
    return undefined;
  } catch (error) {
    if (!isMissingPermission(error)) throw error;
    return `namespace ${name} was left: ${(error as AppError).message}`;
  }
}

async function findForeign(
  kube: Kube,
  namespace: string,
  isGoing: IsGoing,
  signal: AbortSignal,
): Promise<string | undefined> {
  for (const [group, plural] of ownedKinds) {
    const kind = { group, version: "v1", plural, kind: plural, namespaced: true };
    try {
      const { items } = await kube.list(kind, { namespace }, signal);
      const other = items.find(
        (item) => !isGoing(item.metadata.labels, plural) && !isBuiltIn(plural, item.metadata.name ?? ""),
      );
      if (other !== undefined)
        return `it holds ${plural.replace(/s$/, "")} ${other.metadata.name ?? ""}, which is not ours`;
    } catch (error) {
      if (isMissingPermission(error)) return `whether it is empty cannot be seen (${(error as AppError).message})`;
      if (!isAppError(error, "not_found")) throw error;
    }
  }
  return undefined;
}

function isManagers(labels: ObjectMeta["labels"]): boolean {
  return Object.entries(managerSelector).every(([key, value]) => labels?.[key] === value);
}

function isBuiltIn(plural: string, name: string): boolean {
  if (plural === "configmaps") return name === "kube-root-ca.crt" || name === "openshift-service-ca.crt";
  if (plural === "serviceaccounts") return name === "default";
  return plural === "secrets" && /^default-(token|dockercfg)-/.test(name);
}
