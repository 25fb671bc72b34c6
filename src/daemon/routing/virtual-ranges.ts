// Where ranges of the cluster are seen whose addresses this machine uses for something else (a VPN, Docker, its own
// network): each is mapped to a free range of the same size, named by the user beforehand or because the root helper
// refused its route. The pool is class E (240.0.0.0/4), which no network uses and Linux routes like any other, or
// `routing.virtualSubnet`; for IPv6 a unique local prefix (RFC 4193) of our own.
import { AppError } from "#base/error.ts";
import { formatPrefix, parsePrefix, prefixContains, type Prefix } from "#packet/address.ts";
import { findFreePrefix, Translation } from "#packet/translation.ts";
import { deviceNetworks } from "./device-addresses.ts";

const defaultPool4 = "240.0.0.0/4";
const pool6 = prefixOf("fd74:656c::/32");
/** The devices' own networks, and what is no address of a host. */
const reserved = [...deviceNetworks, "255.255.255.255/32"].map(prefixOf);

interface Entry {
  readonly real: Prefix;
  readonly virtual: Prefix;
  /** Why, when nobody asked for it. */
  readonly because?: string;
}

export class VirtualRanges {
  readonly #pool4: Prefix;
  readonly #elsewhere: () => readonly Prefix[];
  readonly #entries: Entry[] = [];
  /** What of the pools this machine has in use. */
  readonly #avoided: Prefix[] = [];

  /** `elsewhere`: what is seen where it is. A cluster may have its pods in class E, and a named pool may be any. */
  constructor(pool = defaultPool4, elsewhere: () => readonly Prefix[] = () => []) {
    this.#pool4 = prefixOf(pool);
    this.#elsewhere = elsewhere;
  }

  get entries(): readonly Entry[] {
    return this.#entries;
  }
  get real(): readonly Prefix[] {
    return this.#entries.map(({ real }) => real);
  }
  get virtual(): readonly Prefix[] {
    return this.#entries.map(({ virtual }) => virtual);
  }
  /** `untouched` ranges are seen where they are. */
  translation(untouched: readonly Prefix[]): Translation {
    return new Translation(this.#entries, untouched);
  }

  /** Once for each; throws when the pool has no room. */
  add(real: Prefix, because?: string): void {
    if (this.#entries.some((entry) => formatPrefix(entry.real) === formatPrefix(real))) return;
    this.#entries.push({ real, virtual: this.#take(real), ...(because === undefined ? {} : { because }) });
  }

  /** This machine has `used` in use, so whatever lies there moves. False when nothing of ours does. */
  avoid(refused: Prefix, used: Prefix | undefined): boolean {
    const index = this.#entries.findIndex(({ virtual }) => isInside(refused, virtual));
    const entry = this.#entries[index];
    if (entry === undefined) return false;
    this.#avoided.push(used ?? entry.virtual);
    this.#entries.splice(index, 1);
    this.#entries.splice(index, 0, { ...entry, virtual: this.#take(entry.real) });
    return true;
  }

  #take(real: Prefix): Prefix {
    const pool = real.address.length === 4 ? this.#pool4 : pool6;
    const taken = [...reserved, ...this.#avoided, ...this.#elsewhere(), ...this.virtual];
    const found = findFreePrefix(pool, real.bits, taken);
    if (found !== undefined) return found;
    throw new AppError("route_conflict", `${formatPrefix(pool)} has no room to show ${formatPrefix(real)} in`, {
      hint: "set a larger `routing.virtualSubnet`, or leave the addresses out with --never-proxy",
    });
  }
}

function isInside(inner: Prefix, outer: Prefix): boolean {
  return inner.bits >= outer.bits && prefixContains(outer, inner.address);
}

function prefixOf(text: string): Prefix {
  const prefix = parsePrefix(text);
  if (prefix !== undefined) return prefix;
  throw new AppError("invalid_config", `${text} is not an address range; expected a form like 10.0.0.0/8`, {
    hint: "check `routing.virtualSubnet`",
  });
}
