// The command and flags of the root helper's service, declared for commander; program.ts has all others.
import { Option } from "commander";
import type { Command } from "commander";
import type { HelperFlags } from "#cli/commands/helper.ts";
import { appendList } from "./flag-declarations.ts";
import { groups } from "./help-groups.ts";
import type { Run } from "#cli/program.ts";

export function declareHelper(
  program: Command,
  declare: (command: Command, run: (args: readonly unknown[]) => Run) => void,
): void {
  const helper = program
    .command("helper")
    .argument("<what>", "install, uninstall or status")
    .helpGroup(groups.other)
    .summary("Set the root helper up as a service, so that no password is asked")
    .description(
      "Set the root helper up as a service of this machine, so that `connect` asks for no password any more; remove it again; look at it.",
    )
    .usage("<install|uninstall|status> [flags]")
    .addOption(
      new Option("--allow-user <list>", "who may use it, by name or number (default: you)").argParser(appendList),
    )
    .option("--dry-run", "only say what would be changed");
  declare(helper, ([what]) => async (context) => {
    const { runHelperCommand } = await import("#cli/commands/helper.ts");
    return runHelperCommand(context, what as string, helper.opts<HelperFlags>());
  });
}
