// A file with the pod's environment, for `--env-file` and `--env-json`. It holds secrets: mode 0600, also when it was
// there before. The user has asked for it by name, so it stays when the intercept ends.
import { open } from "node:fs/promises";
import { AppError } from "#base/error.ts";
import { describeFileError } from "#base/file-error.ts";

/** Overwrites in place: the path may be a pipe or a mounted file that cannot be replaced. */
export async function writePrivateFile(path: string, text: string): Promise<void> {
  try {
    await using file = await open(path, "w", 0o600);
    const { isFile } = await file.stat().then((stat) => ({ isFile: stat.isFile() }));
    if (isFile) await file.chmod(0o600);
    await file.writeFile(text);
  } catch (error) {
    throw new AppError("command_failed", `${path} cannot be written: ${describeFileError(error)}`, {
      cause: error,
      hint: "name a file in a directory that you may write to",
    });
  }
}
