// Where copies of a pod's files are: a folder for the user alone, in memory where there is such a place, removed with
// all that is in it when it is disposed. Should this process be killed, a small process beside it removes the folder;
// should both be, the next daemon does.
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { accessSync, constants, existsSync, lstatSync, readdirSync, readFileSync, statfsSync, statSync } from "node:fs";
import { mkdir, readdir, readlink, rm, rmdir, symlink, unlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { AppError } from "#base/error.ts";
import { describeFileError } from "#base/file-error.ts";
import { ensureDirectory, ensureRuntimeDirectory } from "./paths.ts";
import { identifyProcess, isSameProcess } from "./process.ts";

export interface VolumeFolder extends AsyncDisposable {
  readonly path: string;
}

export interface FolderWish {
  /** The user's directory for sockets. */
  readonly runtime: string;
  /** Of the intercept. */
  readonly name: string;
  /** An absolute path that the user has chosen: empty, or not there yet. */
  readonly path?: string | undefined;
}

/** statfs(2). */
const inMemory = 0x01021994;
/** In a folder that the user has chosen: whose copies they are. */
const markFile = ".telepresence";

/**
 * Ends when its standard input does, which is when its parent is gone, however that went: signals of a terminal or a
 * logout do not reach it. $1 is the folder, $2 our record of it, $3 whether the folder was there before.
 */
const removeAtEnd = `trap "" HUP INT TERM
read -r line
rm -rf -- "$1" "$2"
[ -z "$3" ] || mkdir -m 700 -- "$1"
owner="\${2%/*}"
all="\${owner%/*}"
rmdir -- "$owner" "$all" 2>/dev/null
case "$all" in /dev/shm/*) rmdir -- "\${all%/*}" 2>/dev/null ;; esac`;

export async function openVolumeFolder(wish: FolderWish): Promise<VolumeFolder> {
  if (wish.path !== undefined) refuseUnfit(wish.path, whyUnfit(wish.path));
  const identity = identifyProcess(process.pid);
  const owner = join(memoryFolder(wish.runtime), "volumes", `${process.pid}-${identity?.startTicks ?? 0}`);
  const record = freeName(owner, wish.name);
  const { path = record } = wish;
  const wasThere = existsSync(path);
  const watcher = await startWatcher([path, record, wasThere ? "yes" : ""]).catch((error: unknown) => {
    inUse.delete(record);
    throw error;
  });
  const folder = new OwnFolder({ path, record, wasThere, watcher });
  try {
    await within(owner, async () => {
      if (path === record) ensureDirectory(record);
      else await symlink(path, record);
    });
    if (!wasThere) ensureDirectory(path, path === record ? undefined : "choose another place with --mount");
    if (path !== record) await writeFile(join(path, markFile), record, { mode: 0o600, flag: "wx" });
    return folder;
  } catch (error) {
    await folder[Symbol.asyncDispose]();
    throw error;
  }
}

/** chosen: each time it is lost, another folder of this process has ended in that very moment. */
const ownerAttempts = 50;

/** The end of another folder takes the process's away when that is empty, between any two steps of this one. */
async function within(owner: string, make: () => Promise<void>): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await mkdir(owner, { recursive: true, mode: 0o700 });
      await make();
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT" || attempt === ownerAttempts) throw error;
    }
  }
}

class OwnFolder implements VolumeFolder {
  readonly path: string;
  readonly #record: string;
  readonly #wasThere: boolean;
  readonly #watcher: ChildProcess;
  #removing: Promise<void> | undefined;

  constructor(parts: { path: string; record: string; wasThere: boolean; watcher: ChildProcess }) {
    this.path = parts.path;
    this.#record = parts.record;
    this.#wasThere = parts.wasThere;
    this.#watcher = parts.watcher;
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#removing ??= this.#remove();
    return this.#removing;
  }

