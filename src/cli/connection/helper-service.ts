// The root helper as a service, seen from a command: what is set up, and the command that changes it. Reads only what
// everybody may read.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { deadline, raceSignal } from "#base/abort.ts";
import { systemClock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import { execOk } from "#host/exec.ts";
import { privilegedCommand } from "#host/privilege.ts";
import { helperReadySchema } from "#wire/helper.ts";
import { helperServiceProgram, helperServiceSocket, userOfHelperUnit } from "#wire/helper-service.ts";
import type { CliEnvironment } from "#cli/config.ts";
import { connectSocket } from "./daemon-socket.ts";
import type { ServicePlaces } from "#cli/machine.ts";

const unitFolder = "/etc/systemd/system";
/** chosen: `id` may ask a directory service far away. */
const idMs = 10_000;
/** chosen: Node has started, and says one line. */
const readyMs = 10_000;

export function openServicePlaces({ all: env }: CliEnvironment, helper: readonly string[]): ServicePlaces {
  const own = process.getuid?.() ?? 0;
  return {
    runsSystemd: existsSync("/run/systemd/system"),
    uid: own === 0 && /^\d{1,10}$/.test(env["SUDO_UID"] ?? "") ? Number(env["SUDO_UID"]) : own,
    userId,
    users: existsSync(unitFolder) ? readdirSync(unitFolder).flatMap((file) => userOfHelperUnit(file) ?? []) : [],
    version: readVersion(),
    setupCommand: (words) => {
      const [file = "", ...rest] = privilegedCommand([...helper, "setup", ...words], "ask");
      return [file, ...rest];
    },
    tryService: (signal) => tryService(helperServiceSocket(own), signal),
  };
}

async function userId(name: string): Promise<number> {
  if (/^\d{1,10}$/.test(name)) return Number(name);
  try {
    return Number(await execOk("id", ["-u", "--", name], { clock: systemClock, timeoutMs: idMs }));
  } catch (cause) {
    throw new AppError("usage", `--allow-user has "${name}", and there is no such user here`, { cause });
  }
}

function readVersion(): string | undefined {
  const file = join(helperServiceProgram, "version");
  return existsSync(file) ? readFileSync(file, "utf8").trim() : undefined;
}

async function tryService(path: string, signal: AbortSignal): Promise<void> {
  using limit = deadline(systemClock, readyMs, "the answer of the root helper's service", signal);
  const socket = await raceSignal(connectSocket(path), limit.signal).catch((cause: unknown) => {
    limit.signal.throwIfAborted();
    throw new AppError("denied", `${path} cannot be connected to; is it another user's?`, { cause });
  });
  if (socket === undefined) throw new AppError("helper_failed", `nobody listens on ${path}`);
  try {
    const lines = createInterface({ input: socket });
    lines.on("error", () => undefined); // the socket's own, which also closes
    const line = new Promise<string>((resolve) => lines.once("line", resolve).once("close", () => resolve("")));
    const said = await raceSignal(line, limit.signal);
    if (isReady(said)) return;
    throw new AppError("helper_failed", "the root helper's service ended at once", {
      hint: "see `journalctl -u 'telepresence-helper-*'`",
    });
  } finally {
    socket.destroy();
  }
}

function isReady(line: string): boolean {
  try {
    return helperReadySchema.safeParse(JSON.parse(line)).success;
  } catch {
    return false;
  }
}
