// `helper setup install UID...` and `helper setup uninstall`, run as root by the command line, which has told the user
// before. Silent when it works.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { systemClock } from "#base/clock.ts";
import { AppError, formatError, toAppError } from "#base/error.ts";
import { execOk } from "#host/exec.ts";
import { isRoot } from "#host/privilege.ts";
import { programEnvironment } from "./config.ts";
import { installService, uninstallService } from "./service-setup.ts";
import type { ServicePlace } from "./service-setup.ts";

/** chosen: stopping sessions drains nothing, it only takes devices and hooks away. */
const systemctlMs = 60_000;

/** Resolves with the exit code. */
export async function runSetup(words: readonly string[]): Promise<number> {
  try {
    await setUp(words);
    return 0;
  } catch (error) {
    process.stderr.write(`telepresence: error: ${formatError(toAppError(error))}\n`);
    return 1;
  }
}

async function setUp([verb, ...users]: readonly string[]): Promise<void> {
  if (!isRoot()) {
    throw new AppError("denied", "only root can set the root helper up", {
      hint: "`telepresence helper install` gets the rights",
    });
  }
  process.umask(0o022);
  const uids = users.map(Number);
  if (verb === "uninstall") await uninstallService(thisMachine());
  else if (verb === "install" && uids.length > 0 && uids.every(Number.isInteger)) {
    await installService(thisMachine(), join(import.meta.dirname, ".."), uids);
  } else throw new AppError("usage", "expected install with user ids, or uninstall");
}

function thisMachine(): ServicePlace {
  const options = { clock: systemClock, env: programEnvironment(), timeoutMs: systemctlMs };
  // Where another init runs there is nothing to tell; the files go all the same.
  const systemd = existsSync("/run/systemd/system");
  return {
    root: "/",
    ownerUid: 0,
    systemctl: async (...args) => {
      if (systemd) await execOk("systemctl", args, options);
    },
  };
}
