// `genyaml [PART]`: prints a workload's manifest with the traffic-agent in it, for teams whose manifests are kept
// elsewhere (GitOps). From a file or from the cluster; nothing is changed. Needs no connection.
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { AppError } from "#base/error.ts";
import { describeFileError } from "#base/file-error.ts";
import { readConfig } from "#cli/connection/connection.ts";
import type { CommandContext } from "#cli/context.ts";
import { openOrStartDaemon, quitDaemon } from "#cli/connection/daemon-socket.ts";
import { connectOptions } from "#cli/flags/flags.ts";
import { readTargetName } from "#cli/flags/target-name.ts";
import type { controlApi } from "#wire/control-api.ts";
import type { ParamsOf, ResultOf } from "#wire/rpc.ts";

/** chosen: as long as the cluster is asked, and a little more. */
const genyamlLimitMs = 40_000;

/** Of the original, and first the whole. */
const parts = ["workload", "config", "container", "initcontainer", "annotations", "volume"] as const;
type Part = (typeof parts)[number];

export interface GenyamlFlags {
  readonly workload?: string;
  readonly input?: string;
}

type Params = ParamsOf<typeof controlApi, "genyaml">;
type Result = ResultOf<typeof controlApi, "genyaml">;

export async function runGenyaml(
  context: CommandContext,
  wanted: string | undefined,
  flags: GenyamlFlags,
): Promise<number> {
  const part = readPart(wanted);
  const { output, environment } = context;
  const params: Params = {
    target: connectOptions(context.flags, environment, await readConfig(context)),
    namespace: context.flags.namespace,
    ...readWorkload(flags),
    ...(flags.input === undefined ? {} : { input: await readDocuments(flags.input, environment.cwd) }),
  };
  using daemon = await openOrStartDaemon(context, () => output.progress("Launching Telepresence User Daemon"));
  let result: Result;
  try {
    result = await daemon.client.call("genyaml", params, genyamlLimitMs);
  } finally {
    if (daemon.started) await quitDaemon(context, daemon).catch(() => undefined); // what it found counts
  }
  for (const warning of [...result.warnings, ...(part === "workload" ? [] : result.byHand)]) output.warn(warning);
  const objects = part === "workload" ? result.objects : [result.parts[part]];
  const { stringify } = await import("#cli/yaml.ts");
  output.lines(
    objects
      .map((object) => stringify(object).trimEnd())
      .join("\n---\n")
      .split("\n"),
  );
  output.data(objects.length === 1 ? objects[0] : objects, { bare: true });
  return 0;
}

function readPart(wanted: string | undefined): Part {
  const part = wanted === undefined ? "workload" : parts.find((name) => name === wanted);
  if (part !== undefined) return part;
  throw new AppError("usage", `genyaml knows no "${wanted}", expected one of ${parts.join(", ")}`);
}

function readWorkload({ workload, input }: GenyamlFlags): Pick<Params, "workload" | "kind"> {
  if (workload === undefined) {
    if (input !== undefined) return {};
    throw new AppError("usage", "genyaml has no workload, expected --workload NAME or --input FILE");
  }
  const { name, kind } = readTargetName(workload);
  return { workload: name, ...(kind === undefined ? {} : { kind }) };
}

/** `-` is standard input. */
async function readDocuments(file: string, cwd: string): Promise<NonNullable<Params["input"]>> {
  const text = await readFile(file === "-" ? "/dev/stdin" : resolve(cwd, file), "utf8").catch((error: unknown) => {
    throw new AppError("usage", `--input ${file} cannot be read: ${describeFileError(error)}`, { cause: error });
  });
  const { parseManifests } = await import("#cli/yaml.ts");
  return parseManifests(text).flatMap((document) => {
    const [problem] = document.errors;
    if (problem !== undefined)
      throw new AppError("usage", `--input ${file} is not YAML: ${firstLine(problem.message)}`);
    const object: unknown = document.toJS();
    if (object === null || object === undefined) return [];
    if (isObject(object)) return [object];
    throw new AppError("usage", `--input ${file} has a document without metadata, expected Kubernetes objects`);
  });
}

const firstLine = (text: string): string => text.split("\n")[0] ?? "";

function isObject(value: unknown): value is NonNullable<Params["input"]>[number] {
  return typeof value === "object" && value !== null && "metadata" in value && typeof value.metadata === "object";
}
