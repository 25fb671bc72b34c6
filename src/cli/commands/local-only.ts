// `intercept NAME --local-only [-n NAMESPACE] [-- cmd]`: no workload and no traffic; the short names of a namespace
// resolve while it lasts. Of older versions, and kept for their scripts.
import { AppError } from "#base/error.ts";
import { connectIfNeeded } from "#cli/connection/connection.ts";
import type { CommandContext } from "#cli/context.ts";
import type { InterceptFlags } from "#cli/flags/intercept-flags.ts";
import { requireCommand } from "#cli/own-command/own-command.ts";
import { runOwning } from "#cli/own-command/owned.ts";
import { localOnlyToJson } from "#cli/texts/json.ts";

/** chosen: the daemon answers at once. */
const limitMs = 15_000;

export async function runLocalOnly(
  context: CommandContext,
  name: string,
  flags: InterceptFlags,
  command: readonly string[],
): Promise<number> {
  refuseOthers(flags);
  const [file, ...args] = command;
  if (file !== undefined) await requireCommand(file, context.environment);
  using connected = await connectIfNeeded(context);
  const { client } = connected.daemon;
  const owned = file !== undefined;
  const wish = { name, namespace: context.flags.namespace, ownedByConnection: owned };
  const { info } = await client.call("localOnly", wish, limitMs);
  context.output.warn(`--local-only is deprecated: \`telepresence connect -n ${info.namespace}\` does the same`);
  context.output.line(`${name}: local-only intercept, the names of namespace ${info.namespace} resolve`);
  context.output.data(localOnlyToJson(info));
  if (file === undefined) return 0;
  const child = { command: [file, ...args] as const, env: context.environment.all };
  const mine = { what: `the intercept ${name}`, params: { name, only: "local-only" as const } };
  return await runOwning(context, client, mine, child);
}

/** Commander's names of what an intercept without traffic has no use for. */
const meaningless: readonly (keyof InterceptFlags)[] = [
  "port",
  "service",
  "workload",
  "deployment",
  "container",
  "address",
  "agent",
  "existing",
  "onRefused",
  "probes",
  "envFile",
  "envJson",
  "envSyntax",
  "envExclude",
  "detailedOutput",
  "mechanism",
  "mount",
  "copyVolume",
  "copyLimit",
  "toPod",
  "httpMatch",
  "httpHeader",
  "httpPathEqual",
  "httpPathPrefix",
  "httpPathRegex",
  "httpMethod",
  "httpQuery",
  "httpBody",
  "grpcMethod",
  "match",
  "tlsCert",
  "plaintext",
  "httpPlaintext",
  "allowOverlap",
];

function refuseOthers(flags: InterceptFlags): void {
  const given = meaningless.find((name) => flags[name] !== undefined);
  const flag = given ?? (flags.previewUrl === true ? "previewUrl" : undefined);
  if (flag === undefined) return;
  const spelled = `--${flag.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
  throw new AppError("usage", `${spelled} is of no use with --local-only, which has no workload and takes no traffic`, {
    hint: "leave one of the two out",
  });
}
