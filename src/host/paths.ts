// Where the product keeps its files (XDG base directories). Sockets are in a directory that is the user's alone, which
// is checked at each use, because /tmp is everybody's. Works with HOME unset, or where nobody ever made its folders.
import { lstatSync, mkdirSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import envPaths from "env-paths";
import { AppError } from "#base/error.ts";
import { describeFileError } from "#base/file-error.ts";
import { currentUser } from "./user.ts";

type Environment = Readonly<Record<string, string | undefined>>;

export interface HostPaths {
  /** Sockets and locks, of this connection alone; made and checked by `ensureRuntimeDirectory`. */
  readonly runtime: string;
  /** Where connections with a name have their directories. */
  readonly named: string;
  readonly config: string;
  readonly cache: string;
  readonly log: string;
  /** CLI ↔ daemon. */
  readonly daemonSocket: string;
  /** Where the helper's connection arrives. */
  readonly helperSocket: string;
  /** Where networks of `telepresence run` are brought to the daemon. */
  readonly networksSocket: string;
  readonly daemonLock: string;
}

const productName = "telepresence";
/** sun_path of unix(7), with its NUL. */
const maxSocketPathBytes = 107;

/** Where the system makes each user's runtime directory. */
const runtimeDirectories = "/run/user";
const namedDirectory = "by-name";

/** Only says where; nothing is made. `connection`: its name, if it has one. */
export function hostPaths(env: Environment, systemDirectories = runtimeDirectories, connection?: string): HostPaths {
  const user = currentUser(env);
  const shared = runtimeDirectory(env, user.uid, systemDirectories);
  const named = join(shared, namedDirectory);
  const runtime = connection === undefined ? shared : join(named, connection);
  const data = dataDirectories(env, user.home ?? shared);
  return {
    runtime,
    named,
    ...data,
    daemonSocket: join(runtime, "daemon.sock"),
    helperSocket: join(runtime, "helper.sock"),
    networksSocket: join(runtime, "networks.sock"),
    daemonLock: join(runtime, "daemon.lock"),
  };
}

/** Makes the directory for sockets, or checks that the one there is ours alone; and those that it lies in. */
export function ensureRuntimeDirectory(directory: string, uid: number = process.getuid?.() ?? 0): void {
  const parent = dirname(directory);
  if (basename(parent) === namedDirectory) for (const each of [dirname(parent), parent]) ensureOwn(each, uid);
  ensureOwn(directory, uid);
}

function ensureOwn(directory: string, uid: number): void {
  const longest = join(directory, "networks.sock");
  if (Buffer.byteLength(longest) > maxSocketPathBytes) {
    throw new AppError("invalid_config", `the socket path ${longest} is longer than ${maxSocketPathBytes} bytes`, {
      hint: "set XDG_RUNTIME_DIR to a shorter directory",
    });
  }
  try {
    mkdirSync(directory, { mode: 0o700 });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "EEXIST") {
      throw new AppError("invalid_config", `the directory ${directory} for sockets cannot be made`, { cause });
    }
  }
  const found = lstatSync(directory);
  const mode = found.mode & 0o777;
  if (found.isDirectory() && found.uid === uid && mode === 0o700) return;
  const what = found.isDirectory() ? `belongs to user ${found.uid} with mode ${mode.toString(8)}` : "is no directory";
  throw new AppError("denied", `${directory} ${what}; expected a directory of user ${uid} with mode 700`, {
    hint: "remove it, or set XDG_RUNTIME_DIR to a directory of your own",
  });
}

/** Config, cache or log directory, made when missing. */
export function ensureDirectory(
  directory: string,
  hint = "set HOME, or the XDG variables, to directories that you may write to",
): void {
  try {
    makeWithParents(directory);
  } catch (cause) {
    throw new AppError("invalid_config", `the directory ${directory} cannot be made: ${describeFileError(cause)}`, {
      cause,
      hint,
    });
  }
}

/** Not by `recursive`: where making a directory fails as if its parent were missing (/proc), Node tries for ever. */
function makeWithParents(directory: string): void {
  if (isDirectory(directory)) return;
  const parent = dirname(directory);
  if (parent !== directory) makeWithParents(parent);
  try {
    mkdirSync(directory, { mode: 0o700 });
  } catch (error) {
    if (!isDirectory(directory)) throw error; // else somebody was quicker
  }
}

const isDirectory = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;

/**
 * A directory of ours inside XDG_RUNTIME_DIR where that is there and the user's; in /tmp otherwise. Where the variable
 * is missing (cron, `env -i`, an editor's task) the usual directory is meant: a command that looked elsewhere would
 * start a second daemon, which fights with the first for the same routes.
 */
function runtimeDirectory(env: Environment, uid: number, systemDirectories: string): string {
  const usual = join(systemDirectories, String(uid));
  // After `sudo -E` or `su` the variable may still name another user's directory.
  const found = [env["XDG_RUNTIME_DIR"], usual].find((path) => path?.startsWith("/") && ownedDirectory(path, uid));
  return found === undefined ? `/tmp/${productName}-${uid}` : join(found, productName);
}

function ownedDirectory(path: string, uid: number): boolean {
  try {
    const found = lstatSync(path);
    return found.isDirectory() && found.uid === uid && (found.mode & 0o022) === 0;
  } catch {
    return false; // not there
  }
}

function dataDirectories(env: Environment, home: string): Pick<HostPaths, "config" | "cache" | "log"> {
  if (process.platform !== "linux") {
    const { config, cache, log } = envPaths(productName, { suffix: "" });
    return { config, cache, log };
  }
  const base = (variable: string, fallback: string): string => {
    const given = env[variable];
    // The XDG specification: a path that is not absolute is to be ignored.
    return join(given !== undefined && given.startsWith("/") ? given : join(home, fallback), productName);
  };
  const cache = base("XDG_CACHE_HOME", ".cache");
  return { config: base("XDG_CONFIG_HOME", ".config"), cache, log: join(cache, "logs") };
}
