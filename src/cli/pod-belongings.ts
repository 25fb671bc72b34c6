// What a command is given of a pod, for a program on this laptop: the flags that ask for it, the variables that say
// where it is from, and the files that hold it.
import { resolve } from "node:path";
import { AppError } from "#base/error.ts";
import type { WorkloadRef } from "#wire/manager-api.ts";
import type { PodPort } from "#wire/pod-port.ts";
import type { CommandContext } from "./context.ts";
import { checkPrivateFile, writePrivateFile } from "./environment-file.ts";
import { formatEnvironment, readEnvironmentSyntax, withoutNames, type Environment } from "./environment-syntax.ts";
import { podPortWarnings, readPodPorts } from "./flags/pod-port-flags.ts";
import { readVolumeWish, type VolumeFlags, type VolumeWish } from "./flags/volume-flags.ts";

export interface BelongingsFlags extends VolumeFlags {
  readonly container?: string;
  readonly envFile?: string;
  readonly envJson?: string;
  readonly envSyntax?: string;
  readonly envExclude?: readonly string[];
  readonly detailedOutput?: boolean;
  readonly toPod?: readonly string[];
}

/** Where the container's volumes are on this laptop, and which. */
export interface Volumes {
  readonly root: string;
  readonly mounts: readonly string[];
}

export interface Belongings {
  /** Of the container, and what tells a program in whose place it is. */
  readonly environment: Environment | undefined;
  readonly volumes: Volumes | undefined;
}

interface PodWants {
  readonly wantEnvironment: boolean;
  readonly volumes: VolumeWish | undefined;
  readonly toPod: PodPort[] | undefined;
}

/** Warnings; throws what cannot be done, before anything is started. */
export function checkBelongingsFlags(flags: BelongingsFlags, localPorts?: readonly string[]): readonly string[] {
  readEnvironmentSyntax(flags.envSyntax);
  readVolumeWish(flags, "/");
  return podPortWarnings(readPodPorts(flags.toPod, localPorts));
}

/** Throws where a file or folder that was asked for cannot be, before anything is started. */
export async function checkBelongingsPlaces(flags: BelongingsFlags, cwd: string): Promise<void> {
  for (const path of [flags.envFile, flags.envJson]) {
    if (path !== undefined) await checkPrivateFile(resolve(cwd, path));
  }
  const { path } = readVolumeWish(flags, cwd) ?? {};
  if (path === undefined) return;
  const { checkChosenFolder } = await import("#host/volume-folder.ts");
  checkChosenFolder(path);
}

/** For scripts, where it was asked for; without an envelope by `--detailed-output`. */
export function reportDetail(output: CommandContext["output"], flags: BelongingsFlags, detail: unknown): void {
  if (flags.detailedOutput === true) output.data(detail, { bare: true });
  else if (output.mode.kind === "object") output.data(detail);
}

/** As the daemon is asked; `owned`: a command runs with it. */
export function readPodWants(flags: BelongingsFlags, cwd: string, owned: boolean): PodWants {
  const { envFile, envJson, detailedOutput } = flags;
  const toPod = readPodPorts(flags.toPod);
  return {
    wantEnvironment: owned || envFile !== undefined || envJson !== undefined || detailedOutput === true,
    volumes: readVolumeWish(flags, cwd),
    toPod: toPod.length === 0 ? undefined : toPod,
  };
}

/** What tells a program in whose place it is. */
export function tellProgram(containerName: string, volumes: Volumes | undefined): Environment {
  return {
    TELEPRESENCE_CONTAINER: containerName,
    ...(volumes === undefined
      ? {}
      : { TELEPRESENCE_ROOT: volumes.root, TELEPRESENCE_MOUNTS: volumes.mounts.join(":") }),
  };
}

/** Less what the user does not want, and with what tells a program where it is. */
export function completeEnvironment(
  environment: Environment | undefined,
  told: Environment,
  { envExclude = [] }: BelongingsFlags,
): Environment | undefined {
  return environment && { ...withoutNames(environment, envExclude), ...told };
}

export async function writeEnvironmentFiles(
  context: CommandContext,
  { environment, workload }: { readonly environment: Environment | undefined; readonly workload: WorkloadRef },
  { envFile, envJson, envSyntax }: BelongingsFlags,
): Promise<void> {
  if (envFile === undefined && envJson === undefined) return;
  if (environment === undefined) {
    const subject = `the environment of ${workload.kind} ${workload.name}`;
    throw new AppError("forbidden", `${subject} could not be read, so no file was written`, {
      hint: "leave out --env-file and --env-json, or ask for the right to `pods/exec`",
    });
  }
  const { cwd } = context.environment;
  const syntax = readEnvironmentSyntax(envSyntax);
  const { text, leftOut } = formatEnvironment(environment, syntax);
  if (envFile !== undefined && leftOut.length > 0) {
    context.output.warn(`${envFile} lacks ${leftOut.join(", ")}, which --env-syntax ${syntax} cannot express`);
  }
  if (envFile !== undefined) await writePrivateFile(resolve(cwd, envFile), text);
  if (envJson !== undefined) await writePrivateFile(resolve(cwd, envJson), formatEnvironment(environment, "json").text);
}
