// A CronJob whose container a laptop's process replaces (DESIGN 17). Nothing runs of it between two runs, and a change of
// its template would make a stand-in of every run to come, so the template stays as it is: its schedule rests, and one
// Job of our own, of its template with a stand-in, runs instead. What the schedule did before stands in an annotation.
// Invariants: what is undone is written down first; only a `suspend` that is still ours is taken back.
import { randomBytes } from "node:crypto";
import { deadline } from "#base/abort.ts";
import { AppError, isAppError } from "#base/error.ts";
import type { Kube } from "#kube/client.ts";
import type { CronJob, Workload } from "#kube/objects.ts";
import { cronJobs, jobs } from "#kube/objects.ts";
import { isLive } from "#kube/workloads/pod-problems.ts";
import { listWorkloadPods } from "#kube/workloads/workload-pods.ts";
import type { FoundWorkload } from "#kube/workloads/workloads.ts";
import { describeWorkload, readCronJob, standInLabel, whyEnded } from "#kube/workloads/workloads.ts";
import type { WorkloadRef } from "#wire/manager-api.ts";
import { coversPorts, readAgentConfig } from "./agent.ts";
import { replacedAnnotation } from "./marks.ts";
import type { ReplacementRecord } from "./replacement.ts";
import { readReplacement, refuseOthers, replacementOf } from "./replacement.ts";
import type { InjectRequest, InjectResult } from "./rollout.ts";
import { waitForRollout } from "./rollout-wait.ts";

/** chosen: its own name's beginning; Kubernetes takes 63 letters. */
const nameLength = 44;
const standInMs = 180_000;
/** chosen: an API server under load answers in this time. */
const createMs = 10_000;
const maxConflicts = 10;

type ReplaceRequest = InjectRequest & { readonly replace: NonNullable<InjectRequest["replace"]> };

/** Has the schedule rest and a Job with a stand-in run; `plan` puts agent and stand-in into a template. */
export async function replaceCronJob(
  kube: Kube,
  request: ReplaceRequest,
  plan: (current: Workload) => Workload,
): Promise<InjectResult> {
  const { workload: ref, replace, signal, onProgress } = request;
  const what = describeWorkload(ref);
  const cronJob = await getCronJob(kube, ref, signal);
  const present = readReplacement(cronJob);
  if (present !== undefined) refuseOthers(present, { ...replace, what });
  const planned = plan(readCronJob(cronJob));
  const config = readAgentConfig(planned.spec.template.spec);
  if (config === undefined) throw new AppError("internal", `the template of ${what} was given no traffic-agent`);
  // Without the record nobody would give the schedule back: then it begins anew.
  const stands = (job: Workload): boolean => isRunning(job) && coversPorts(job, request.needed);
  const standIns = await listStandIns(kube, cronJob, signal);
  // Where somebody has taken the record away, the other's process goes on, and his job says whose it is.
  for (const { spec } of standIns.filter(isRunning)) {
    const record = readReplacement(spec.template);
    if (record !== undefined) refuseOthers(record, { ...replace, what });
  }
  const running = present === undefined ? undefined : standIns.find(stands);
  if (running === undefined) {
    await rest(kube, ref, { ...replace, what }, signal);
    await removeStandIns(kube, cronJob, signal); // of a daemon that was killed
  }
  const job = running ?? (await createStandIn(kube, standInJob(cronJob, planned), signal));
  const name = job.metadata.name ?? "";
  if (running === undefined) onProgress(`the schedule of ${what} rests; job ${name} stands in for it`);
  await waitForRollout(kube, {
    ref: { kind: "Job", name, namespace: ref.namespace },
    object: { ...job, metadata: { ...job.metadata, generation: 0 } }, // its status names none
    isNew: () => true,
    stillWanted: () => true,
    what: `starting the stand-in of ${what}`,
    onProgress,
    signal,
    timeoutMs: request.timeoutMs ?? standInMs,
  });
  return {
    changed: running === undefined,
    replaced: 0,
    config,
    warnings: await warnOfRuns(kube, ref, cronJob, signal),
  };
}

