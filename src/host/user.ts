// Who is using the laptop, as colleagues will read it: `alice@thinkpad`. Works where the user id has no entry in the
// user database, as in containers.
import { hostname, userInfo } from "node:os";

export interface LaptopUser {
  readonly uid: number;
  readonly name: string;
  readonly home: string | undefined;
}

/** `env` is the program's environment; USER and HOME fill in where the user database is silent. */
export function currentUser(env: Readonly<Record<string, string | undefined>>): LaptopUser {
  const uid = process.getuid?.() ?? 0;
  const known = lookUp();
  const name = known?.name ?? env["USER"] ?? env["LOGNAME"] ?? `uid-${uid}`;
  const home = absolute(env["HOME"]) ?? absolute(known?.home);
  return { uid, name, home };
}

/** `name@host`, with only characters that are safe in labels, logs and terminals; at most 120 of them. */
export function formatUserAtHost(user: LaptopUser, host: string = hostname()): string {
  const clean = (text: string): string => text.replaceAll(/[^\w.-]+/g, "-").slice(0, 59) || "unknown";
  return `${clean(user.name)}@${clean(host.split(".")[0] ?? "")}`;
}

function lookUp(): { readonly name: string; readonly home: string } | undefined {
  try {
    const { username, homedir } = userInfo();
    return { name: username, home: homedir };
  } catch {
    return undefined; // no entry for this user id
  }
}

function absolute(path: string | undefined): string | undefined {
  return path !== undefined && path.startsWith("/") ? path : undefined;
}
