// One of the host's own nameservers, and how its answers are recognised.
import { formatAddress, parseAddress } from "#packet/address.ts";
import { dnsHeaderBytes, readQuestion } from "#packet/dns-message.ts";

export interface Upstream {
  /** IP address; IPv6 may carry a zone (`fe80::1%eth0`). */
  readonly address: string;
  readonly port: number;
}

/** Nameservers of the laptop's, by address. */
export function upstreamsOf(addresses: readonly string[]): readonly Upstream[] {
  return addresses.map((address) => ({ address, port: 53 }));
}

/** Where a datagram came from is where this upstream is; zones and spellings of IPv6 do not count. */
export function isFrom(upstream: Upstream, address: string, port: number): boolean {
  return upstream.port === port && canonical(upstream.address) === canonical(address);
}

export function isIpv6(upstream: Upstream): boolean {
  return upstream.address.includes(":");
}

/** Whether the reply repeats the query's question, letter case aside. Replies without one (REFUSED and the like) pass. */
export function answersQuestion(query: Uint8Array, reply: Uint8Array): boolean {
  if (reply.length < dnsHeaderBytes || ((reply[2] ?? 0) & 0x80) === 0) return false;
  if (reply[4] === 0 && reply[5] === 0) return true;
  const asked = readQuestion(query);
  const answered = readQuestion(reply);
  if (asked === undefined || answered === undefined) return asked === answered;
  return asked.name === answered.name && asked.type === answered.type && asked.class === answered.class;
}

/** A copy of the message under another id; everything else stays as it is. */
export function withId(message: Uint8Array, id: number): Uint8Array {
  const copy = Uint8Array.from(message);
  copy[0] = id >>> 8;
  copy[1] = id & 0xff;
  return copy;
}

export function idOf(message: Uint8Array): number {
  return ((message[0] ?? 0) << 8) | (message[1] ?? 0);
}

function canonical(address: string): string {
  const bare = address.replace(/%.*$/, "");
  const parsed = parseAddress(bare);
  return parsed === undefined ? bare : formatAddress(parsed);
}