/**
 * Gives it its schedule back, if `isMine`, and ends what stands in for it, also where somebody's `kubectl replace` has taken
 * the record away. False when there is nothing of that.
 */
export async function restoreCronJob(
  kube: Kube,
  ref: WorkloadRef,
  isMine: (record: ReplacementRecord) => boolean,
  signal: AbortSignal,
): Promise<boolean> {
  let found = false;
  await update(kube, ref, signal, async (cronJob) => {
    const record = readReplacement(cronJob);
    if (record === undefined) {
      if (await removeStandIns(kube, cronJob, signal, isMine)) found = true;
      return undefined;
    }
    if (!isMine(record)) return undefined;
    found = true;
    await removeStandIns(kube, cronJob, signal);
    const isOurs = cronJob.spec.suspend === record.ours["suspend"];
    return { record: null, suspend: isOurs ? record.before["suspend"] : cronJob.spec.suspend };
  });
  return found;
}

interface Resting extends Pick<ReplacementRecord, "by" | "installId"> {
  readonly containerName: string;
  readonly what: string;
}

async function rest(kube: Kube, ref: WorkloadRef, resting: Resting, signal: AbortSignal): Promise<void> {
  const { containerName: container, by, installId } = resting;
  await update(kube, ref, signal, (cronJob) => {
    const present = readReplacement(cronJob);
    if (present !== undefined) {
      refuseOthers(present, resting);
      return undefined;
    }
    const before = { suspend: cronJob.spec.suspend ?? false };
    const record: ReplacementRecord = { container, by, installId, before, ours: { suspend: true } };
    return { record: JSON.stringify(record), suspend: true };
  });
}

interface Change {
  /** Of the annotation; null takes it away. */
  readonly record: string | null;
  readonly suspend: unknown;
}

/** Changes what `decide` says of the current object; undefined leaves it. */
async function update(
  kube: Kube,
  ref: WorkloadRef,
  signal: AbortSignal,
  decide: (current: CronJob) => Change | undefined | Promise<Change | undefined>,
): Promise<void> {
  for (let attempt = 0; ; attempt += 1) {
    const current = await getCronJob(kube, ref, signal);
    const change = await decide(current);
    if (change === undefined) return;
    const { resourceVersion } = current.metadata;
    const metadata = { resourceVersion, annotations: { [replacedAnnotation]: change.record } };
    try {
      await kube.patch(cronJobs, ref, { metadata, spec: { suspend: change.suspend } }, signal);
      return;
    } catch (error) {
      if (!isAppError(error, "conflict") || attempt >= maxConflicts) throw error;
      await kube.clock.sleep(20 * 2 ** Math.min(attempt, 5), signal);
    }
  }
}

async function getCronJob(kube: Kube, ref: WorkloadRef, signal: AbortSignal): Promise<CronJob> {
  const found = await kube.find(cronJobs, ref, signal);
  if (found !== undefined) return found;
  const text = `${describeWorkload(ref)} was not found in namespace ${ref.namespace}`;
  throw new AppError("workload_not_found", text, { hint: `see \`telepresence list -n ${ref.namespace}\`` });
}

/** As `kubectl create job --from` makes it: the CronJob owns it, and does not count it among its runs. */
function standInJob({ metadata, spec }: CronJob, planned: Workload): Workload {
  const { name = "", namespace, uid = "" } = metadata;
  const { labels, annotations } = spec.jobTemplate.metadata ?? {};
  const { backoffLimit, completionMode } = spec.jobTemplate.spec;
  return {
    apiVersion: "batch/v1",
    kind: "Job",
    metadata: {
      name: `${name.slice(0, nameLength)}-stand-in-${randomBytes(3).toString("hex")}`,
      ...(namespace === undefined ? {} : { namespace }),
      labels: { ...labels, [standInLabel]: "true" },
      annotations: { ...annotations, "cronjob.kubernetes.io/instantiate": "manual" },
      ownerReferences: [{ apiVersion: "batch/v1", kind: "CronJob", name, uid }],
    },
    spec: {
      ...(backoffLimit === undefined ? {} : { backoffLimit }),
      ...(completionMode === undefined ? {} : { completionMode }),
      template: planned.spec.template,
    },
  };
}

