// IP addresses and prefixes as numbers: 4 or 16 bytes in network order. Text appears only at the edges (configuration,
// logs, the wire's OPEN body). Parsing is strict: no octal, no short forms, no zones.

/** 4 bytes (IPv4) or 16 bytes (IPv6), network order; never changed after parsing. */
export type IpAddress = Uint8Array;

export interface Prefix {
  readonly address: IpAddress;
  /** Length of the prefix, 0–32 or 0–128; bits behind it are zero. */
  readonly bits: number;
}

/** The address, or undefined when the text is not exactly one. */
export function parseAddress(text: string): IpAddress | undefined {
  return text.includes(":") ? parseIpv6(text) : parseIpv4(text);
}

/** Canonical text (RFC 5952 for IPv6) of the 4 or 16 bytes from `offset`. */
export function formatAddress(bytes: Uint8Array, offset = 0, byteLength = bytes.length - offset): string {
  return byteLength === 4 ? formatIpv4(bytes, offset) : formatIpv6(bytes, offset);
}

/** `10.0.0.0/8`, `fd00::/8` or a bare address (all its bits). Bits behind the prefix are cleared. */
export function parsePrefix(text: string): Prefix | undefined {
  const slash = text.indexOf("/");
  const address = parseAddress(slash === -1 ? text : text.slice(0, slash));
  if (address === undefined) return undefined;
  const maxBits = address.length * 8;
  if (slash === -1) return { address, bits: maxBits };
  const tail = text.slice(slash + 1);
  const bits = Number(tail);
  if (!/^\d{1,3}$/.test(tail) || bits > maxBits) return undefined;
  return { address: maskAddress(address, bits), bits };
}

export function formatPrefix(prefix: Prefix): string {
  return `${formatAddress(prefix.address)}/${prefix.bits}`;
}

/** Whether the address (the 4 or 16 bytes from `offset`) lies in the prefix; families never match each other. */
export function prefixContains(
  prefix: Prefix,
  bytes: Uint8Array,
  offset = 0,
  byteLength = bytes.length - offset,
): boolean {
  if (prefix.address.length !== byteLength) return false;
  const whole = prefix.bits >>> 3;
  for (let index = 0; index < whole; index++) {
    if (prefix.address[index] !== bytes[offset + index]) return false;
  }
  const rest = prefix.bits & 7;
  if (rest === 0) return true;
  const mask = (0xff << (8 - rest)) & 0xff;
  return ((prefix.address[whole] ?? 0) & mask) === ((bytes[offset + whole] ?? 0) & mask);
}

/** Whether the two prefixes share an address. */
export function prefixesOverlap(left: Prefix, right: Prefix): boolean {
  return left.bits <= right.bits ? prefixContains(left, right.address) : prefixContains(right, left.address);
}

export function sameAddress(left: IpAddress, right: Uint8Array, rightOffset = 0): boolean {
  for (let index = 0; index < left.length; index++) {
    if (left[index] !== right[rightOffset + index]) return false;
  }
  return true;
}

/** Multicast, the limited broadcast, or the unspecified address: never a target of ours. */
export function isGroupAddress(bytes: Uint8Array, offset: number, byteLength: number): boolean {
  const first = bytes[offset] ?? 0;
  if (byteLength === 16) return first === 0xff || isAll(bytes, offset, 16, 0);
  return (first >= 224 && first < 240) || isAll(bytes, offset, 4, 255) || isAll(bytes, offset, 4, 0);
}

function isAll(bytes: Uint8Array, offset: number, byteLength: number, value: number): boolean {
  for (let index = 0; index < byteLength; index++) {
    if (bytes[offset + index] !== value) return false;
  }
  return true;
}

function maskAddress(address: IpAddress, bits: number): IpAddress {
  return address.map((byte, index) => {
    const kept = Math.min(8, Math.max(0, bits - index * 8));
    return byte & (0xff << (8 - kept)) & 0xff;
  });
}

function parseIpv4(text: string): IpAddress | undefined {
  const parts = text.split(".");
  if (parts.length !== 4) return undefined;
  const bytes = new Uint8Array(4);
  for (const [index, part] of parts.entries()) {
    if (!/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return undefined;
    bytes[index] = Number(part);
  }
  return bytes;
}

function parseIpv6(text: string): IpAddress | undefined {
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const head = parseGroups(halves[0] ?? "", halves.length === 1);
  const tail = halves.length === 2 ? parseGroups(halves[1] ?? "", true) : [];
  if (head === undefined || tail === undefined) return undefined;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 1) return undefined;
  const bytes = new Uint8Array(16);
  [...head, ...Array<number>(missing).fill(0), ...tail].forEach((group, index) => {
    bytes[index * 2] = group >>> 8;
    bytes[index * 2 + 1] = group & 0xff;
  });
  return bytes;
}

function parseGroups(text: string, mayEndInIpv4: boolean): number[] | undefined {
  if (text === "") return [];
  const groups: number[] = [];
  const parts = text.split(":");
  for (const [index, part] of parts.entries()) {
    if (/^[0-9a-fA-F]{1,4}$/.test(part)) {
      groups.push(Number.parseInt(part, 16));
      continue;
    }
    const dotted = mayEndInIpv4 && index === parts.length - 1 ? parseIpv4(part) : undefined;
    if (dotted === undefined) return undefined;
    groups.push(((dotted[0] ?? 0) << 8) | (dotted[1] ?? 0), ((dotted[2] ?? 0) << 8) | (dotted[3] ?? 0));
  }
  return groups;
}

function formatIpv4(bytes: Uint8Array, offset: number): string {
  return `${bytes[offset]}.${bytes[offset + 1]}.${bytes[offset + 2]}.${bytes[offset + 3]}`;
}

function formatIpv6(bytes: Uint8Array, offset: number): string {
  const groups: number[] = [];
  for (let index = 0; index < 16; index += 2) {
    groups.push(((bytes[offset + index] ?? 0) << 8) | (bytes[offset + index + 1] ?? 0));
  }
  const run = longestZeroRun(groups);
  const hex = (from: number, to: number): string =>
    groups
      .slice(from, to)
      .map((group) => group.toString(16))
      .join(":");
  return run.length < 2 ? hex(0, 8) : `${hex(0, run.start)}::${hex(run.start + run.length, 8)}`;
}

function longestZeroRun(groups: readonly number[]): { readonly start: number; readonly length: number } {
  let best = { start: 0, length: 0 };
  for (let start = 0; start < groups.length; start++) {
    let end = start;
    while (end < groups.length && groups[end] === 0) end++;
    if (end - start > best.length) best = { start, length: end - start };
  }
  return best;
}
