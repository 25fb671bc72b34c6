// Asks before something of other people ends.
import type { CommandContext } from "./context.ts";

/** Where nobody can be asked, the command itself is the word. */
export async function isAgreed({ machine, output, interrupts }: CommandContext, ending: string): Promise<boolean> {
  const { readAnswer } = machine;
  if (readAnswer === undefined) return true;
  output.ask(`This ends ${ending}.\nGo on? (y/N)`);
  return /^y(es)?$/i.test((await readAnswer(interrupts.signal)).trim());
}
