// Where a request comes from. X-Forwarded-For is anybody's to write, so it counts only from a proxy that was named, and
// is read from its end: each trusted proxy has added the address that it saw. Callers are counted by it, and one of IPv6
// has a whole /64 to call from: that is its address here.
import ipaddr from "ipaddr.js";
import { AppError } from "#base/error.ts";

export type ForwardedAddress = (peer: string, forwardedFor: string | undefined) => string;

/** `whole`: of IPv6 as well, for whoever is told the address. */
export function trustProxies(ranges: readonly string[], whole = false): ForwardedAddress {
  const trusted = ranges.map(parseRange);
  const isTrusted = (text: string): boolean => {
    if (!ipaddr.isValid(text)) return false;
    const address = ipaddr.process(text);
    return trusted.some(([range, bits]) => range.kind() === address.kind() && address.match(range, bits));
  };
  return (peer, forwardedFor) => {
    const hops = (forwardedFor ?? "").split(",").map((hop) => hop.trim());
    let address = peer;
    while (isTrusted(address)) {
      const before = hops.pop();
      if (before === undefined || !ipaddr.isValid(before)) break;
      address = before;
    }
    if (!ipaddr.isValid(address)) return address;
    const plain = ipaddr.process(address).toString();
    return plain.includes(":") && !whole ? ipaddr.IPv6.networkAddressFromCIDR(`${plain}/64`).toString() : plain;
  };
}

function parseRange(text: string): [ipaddr.IPv4 | ipaddr.IPv6, number] {
  try {
    return text.includes("/") ? ipaddr.parseCIDR(text) : [ipaddr.parse(text), text.includes(":") ? 128 : 32];
  } catch (cause) {
    throw new AppError("usage", `--trusted-proxies has "${text}", expected addresses or ranges`, { cause });
  }
}
