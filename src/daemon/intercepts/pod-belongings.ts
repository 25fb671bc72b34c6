// What a laptop's process is given of the pod in whose place it answers: its environment and its volumes. An intercept
// goes on without what may not be read, and says so; what was asked for by name has to come.
import { toAppError } from "#base/error.ts";
import type { InterceptSpec } from "#wire/manager-api.ts";
import type { CopiedVolumes, VolumeWish } from "#daemon/volumes/volume-copies.ts";
import type { PodPorts } from "#daemon/pod-ports/pod-ports.ts";
import type { Progress, WorkloadAccess } from "./workload-access.ts";
import type { WorkloadFollower } from "./workload-follower.ts";

export interface PodWants {
  readonly environment: boolean;
  /** Nothing is copied when left out. */
  readonly volumes?: VolumeWish | undefined;
  /** Taken already, and led nowhere yet. */
  readonly ports: PodPorts;
}

export interface Belongings {
  readonly environment?: Readonly<Record<string, string>>;
  readonly volumes?: CopiedVolumes | undefined;
  readonly warnings: readonly string[];
}

/** As the CLI is told. */
export interface GivenBelongings {
  readonly environment?: Record<string, string>;
  readonly volumes?: { root: string; mounts: string[] };
}

export function toGiven({ environment, volumes }: Pick<Belongings, "environment" | "volumes">): GivenBelongings {
  return {
    ...(environment === undefined ? {} : { environment: { ...environment } }),
    ...(volumes === undefined ? {} : { volumes: { root: volumes.root, mounts: [...volumes.mounts] } }),
  };
}

interface Reading {
  readonly access: WorkloadAccess;
  readonly spec: Pick<InterceptSpec, "name" | "workload" | "containerName">;
  readonly follower: Pick<WorkloadFollower, "somePod">;
  readonly wants: PodWants;
  /** Of a container that has been replaced: what it had said of its environment. */
  readonly before?: Readonly<Record<string, string>> | undefined;
  /** It is all that is wanted of the pod: what cannot be read at all is an error. */
  readonly insists?: boolean;
  readonly progress: Progress;
}

export async function readBelongings(reading: Reading, signal: AbortSignal): Promise<Belongings> {
  const { spec, follower, wants } = reading;
  wants.ports.lead({ namespace: spec.workload.namespace, pod: () => follower.somePod });
  const [volumes, environment] = await together(copyVolumes(reading, signal), readEnvironment(reading, signal), signal);
  return { ...environment, ...volumes, warnings: [...environment.warnings, ...volumes.warnings] };
}

/** Both, or neither: copies outlive neither the failure of what was done beside them, nor who waited for them. */
export async function together<T>(
  first: Promise<Belongings>,
  second: Promise<T>,
  signal: AbortSignal,
): Promise<readonly [Belongings, T]> {
  const [copied, other] = await Promise.allSettled([first, second]);
  if (copied.status === "rejected") throw copied.reason;
  if (other.status === "fulfilled" && !signal.aborted) return [copied.value, other.value];
  await copied.value.volumes?.[Symbol.asyncDispose]();
  throw other.status === "rejected" ? other.reason : signal.reason;
}

async function readEnvironment(reading: Reading, signal: AbortSignal): Promise<Belongings> {
  const { access, spec, follower, wants, before, insists = false } = reading;
  if (!wants.environment) return { warnings: [] };
  const pod = follower.somePod;
  if (pod === undefined) return { warnings: ["the environment could not be read: no pod's agent is running"] };
  try {
    const { workload, containerName } = spec;
    const place = { namespace: workload.namespace, pod, containerName };
    const { values, warnings } = await access.readEnvironment(place, signal, before);
    return { environment: values, warnings };
  } catch (error) {
    if (signal.aborted || insists) throw error;
    return { warnings: [`the pod's environment could not be read: ${describe(error)}`] };
  }
}

async function copyVolumes(reading: Reading, signal: AbortSignal): Promise<Belongings> {
  const { access, spec, follower, wants, insists = false, progress } = reading;
  if (wants.volumes === undefined) return { warnings: [] };
  if (follower.somePod === undefined)
    return { warnings: ["the volumes could not be copied: no pod's agent is running"] };
  const { name, workload, containerName } = spec;
  const target = { interceptName: name, namespace: workload.namespace, containerName, pod: () => follower.somePod };
  try {
    const volumes = await access.copyVolumes(target, wants.volumes, progress, signal);
    return { volumes, warnings: volumes?.warnings ?? [] };
  } catch (error) {
    const named = wants.volumes.path !== undefined || wants.volumes.copy.length > 0;
    if (signal.aborted || named || insists) throw error;
    return { warnings: [`the pod's volumes could not be copied: ${describe(error)}`] };
  }
}

function describe(error: unknown): string {
  const { message, hint } = toAppError(error);
  return hint === undefined ? message : `${message}; ${hint}`;
}
