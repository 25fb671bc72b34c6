// `uninstall`: takes agents, or everything, out of the cluster with the user's own credentials. Needs no connection,
// so neither helper nor manager is started for it, and a daemon that was started for it ends with it.
import { AppError } from "#base/error.ts";
import { isAgreed } from "#cli/agreement.ts";
import { forgetAnswers } from "#cli/cloud/ingress-answers.ts";
import { readConfig } from "#cli/connection/connection.ts";
import type { CommandContext } from "#cli/context.ts";
import type { OpenedDaemon } from "#cli/connection/daemon-socket.ts";
import { openOrStartDaemon, quitDaemon } from "#cli/connection/daemon-socket.ts";
import { connectOptions } from "#cli/flags/flags.ts";
import type { controlApi } from "#wire/control-api.ts";
import type { ParamsOf, ResultOf } from "#wire/rpc.ts";
import { readTargetName } from "#cli/flags/target-name.ts";

/** chosen: rollouts are waited for. */
const uninstallLimitMs = 300_000;

export interface UninstallFlags {
  /** `true` for the flag without names. */
  readonly agent?: true | readonly string[];
  readonly allAgents?: boolean;
  readonly everything?: boolean;
  /** Nobody is asked. */
  readonly yes?: boolean;
}

type Mode = "agents" | "all-agents" | "everything";

export async function runUninstall(
  context: CommandContext,
  names: readonly string[],
  flags: UninstallFlags,
): Promise<number> {
  const { mode, workloads } = chooseTarget(names, flags);
  const { output, environment } = context;
  const config = await readConfig(context);
  const target = connectOptions(context.flags, environment, config);
  const { namespace } = context.flags;
  using daemon = await openOrStartDaemon(context, () => output.progress("Launching Telepresence User Daemon"));
  try {
    const params = { target, mode, workloads: [...workloads], namespace };
    const { removed, warnings, others } = await uninstall(context, daemon, { params, ask: flags.yes !== true });
    if (others !== undefined) {
      output.line("Nothing was uninstalled");
      if (daemon.started) await quitDaemon(context, daemon);
      return 1;
    }
    for (const warning of warnings) output.warn(warning);
    output.lines(removed.length > 0 ? removed : ["Nothing to uninstall"]);
    output.data({ removed });
  } catch (error) {
    if (daemon.started) await quitDaemon(context, daemon).catch(() => undefined); // the first error counts
    throw error;
  }
  if (mode === "everything") await forgetAnswers((await context.machine.openCloudPlaces()).answers);
  if (mode === "everything" || daemon.started) await quitDaemon(context, daemon);
  return 0;
}

interface Wish {
  readonly params: ParamsOf<typeof controlApi, "uninstall">;
  readonly ask: boolean;
}

/** With `others` nothing was done: they have intercepts that would end, and the person did not agree. */
async function uninstall(
  context: CommandContext,
  { client }: OpenedDaemon,
  { params, ask }: Wish,
): Promise<ResultOf<typeof controlApi, "uninstall">> {
  if (ask && context.machine.readAnswer !== undefined) {
    const first = await client.call("uninstall", { ...params, unlessOthers: true }, uninstallLimitMs);
    if (first.others === undefined || !(await isAgreed(context, first.others.join(", ")))) return first;
  }
  return await client.call("uninstall", params, uninstallLimitMs);
}

function chooseTarget(
  names: readonly string[],
  flags: UninstallFlags,
): { readonly mode: Mode; readonly workloads: readonly string[] } {
  const said = [...(Array.isArray(flags.agent) ? (flags.agent as readonly string[]) : []), ...names];
  const workloads = [...new Set(said.map((text) => readTargetName(text).name))];
  const wanted: Mode[] = [];
  if (flags.agent !== undefined || workloads.length > 0) wanted.push("agents");
  if (flags.allAgents === true) wanted.push("all-agents");
  if (flags.everything === true) wanted.push("everything");
  const [mode, other] = wanted;
  if (mode === undefined || other !== undefined) {
    const text = "expected exactly one of --agent NAME…, --all-agents, --everything";
    throw new AppError("usage", `${text}, got ${wanted.length === 0 ? "none" : wanted.length}`);
  }
  if (mode === "agents" && workloads.length === 0) throw new AppError("usage", "--agent needs the name of a workload");
  return { mode, workloads };
}
