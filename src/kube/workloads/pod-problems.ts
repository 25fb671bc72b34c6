// Pure: why a pod does not become ready, in the cluster's own words. `fatal` will not mend itself within a user's
// patience; `waiting` may.
import type { ContainerState, ContainerStatus, Pod } from "#kube/objects.ts";

export interface PodProblem {
  readonly severity: "fatal" | "waiting";
  readonly pod: string;
  readonly container: string | undefined;
  /** Kubernetes' reason, e.g. `ImagePullBackOff`. */
  readonly reason: string;
  /** One clause for people. */
  readonly text: string;
}

export function isReady(pod: Pod): boolean {
  return pod.status?.conditions?.some((item) => item.type === "Ready" && item.status === "True") === true;
}

export function isTerminating(pod: Pod): boolean {
  return pod.metadata.deletionTimestamp !== undefined;
}

/** Live: neither going away nor ended. */
export function isLive(pod: Pod): boolean {
  return !isTerminating(pod) && pod.status?.phase !== "Succeeded" && pod.status?.phase !== "Failed";
}

/** A failed pull is retried by the kubelet; these say that it has been tried or cannot be. */
const imageReasons = new Set([
  "ImagePullBackOff",
  "ErrImageNeverPull",
  "InvalidImageName",
  "ErrImagePull",
  "RegistryUnavailable",
]);
const createReasons = new Set([
  "CreateContainerConfigError",
  "CreateContainerError",
  "RunContainerError",
  "PreCreateHookError",
]);

export function findProblem(...pods: readonly Pod[]): PodProblem | undefined {
  return worst(pods.map(problemOf));
}

function problemOf(pod: Pod): PodProblem | undefined {
  const name = pod.metadata.name ?? "";
  const { initContainerStatuses = [], containerStatuses = [] } = pod.status ?? {};
  const ofContainers = [...initContainerStatuses, ...containerStatuses].map((status) => containerProblem(name, status));
  return worst(ofContainers) ?? scheduleProblem(pod, name) ?? phaseProblem(pod, name);
}

/** The first, but what will not mend itself before what may: somebody's restart must not hide another's crash loop. */
function worst(problems: readonly (PodProblem | undefined)[]): PodProblem | undefined {
  const all = problems.filter((item) => item !== undefined);
  return all.find(({ severity }) => severity === "fatal") ?? all[0];
}

/** The same for one container, which may be an ephemeral one: those never show in a pod's readiness. */
export function findContainerProblem(pod: Pod, container: string): PodProblem | undefined {
  const { initContainerStatuses = [], containerStatuses = [], ephemeralContainerStatuses = [] } = pod.status ?? {};
  const name = pod.metadata.name ?? "";
  const status = [...initContainerStatuses, ...containerStatuses, ...ephemeralContainerStatuses].find(
    (item) => item.name === container,
  );
  return status === undefined ? undefined : containerProblem(name, status);
}

function containerProblem(pod: string, status: ContainerStatus): PodProblem | undefined {
  return imageProblem(pod, status) ?? createProblem(pod, status) ?? crashProblem(pod, status);
}

function scheduleProblem(pod: Pod, name: string): PodProblem | undefined {
  const scheduled = pod.status?.conditions?.find((item) => item.type === "PodScheduled");
  if (scheduled?.status !== "False") return undefined;
  const reason = scheduled.reason ?? "Unschedulable";
  const text = `pod ${name} finds no node: ${oneLine(scheduled.message ?? reason)}`;
  return { severity: "waiting", pod: name, container: undefined, reason, text };
}

function phaseProblem(pod: Pod, name: string): PodProblem | undefined {
  if (pod.status?.phase !== "Failed") return undefined;
  const reason = pod.status.reason ?? "Failed";
  const text = `pod ${name} failed: ${oneLine(pod.status.message ?? reason)}`;
  return { severity: "fatal", pod: name, container: undefined, reason, text };
}

function imageProblem(pod: string, { name, image, state }: ContainerStatus): PodProblem | undefined {
  const reason = state?.waiting?.reason ?? "";
  if (!imageReasons.has(reason)) return undefined;
  const text = `image ${image ?? ""} of container ${name} cannot be pulled: ${oneLine(state?.waiting?.message ?? reason)}`;
  // The first failure may be a hiccup; the back-off that follows within seconds says that it was not.
  return { severity: reason === "ErrImagePull" ? "waiting" : "fatal", pod, container: name, reason, text };
}

function createProblem(pod: string, { name, state }: ContainerStatus): PodProblem | undefined {
  const reason = state?.waiting?.reason ?? "";
  if (!createReasons.has(reason)) return undefined;
  const text = `container ${name} of pod ${pod} cannot start: ${oneLine(state?.waiting?.message ?? reason)}`;
  return { severity: "waiting", pod, container: name, reason, text };
}

/** One end is not the last word: a probe may have killed what a busy node was slow to start, and it runs again. */
function crashProblem(pod: string, status: ContainerStatus): PodProblem | undefined {
  const { name, state, lastState, ready, restartCount } = status;
  const ended = state?.terminated ?? lastState?.terminated;
  const what = `container ${name} of pod ${pod}`;
  const common = { pod, container: name, text: `${what} ends again and again${describeExit(ended)}` };
  if (state?.waiting?.reason === "CrashLoopBackOff") {
    return { ...common, severity: "fatal", reason: "CrashLoopBackOff" };
  }
  if (ended === undefined || ended.exitCode === 0 || ready) return undefined;
  return { ...common, severity: "waiting", ...(restartCount > 1 ? { reason: "Error" } : describeOneEnd(what, status)) };
}

function describeOneEnd(what: string, { state, lastState }: ContainerStatus): Pick<PodProblem, "reason" | "text"> {
  const text = `${what} ended${describeExit(state?.terminated ?? lastState?.terminated)}`;
  return state?.running === undefined
    ? { reason: "Error", text }
    : { reason: "Restarted", text: `${text} and was started again` };
}

function describeExit(ended: ContainerState["terminated"]): string {
  if (ended === undefined) return "";
  const said = lastLine(ended.message);
  const memory = ended.reason === "OOMKilled" ? ", out of memory" : "";
  return ` (exit code ${ended.exitCode}${memory})${said === "" ? "" : `: ${said}`}`;
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, " ").trim().slice(0, 600);
}

/** Where a container that says why keeps it: the last line of its termination message (its log's tail). */
function lastLine(text: string | undefined): string {
  return oneLine((text ?? "").trim().split("\n").at(-1) ?? "");
}
