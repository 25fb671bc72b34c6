// How the root helper gets its privilege: nothing when the user is root, else sudo, with the exact command line that
// is also shown to the user. `env_reset` of sudo is expected: the helper needs nothing of the environment.
import { closeSync, openSync } from "node:fs";
import { basename } from "node:path";
import { formatCommand } from "./exec.ts";
import { commandLinesBelow } from "./process.ts";

export type SudoMode =
  /** `sudo -n`: fails at once where a password would be asked for. */
  | "quiet"
  /** Asks on the terminal. */
  | "ask";

export function isRoot(): boolean {
  return process.geteuid?.() === 0;
}

/** `command` as it is started: by itself as root, through sudo otherwise. */
export function privilegedCommand(command: readonly string[], mode: SudoMode): readonly string[] {
  if (isRoot()) return command;
  return ["sudo", ...(mode === "quiet" ? ["-n"] : []), "--", ...command];
}

/** The same, for people. */
export function privilegedCommandLine(command: readonly string[]): string {
  return formatCommand(isRoot() ? command : ["sudo", ...command]);
}

/** Whether there is a terminal to ask on, whatever standard input and output are. */
export function hasTerminal(): boolean {
  try {
    closeSync(openSync("/dev/tty", "r+"));
    return true;
  } catch {
    return false; // no controlling terminal
  }
}

/**
 * Whether sudo has let the command through: below its process runs one that `isCommand` knows by its words. sudo's own
 * processes have the command's words too, behind its name. False, too, where /proc hides it.
 */
export function sudoHasBegun(sudoPid: number, isCommand: (words: readonly string[]) => boolean): boolean {
  return commandLinesBelow(sudoPid).some(([file = "", ...args]) => !isSudo(file) && isCommand([file, ...args]));
}

const isSudo = (file: string): boolean => /^sudo\b/.test(basename(file));