  async #remove(): Promise<void> {
    await empty(this.path);
    if (!this.#wasThere) await rm(this.path, { recursive: true, force: true });
    await rm(this.#record, { recursive: true, force: true });
    await removeEmpty(dirname(this.#record));
    // Before anybody can make a folder of that name again, which it would remove.
    const ended = once(this.#watcher, "exit");
    if (this.#watcher.exitCode === null && this.#watcher.signalCode === null && this.#watcher.kill("SIGKILL")) {
      await ended;
    }
    inUse.delete(this.#record);
  }
}

/** A process's folder, that of all of them, and the place if it is ours, unless others are in it. */
async function removeEmpty(owner: string): Promise<void> {
  const all = dirname(owner);
  const place = dirname(all);
  const paths = place.startsWith("/dev/shm/") ? [owner, all, place] : [owner, all];
  for (const path of paths) await rmdir(path).catch(() => undefined);
}

async function startWatcher(args: readonly string[]): Promise<ChildProcess> {
  const watcher = spawn("/bin/sh", ["-c", removeAtEnd, "telepresence-volumes", ...args], {
    stdio: ["pipe", "ignore", "ignore"],
    detached: true,
    cwd: "/",
  });
  watcher.stdin.on("error", () => undefined); // it has ended
  await once(watcher, "spawn").catch((cause: unknown) => {
    throw new AppError("command_failed", "no process could be started that removes copied files in the end", { cause });
  });
  watcher.unref();
  (watcher.stdin as unknown as { unref(): void }).unref();
  return watcher;
}

/** The first place in memory; the directory for sockets where there is none. */
function memoryFolder(runtime: string): string {
  const found = places(runtime).find((place) => {
    try {
      ensureRuntimeDirectory(place);
      return statfsSync(place).type === inMemory;
    } catch {
      return false; // not there, or somebody else's
    }
  });
  if (found === undefined) ensureRuntimeDirectory(runtime);
  return found ?? runtime;
}

const places = (runtime: string): readonly string[] => [runtime, `/dev/shm/telepresence-${process.getuid?.() ?? 0}`];

/** The folder of this process is nobody else's, so it is enough to remember what is in use here. */
const inUse = new Set<string>();

function freeName(parent: string, wanted: string): string {
  const plain = wanted
    .replace(/[^\w.-]/g, "_")
    .replace(/^\.+/, "_")
    .slice(0, 200);
  for (let number = 1; ; number++) {
    const path = join(parent, number === 1 ? plain : `${plain}-${number}`);
    if (inUse.has(path)) continue;
    inUse.add(path);
    return path;
  }
}

/**
 * Throws why copies cannot be in this folder, as far as it can be told without making it. Where a daemon's copies are, that
 * one knows better: they are of an intercept that is to be named, or were left behind, and go before others come.
 */
export function checkChosenFolder(path: string): void {
  if (!existsSync(join(path, markFile))) refuseUnfit(path, whyUnfit(path));
}

function refuseUnfit(path: string, why: string | undefined): void {
  if (why === undefined) return;
  throw new AppError("usage", `--mount is ${path}, which ${why}; expected an empty directory of yours, or a new one`);
}

function whyUnfit(path: string): string | undefined {
  try {
    const found = lstatSync(path, { throwIfNoEntry: false });
    if (found === undefined) {
      accessSync(nearestThere(dirname(path)), constants.W_OK);
      return undefined;
    }
    const uid = process.getuid?.() ?? 0;
    if (!found.isDirectory()) return "is no directory";
    if (found.uid !== uid) return `belongs to user ${found.uid}`;
    return readdirSync(path).length > 0 ? "is not empty" : undefined;
  } catch (error) {
    return `cannot be used: ${describeFileError(error)}`;
  }
}

/** The path, or as much of its beginning as there is. */
function nearestThere(path: string): string {
  const isThere = statSync(path, { throwIfNoEntry: false }) !== undefined;
  return isThere || path === dirname(path) ? path : nearestThere(dirname(path));
}

async function empty(path: string): Promise<void> {
  const names = await readdir(path).catch(() => []); // gone already
  for (const name of names) await rm(join(path, name), { recursive: true, force: true });
}

/** What daemons left that were killed together with the process that watched them. Gives the number of folders. */
export async function removeAbandonedFolders(runtime: string): Promise<number> {
  let removed = 0;
  for (const place of places(runtime)) {
    const all = join(place, "volumes");
    if (!existsSync(all) || lstatSync(place).uid !== (process.getuid?.() ?? 0)) continue;
    for (const owner of await readdir(all)) {
      const [pid = 0, startTicks = 0] = owner.split("-").map(Number);
      if (isSameProcess({ pid, startTicks })) continue;
      const records = await readdir(join(all, owner));
      for (const name of records) await removeRecorded(join(all, owner, name));
      await rm(join(all, owner), { recursive: true, force: true });
      await removeEmpty(join(all, owner));
      removed += records.length;
    }
  }
  return removed;
}

/** A folder that the user has chosen is emptied only when it still says that it is that very one. */
async function removeRecorded(record: string): Promise<void> {
  if (!lstatSync(record).isSymbolicLink()) return;
  const path = await readlink(record);
  try {
    if (readFileSync(join(path, markFile), "utf8") === record) await empty(path);
  } catch {
    // gone already
  }
  await unlink(record);
}
