// The nameservers that the host uses, read anew each time: they may change with the network. None may become a route,
// and look-ups of no other address may be redirected.
import { readFileSync } from "node:fs";
import { askedNameservers, parseResolvConf } from "#host/resolv-conf.ts";
import { parseAddress } from "#packet/address.ts";
import type { IpAddress } from "#packet/address.ts";

const systemFile = "/etc/resolv.conf";
/** Of systemd-resolved's own nameservers. */
const resolvedFile = "/run/systemd/resolve/resolv.conf";

/** All of them, a stub on loopback too. */
export function configuredNameservers(): readonly IpAddress[] {
  const named = askedNameservers(parseResolvConf(readIfThere(systemFile)));
  return [...named, ...parseResolvConf(readIfThere(resolvedFile)).nameservers]
    .map((text) => parseAddress(text.split("%")[0] ?? ""))
    .filter((address) => address !== undefined);
}

/** Those that a route could capture: not the ones on loopback. */
export function hostResolvers(): readonly IpAddress[] {
  return configuredNameservers().filter((address) => address[0] !== 127);
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // absent or unreadable: either way it says nothing
  }
}
