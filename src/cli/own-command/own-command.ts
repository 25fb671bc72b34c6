// The user's own command is what stands after `--`, and nothing else: a forgotten `--port` is never run as a program.
// Whether the command is there is seen before anything is started, so that no traffic goes where nobody will answer.
import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { AppError } from "#base/error.ts";
import type { CliEnvironment } from "#cli/config.ts";

/** protocol: where execvp(3) looks when PATH is not set. */
const defaultPath = "/usr/bin:/bin";

/** Throws for words that stand before `--` and belong to nothing. Where a port is missing, a number was meant as one. */
export function refuseExtraWords(words: readonly string[], { portMissing }: { readonly portMissing: boolean }): void {
  const [word] = words;
  if (word === undefined) return;
  const isPort = portMissing && /^\d+(:[\w-]+)?$/.test(word);
  const meant = isPort ? `--port ${word}` : `"-- ${words.join(" ")}"`;
  throw new AppError("usage", `unexpected argument "${word}"; did you mean ${meant}?`);
}

/** Throws `command_failed` when the command could not be started; says what starting it would say. */
export async function requireCommand(file: string, { all, cwd }: CliEnvironment): Promise<void> {
  const folders = file.includes("/") ? [""] : (all["PATH"] ?? defaultPath).split(":");
  let seen = false;
  for (const folder of folders) {
    const found = await look(resolve(cwd, join(folder, file)));
    if (found === "executable") return;
    if (found === "file") seen = true;
  }
  throw new AppError(
    "command_failed",
    `the command ${file} ${seen ? "could not be started: EACCES" : "was not found"}`,
    {
      hint: seen ? "check that it is an executable file" : "check its name and PATH",
    },
  );
}

async function look(path: string): Promise<"executable" | "file" | "nothing"> {
  try {
    if (!(await stat(path)).isFile()) return "file";
    await access(path, constants.X_OK);
    return "executable";
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EACCES" ? "file" : "nothing";
  }
}
