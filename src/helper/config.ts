// What the helper takes from its environment: who called sudo, which sudo itself has set, and, only from root, where
// programs are.

type Environment = Readonly<Record<string, string | undefined>>;

/** Directories that are root's; the last is NixOS's. */
const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin";

/** The user that started sudo, or undefined when the helper was started by root itself. */
export function sudoUser(env: Environment = process.env): number | undefined {
  const text = env["SUDO_UID"];
  return text !== undefined && /^\d{1,10}$/.test(text) ? Number(text) : undefined;
}

/** What a program finds where this one ends: everything. */
export function inheritedEnvironment(env: Environment = process.env): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
  );
}

/**
 * The whole environment of programs that the helper starts. Where sudoers has no `secure_path`, PATH is the user's own,
 * and a program found by it would run as root.
 */
export function programEnvironment(env: Environment = process.env): Readonly<Record<string, string>> {
  const isRoots = env["SUDO_UID"] === undefined && env["PATH"] !== undefined;
  return { PATH: isRoots ? (env["PATH"] ?? "") : systemPath, LC_ALL: "C" };
}
