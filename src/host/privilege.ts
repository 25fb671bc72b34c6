// How the root helper gets its privilege: nothing when the user is root, else sudo, with the exact command line that
// is also shown to the user. `env_reset` of sudo is expected: the helper needs nothing of the environment.
import { closeSync, openSync } from "node:fs";
import { formatCommand } from "./exec.ts";

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
