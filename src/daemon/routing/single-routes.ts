// Where the cluster's ranges had to be guessed: routes added one by one for answered addresses that no range covers. An
// answer is no use without a route, so it comes first.
// Invariant: a route that could not be set is not kept, because all are set together and it would fail every later one.
import { parseAddress, parsePrefix, prefixContains, type Prefix } from "#packet/address.ts";

/** chosen: below what the helper takes, far above what one person looks up. */
const maxSingleRoutes = 1000;

/** Where clusters have their addresses (RFC 1918, 6598, 4193); a public one in an answer stays the laptop's. */
const privateRanges = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"].flatMap(
  (text) => parsePrefix(text) ?? [],
);

export class SingleRoutes {
  readonly #apply: () => Promise<void>;
  readonly #routes = new Map<string, Prefix>();

  /** `apply` sets all routes as they are wanted then. */
  constructor(apply: () => Promise<void>) {
    this.#apply = apply;
  }

  get prefixes(): readonly Prefix[] {
    return [...this.#routes.values()];
  }

  /** Private addresses that no route covers. Rejects when they cannot be set; those that were there before stay. */
  async cover(uncovered: readonly string[]): Promise<void> {
    const added: string[] = [];
    for (const text of uncovered) {
      const address = parseAddress(text);
      if (address === undefined || !isPrivate(text)) continue;
      if (this.#routes.has(text) || this.#routes.size >= maxSingleRoutes) continue;
      this.#routes.set(text, { address, bits: address.length * 8 });
      added.push(text);
    }
    if (added.length === 0) return;
    try {
      await this.#apply();
    } catch (error) {
      for (const text of added) this.#routes.delete(text);
      throw error;
    }
  }
}

export function isPrivate(text: string): boolean {
  const address = parseAddress(text);
  return address !== undefined && privateRanges.some((range) => prefixContains(range, address));
}
