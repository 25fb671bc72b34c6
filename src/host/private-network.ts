// Namespaces of a program's own without root, by unshare(1) of util-linux, which every distribution has: a process of
// ours cannot make them, because Node has threads, and a user namespace is for a process with one only (unshare(2)).
import { readFileSync } from "node:fs";
import type { Clock } from "#base/clock.ts";
import { AppError, isAppError } from "#base/error.ts";
import { exec } from "./exec.ts";

/** The user stays who they are, and may do within the namespaces what root may. */
const namespaces = ["--user", "--map-current-user", "--keep-caps", "--net", "--mount"] as const;
/** chosen: it takes milliseconds. */
const tryMs = 5000;

export function unshareCommand(command: readonly string[]): readonly [string, ...string[]] {
  return ["unshare", ...namespaces, "--", ...command];
}

/** Tries it. Rejects with `unsupported` and what to do. */
export async function requirePrivateNetworks(clock: Clock, signal: AbortSignal): Promise<void> {
  const [file, ...args] = unshareCommand(["true"]);
  let said: string;
  try {
    const { exitCode, stderr } = await exec(file, args, { clock, signal, timeoutMs: tryMs });
    if (exitCode === 0) return;
    said = stderr.trim().split("\n")[0] ?? "";
  } catch (error) {
    if (!isAppError(error, "command_failed")) throw error;
    throw refusal("the program unshare is missing", "install util-linux, or use `telepresence connect --proxy`", error);
  }
  throw refusal(said === "" ? "unshare failed" : said, explain(readSetting));
}

/** What stands in the way, by the kernel's settings. */
export function explain(setting: (path: string) => string | undefined): string {
  const instead = "or use `telepresence connect --proxy`";
  if (setting("kernel/unprivileged_userns_clone") === "0") {
    return `root allows it by \`sysctl kernel.unprivileged_userns_clone=1\`, ${instead}`;
  }
  if (setting("kernel/apparmor_restrict_unprivileged_userns") === "1") {
    return `root allows it by \`sysctl kernel.apparmor_restrict_unprivileged_userns=0\`, ${instead}`;
  }
  if (setting("user/max_user_namespaces") === "0") {
    return `root allows it by \`sysctl user.max_user_namespaces=10000\`, ${instead}`;
  }
  return `a container may forbid user namespaces, and util-linux before 2.36 lacks an option; ${instead.slice(3)}`;
}

function refusal(why: string, hint: string, cause?: unknown): AppError {
  return new AppError("unsupported", `a program cannot have a network of its own here: ${why}`, { hint, cause });
}

function readSetting(path: string): string | undefined {
  try {
    return readFileSync(`/proc/sys/${path}`, "utf8").trim();
  } catch {
    return undefined; // a kernel without it
  }
}
