// Addresses that are seen elsewhere than they are: whole prefixes mapped one to one, so that nothing is remembered of
// single addresses and the same one is found again after a reconnect. Pure.
import {
  formatAddress,
  parseAddress,
  prefixContains,
  prefixesOverlap,
  type IpAddress,
  type Prefix,
} from "./address.ts";

/** What may be an address of either family; not in the middle of a longer number. */
const addressLike =
  /(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}(?![\w.])|[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7}(?![\w:]))/g;

export interface Mapping {
  /** Where the cluster has them. */
  readonly real: Prefix;
  /** Where the laptop sees them; as long as the real one. */
  readonly virtual: Prefix;
}

export class Translation {
  readonly #mappings: readonly Mapping[];
  readonly #untouched: readonly Prefix[];

  /** `untouched` prefixes are seen where they are; where prefixes nest the most specific wins. */
  constructor(mappings: readonly Mapping[] = [], untouched: readonly Prefix[] = []) {
    this.#mappings = mappings.toSorted((left, right) => right.real.bits - left.real.bits);
    this.#untouched = untouched;
  }

  get mappings(): readonly Mapping[] {
    return this.#mappings;
  }
  /** Where the laptop sees the address, when that is elsewhere. */
  toVirtual(address: IpAddress): IpAddress | undefined {
    const found = this.#mappings.find(({ real }) => prefixContains(real, address));
    if (found === undefined) return undefined;
    const stays = this.#untouched.some((other) => other.bits >= found.real.bits && prefixContains(other, address));
    return stays ? undefined : move(address, found.virtual);
  }
  /** A text in which each address is as the laptop sees it: the value of an environment variable, say. */
  inText(text: string): string {
    if (this.#mappings.length === 0) return text;
    return text.replace(addressLike, (word) => {
      const address = parseAddress(word);
      const seen = address === undefined ? undefined : this.toVirtual(address);
      return seen === undefined ? word : formatAddress(seen);
    });
  }
  /** The address behind what the laptop sees. */
  toReal(address: IpAddress): IpAddress | undefined {
    const found = this.#mappings.find(({ virtual }) => prefixContains(virtual, address));
    return found === undefined ? undefined : move(address, found.real);
  }
}

/** The first prefix of that length in the pool that none of `taken` overlaps. */
export function findFreePrefix(pool: Prefix, bits: number, taken: readonly Prefix[]): Prefix | undefined {
  if (bits < pool.bits) return undefined;
  const inside = taken.filter(
    (prefix) => prefixesOverlap(prefix, pool) && prefix.address.length === pool.address.length,
  );
  if (inside.length === 0) return { address: pool.address, bits };
  if (pool.bits === bits || inside.some((prefix) => prefix.bits <= pool.bits)) return undefined;
  const [lower, upper] = halvesOf(pool);
  return findFreePrefix(lower, bits, inside) ?? findFreePrefix(upper, bits, inside);
}

/** Its two halves. */
export function halvesOf(region: Prefix): readonly [Prefix, Prefix] {
  const bits = region.bits + 1;
  const upper = Uint8Array.from(region.address);
  const index = region.bits >>> 3;
  upper[index] = (upper[index] ?? 0) | (0x80 >>> (region.bits & 7));
  return [
    { address: region.address, bits },
    { address: upper, bits },
  ];
}

/** The same host in another network. */
function move(address: IpAddress, { address: network, bits }: Prefix): IpAddress {
  return address.map((byte, index) => {
    const kept = Math.min(8, Math.max(0, bits - index * 8));
    const mask = (0xff << (8 - kept)) & 0xff;
    return ((network[index] ?? 0) & mask) | (byte & ~mask & 0xff);
  });
}
