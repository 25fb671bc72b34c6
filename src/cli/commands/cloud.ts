// `cloud serve`: the server's program in the foreground. The launcher of dist/bin starts that program itself, so this
// is the way of a checkout, and of flags before the word.
import { AppError } from "#base/error.ts";
import type { CommandContext } from "#cli/context.ts";
import { exitCodeOf } from "#cli/own-command/foreground.ts";

export async function runCloud(context: CommandContext, what: string, words: readonly string[]): Promise<number> {
  const { environment, interrupts, machine, output } = context;
  if (what !== "serve")
    throw new AppError("usage", `unknown command 'cloud ${what}', expected serve, install or uninstall`);
  output.clearProgress();
  const [file = "", ...first] = machine.cloudCommand;
  const child = await machine.startForeground({ command: [file, ...first, "serve", ...words], env: environment.all });
  using _signals = interrupts.divert((name) => child.forward(name));
  return exitCodeOf(await child.ended);
}
