// Files of a container as tar events, by exec: the container's own `tar` sees all that the application sees; where
// there is none, our agent sends what its container repeats of the mounts.
import { AppError, isAppError } from "#base/error.ts";
import { appMountRoot } from "#installer/app-environment.ts";
import type { Kube } from "#kube/client.ts";
import { execInPod } from "#kube/streams/exec.ts";
import { TarReader, type TarEvent } from "#wire/tar.ts";

export interface ContainerPlace {
  readonly namespace: string;
  readonly pod: string;
  readonly container: string;
  /** The agent's container, when there is one. */
  readonly agent?: string | undefined;
}

export interface ArchiveRequest {
  readonly place: ContainerPlace;
  /** A path in the container; `name` is what is wanted of it. */
  readonly folder: string;
  readonly name: string;
  readonly limitBytes: number;
  readonly onEvent: (event: TarEvent) => void | Promise<void>;
  readonly signal: AbortSignal;
}

/** Resolves with what the program said was wrong with some of it, if anything. */
export async function readArchive(kube: Kube, request: ArchiveRequest): Promise<string | undefined> {
  const { place, folder, name } = request;
  const own = { container: place.container, command: ["tar", "-cf", "-", "-C", folder, `./${name}`] };
  const ours = { container: place.agent, command: ["/telepresence", "traffic-agent", "files"] };
  try {
    return await runTar(kube, request, own);
  } catch (error) {
    if (!isAppError(error, "unsupported") || ours.container === undefined) throw error;
    const command = [...ours.command, `${appMountRoot}${folder}`, name];
    return await runTar(kube, request, { container: ours.container, command });
  }
}

interface TarCommand {
  readonly container: string;
  readonly command: readonly string[];
}

async function runTar(
  kube: Kube,
  request: ArchiveRequest,
  { container, command }: TarCommand,
): Promise<string | undefined> {
  const { place, folder, name, limitBytes, onEvent, signal } = request;
  const what = `${folder === "/" ? "" : folder}/${name}`;
  const reader = new TarReader();
  let bytes = 0;
  const onOutput = async (piece: Buffer): Promise<void> => {
    bytes += piece.length;
    if (bytes > limitBytes) throw tooLarge(what, limitBytes);
    for (const event of reader.push(piece)) await onEvent(event);
  };
  const { namespace, pod } = place;
  const options = { namespace, pod, container, command, onOutput, signal };
  const { exitCode, stderr } = await execInPod(kube, options).catch((error: unknown) => {
    throw cannotStart(error, command[0] ?? "");
  });
  const said = stderr.toString("utf8").trim().split("\n")[0]?.slice(0, 300) ?? "";
  if (bytes === 0 && (exitCode === 126 || exitCode === 127)) throw noProgram(command[0] ?? "");
  if (!reader.ended) {
    const why = said === "" ? "its archive has no end" : said;
    throw new AppError("command_failed", `${what} of container ${place.container} could not be read: ${why}`);
  }
  return exitCode === 0 ? undefined : said;
}

function tooLarge(what: string, limitBytes: number): AppError {
  return new AppError("command_failed", `${what} is larger than ${formatMebibytes(limitBytes)}, the limit of a copy`, {
    hint: "raise it with --copy-limit",
  });
}

export const formatMebibytes = (bytes: number): string => `${Math.round((bytes / 2 ** 20) * 10) / 10} MiB`;

const noProgram = (program: string, cause?: unknown): AppError =>
  new AppError("unsupported", `the container has no \`${program}\``, { cause });

/** Runtimes put it in many words that a program is not there. */
export function cannotStart(error: unknown, program: string): unknown {
  if (!isAppError(error, "command_failed")) return error;
  return /not found|no such file/i.test(error.message) ? noProgram(program, error) : error;
}