/** Not given up half-way: a Job that comes after its request was given up is not there yet for who takes it back. */
async function createStandIn(kube: Kube, job: Workload, signal: AbortSignal): Promise<Workload> {
  signal.throwIfAborted();
  using limit = deadline(kube.clock, createMs, `creating job ${job.metadata.name}`);
  const created = await kube.create(jobs, job, limit.signal);
  signal.throwIfAborted();
  return created;
}

/**
 * The same workloads, of which a CronJob that somebody took its record from has that of the Job that stands in for it.
 * Who may not list Jobs has them as they are.
 */
export async function withRecords(
  kube: Kube,
  namespace: string | undefined,
  found: readonly FoundWorkload[],
  signal: AbortSignal,
): Promise<readonly FoundWorkload[]> {
  const lacksRecord = (item: FoundWorkload): boolean => item.kind === "CronJob" && replacementOf(item) === undefined;
  if (!found.some(lacksRecord)) return found;
  const query = { namespace, labelSelector: `${standInLabel}=true` };
  const { items } = await kube.list(jobs, query, signal).catch((error: unknown) => {
    if (isAppError(error, "forbidden")) return { items: [] };
    throw error;
  });
  const left = items.filter((job) => job.metadata.deletionTimestamp === undefined);
  return found.map((item) => {
    const standIn = lacksRecord(item) ? left.find((job) => isOwned(job, item.object)) : undefined;
    const record = standIn?.spec.template.metadata?.annotations?.[replacedAnnotation];
    if (record === undefined) return item;
    const { metadata } = item.object;
    const annotations = { ...metadata.annotations, [replacedAnnotation]: record };
    return { ...item, object: { ...item.object, metadata: { ...metadata, annotations } } };
  });
}

async function listStandIns(kube: Kube, cronJob: CronJob, signal: AbortSignal): Promise<readonly Workload[]> {
  const query = { namespace: cronJob.metadata.namespace, labelSelector: `${standInLabel}=true` };
  const { items } = await kube.list(jobs, query, signal);
  return items.filter((job) => isOwned(job, cronJob));
}

function isOwned({ metadata }: Workload, { metadata: { uid } }: Pick<CronJob, "metadata">): boolean {
  return metadata.ownerReferences?.some((owner) => owner.uid === uid) === true;
}

/** Those of these replacements, whose record is on the template of each as well. False when there were none. */
async function removeStandIns(
  kube: Kube,
  cronJob: CronJob,
  signal: AbortSignal,
  isWanted: (record: ReplacementRecord) => boolean = () => true,
): Promise<boolean> {
  const going = (await listStandIns(kube, cronJob, signal)).filter(({ spec }) => {
    const record = readReplacement(spec.template);
    return record === undefined || isWanted(record);
  });
  for (const { metadata } of going) {
    const { namespace, name = "", uid } = metadata;
    await kube.delete(jobs, { namespace, name, uid }, signal);
  }
  return going.length > 0;
}

/** Neither finished, say because its node went away more often than it may be begun anew, nor on its way out. */
function isRunning(job: Workload): boolean {
  return job.metadata.deletionTimestamp === undefined && whyEnded({ kind: "Job", object: job }) === undefined;
}

/** What was begun before goes on to its end. */
async function warnOfRuns(
  kube: Kube,
  ref: WorkloadRef,
  cronJob: CronJob,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const live = (await listWorkloadPods(kube, { ...ref, object: readCronJob(cronJob) }, signal)).filter(isLive);
  const running = live.filter((pod) => readReplacement(pod) === undefined).map(({ metadata }) => metadata.name ?? "");
  if (running.length === 0) return [];
  const what = running.length === 1 ? "a run" : `${running.length} runs`;
  return [
    `${what} of ${describeWorkload(ref)} goes on to its end beside the process in its place: ${running.join(", ")}`,
  ];
}
