// Names in a private mount namespace: resolv.conf names our nameserver in place of the laptop's, and resolvers that
// programs would ask by a Unix socket, which knows no namespace of networks, are out of sight.
import { existsSync, readFileSync, realpathSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { AppError } from "#base/error.ts";
import { bindFile, mountMemory, unmount } from "#kernel/private-mounts.ts";

const resolvConf = "/etc/resolv.conf";
/** Sockets of systemd-resolved and of nscd. */
const otherResolvers = ["/run/systemd/resolve", "/run/nscd", "/var/run/nscd"];

/** `stage` is a folder that nobody needs meanwhile. */
export function useNameserver(nameserver: string, stage: string): void {
  if (!existsSync(resolvConf)) {
    throw new AppError(
      "dns_hook_failed",
      `there is no ${resolvConf}; expected the file that programs find resolvers by`,
    );
  }
  const text = withNameserver(readFileSync(resolvConf, "utf8"), nameserver);
  const file = realpathSync(resolvConf); // often a symbolic link, into a folder that is covered below
  const folders = [...new Set(otherResolvers.filter(isFolder).map((folder) => realpathSync(folder)))];
  for (const folder of folders) mountMemory(folder);
  if (folders.includes(dirname(file))) {
    writeFileSync(file, text);
    return;
  }
  // In memory that goes out of sight again: all that stays is the file in the other's place.
  const source = join(stage, "resolv.conf");
  mountMemory(stage);
  writeFileSync(source, text);
  bindFile(source, file);
  unmount(stage);
}

/** The laptop's search domains and options stay. */
export function withNameserver(text: string, nameserver: string): string {
  const others = text.split(/\r?\n/).filter((line) => !/^nameserver\b/.test(line));
  return [`nameserver ${nameserver}`, ...others].join("\n").replace(/\n*$/, "\n");
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}
