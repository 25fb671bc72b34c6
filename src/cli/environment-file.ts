// The pod's environment as a file: `--env-file` in docker-compose's syntax, `--env-json` as JSON. Both hold secrets:
// mode 0600, also when the file was there before.
import { open } from "node:fs/promises";
import { AppError } from "#base/error.ts";

export type Environment = Readonly<Record<string, string>>;

const sorted = (environment: Environment): readonly (readonly [string, string])[] =>
  Object.entries(environment).toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));

/** `KEY=VALUE` a line, sorted; quoted only where Compose would read something else. */
export function formatComposeEnvironment(environment: Environment): string {
  return sorted(environment)
    .map(([key, value]) => `${key}=${quoteCompose(value)}\n`)
    .join("");
}

/**
 * Compose reads an unquoted value up to ` #`, trims it and replaces `$NAME`. Single quotes keep everything but a single
 * quote itself; double quotes keep that, with backslash, dollar, quote and line end escaped.
 */
function quoteCompose(value: string): string {
  if (!/[\n\r$`\\]|^\s|\s$|^["']|(^|\s)#/.test(value)) return value;
  if (!/['\r]|\\$/.test(value)) return `'${value}'`;
  const escaped = value
    .replace(/["\\$]/g, "\\$&")
    .replaceAll("\n", "\\n")
    .replaceAll("\r", "\\r");
  return `"${escaped}"`;
}

export function formatJsonEnvironment(environment: Environment): string {
  return `${JSON.stringify(Object.fromEntries(sorted(environment)), undefined, 2)}\n`;
}

/** Overwrites in place: the path may be a pipe or a mounted file that cannot be replaced. */
export async function writePrivateFile(path: string, text: string): Promise<void> {
  try {
    await using file = await open(path, "w", 0o600);
    const { isFile } = await file.stat().then((stat) => ({ isFile: stat.isFile() }));
    if (isFile) await file.chmod(0o600);
    await file.writeFile(text);
  } catch (error) {
    throw new AppError("command_failed", `${path} cannot be written: ${(error as Error).message}`, {
      cause: error,
      hint: "name a file in a directory that you may write to",
    });
  }
}
