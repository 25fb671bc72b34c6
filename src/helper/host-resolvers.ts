// The nameservers that the host uses, read anew each time: they may change with the network, and none may become a
// route. Loopback ones (a stub) are left out: no route can capture them.
import { readFileSync } from "node:fs";
import { parseResolvConf } from "#host/resolv-conf.ts";
import { parseAddress } from "#packet/address.ts";
import type { IpAddress } from "#packet/address.ts";

const files = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

export function hostResolvers(): readonly IpAddress[] {
  return files
    .flatMap((path) => parseResolvConf(readIfThere(path)).nameservers)
    .map((text) => parseAddress(text.split("%")[0] ?? ""))
    .filter((address) => address !== undefined && address[0] !== 127)
    .filter((address) => address !== undefined);
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // absent or unreadable: either way it says nothing
  }
}
