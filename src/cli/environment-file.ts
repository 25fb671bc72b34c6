// A file with the pod's environment, for `--env-file` and `--env-json`. It holds secrets: mode 0600, also when it was
// there before. The user has asked for it by name, so it stays when the intercept ends.
import { access, constants, open, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { AppError } from "#base/error.ts";
import { describeFileError } from "#base/file-error.ts";

/** Throws what writePrivateFile() would, as far as it can be told without making or changing anything. */
export async function checkPrivateFile(path: string): Promise<void> {
  try {
    const found = await stat(path).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined; // it is made
      throw error;
    });
    if (found?.isDirectory() === true) throw Object.assign(new Error("a directory"), { code: "EISDIR" });
    await access(found === undefined ? dirname(path) : path, constants.W_OK);
  } catch (error) {
    throw notWritten(path, error);
  }
}

/** Overwrites in place: the path may be a pipe or a mounted file that cannot be replaced. */
export async function writePrivateFile(path: string, text: string): Promise<void> {
  try {
    await using file = await open(path, "w", 0o600);
    if ((await file.stat()).isFile()) await file.chmod(0o600);
    await file.writeFile(text);
  } catch (error) {
    throw notWritten(path, error);
  }
}

function notWritten(path: string, error: unknown): AppError {
  return new AppError("command_failed", `${path} cannot be written: ${describeFileError(error)}`, {
    cause: error,
    hint: "name a file in a directory that you may write to",
  });
}
