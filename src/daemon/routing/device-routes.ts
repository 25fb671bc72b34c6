// The device's routes: what is wanted of the cluster's ranges, the user's and single addresses, brought to the root
// helper. When it refuses one because this machine uses the addresses for something else, the range is shown at other
// addresses instead (virtual-ranges.ts), unless that is not wanted.
import { AppError, isAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { formatPrefix, parsePrefix, prefixContains, prefixesOverlap, type Prefix } from "#packet/address.ts";
import { Translation } from "#packet/translation.ts";
import type { DaemonStatus } from "#wire/control-api.ts";
import type { HelperParams } from "#wire/helper.ts";
import { nothingReached, type Reached } from "./already-reached.ts";
import type { Ranges } from "./cluster-ranges.ts";
import { planRoutes } from "./plan-routes.ts";
import { isPrivate, SingleRoutes } from "./single-routes.ts";
import { VirtualRanges } from "./virtual-ranges.ts";

export interface RoutingWishes {
  readonly also: readonly string[];
  readonly never: readonly string[];
  /** The API server's addresses: in no route, whatever the user says. */
  readonly apiServer: readonly string[];
  /** What lies inside of these may take a part of a wider route of this machine. */
  readonly overlap?: readonly string[] | undefined;
  /** Shown at other addresses in any case: ranges, `service`, `pods`, `also`, `all`; `off`: nothing is, not even what collides. */
  readonly vnat: readonly string[];
  /** Where from those other addresses are taken. */
  readonly virtualSubnet?: string | undefined;
}

export interface DeviceRoutesOptions {
  readonly helper: { setRoutes(params: HelperParams<"routes.set">): Promise<unknown> };
  readonly wishes: RoutingWishes;
  readonly ranges: Ranges;
  /** What this machine reaches by itself, and by which device. */
  readonly reached?: Reached & { readonly by: string };
  /** The host's own nameservers. */
  readonly nameservers: readonly string[];
  /** Families that the device has an address of, as bytes of an address. */
  readonly families: readonly number[];
  /** False: what has no family here is not to be had by connecting again. Default: true. */
  readonly laptopHasIpv6?: boolean;
  /** Answered addresses that no range holds: perhaps a range has come. */
  readonly lookFor: (addresses: readonly string[]) => Promise<void>;
  /** How long ago the cluster said which its ranges are. */
  readonly rangesAgeMs?: (() => number) | undefined;
  /** Where ranges are seen has changed. */
  readonly onTranslation: (translation: Translation) => void;
  readonly log: Logger;
}

/** chosen: refusals that are answered by moving a range; a cluster has a few ranges. */
const maxMoves = 64;

export class DeviceRoutes {
  readonly #options: DeviceRoutesOptions;
  readonly #also: readonly Prefix[];
  #never: readonly Prefix[] = [];
  readonly #virtual: VirtualRanges;
  readonly #single = new SingleRoutes(() => this.apply());
  #ranges: Ranges;
  #routes: readonly Prefix[] = [];
  #translation = new Translation();
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: DeviceRoutesOptions) {
    this.#options = options;
    this.#ranges = options.ranges;
    const { also, virtualSubnet } = options.wishes;
    this.#also = parseAll(also);
    this.#keepOut(options.nameservers);
    this.#virtual = new VirtualRanges(virtualSubnet, () => [...this.#all(), ...this.#also, ...this.#never]);
    this.#addWished();
  }

  get translation(): Translation {
    return this.#translation;
  }
  /** Whose names are the cluster's: its ranges, as they are and as they are seen. */
  get ranges(): readonly Prefix[] {
    return [...this.#cluster(), ...this.#virtual.virtual];
  }

  /** What programs of this laptop reach by the device. */
  get routed(): readonly Prefix[] {
    return this.#routes;
  }

  /** What was moved although nobody asked for it. */
  get warnings(): readonly string[] {
    const reached = this.#reached();
    const by = this.#options.reached?.by ?? "";
    const missing = this.#options.laptopHasIpv6 === false ? this.#unrouted() : [];
    return [
      ...this.#virtual.entries.flatMap(({ virtual, because }) =>
        because === undefined ? [] : [`${because}; here its addresses are seen at ${formatPrefix(virtual)}`],
      ),
      ...(reached.length === 0
        ? []
        : [`this machine reaches ${reached.join(" and ")} of the cluster by itself, by ${by}: not routed here`]),
      ...(missing.length === 0
        ? []
        : [`this laptop has IPv6 switched off: ${missing.join(" and ")} of the cluster cannot be reached`]),
    ];
  }

  /** Brings what is wanted now to the helper; all or nothing. One after the other. */
  apply(): Promise<void> {
    const run = this.#last.then(() => this.#apply());
    this.#last = run.catch(() => undefined); // its caller has the error
    return run;
  }

  /** The host asks others now. */
  async setNameservers(nameservers: readonly string[]): Promise<void> {
    this.#keepOut(nameservers);
    await this.apply();
  }

  async setRanges(ranges: Ranges): Promise<void> {
    const before = this.#ranges;
    this.#ranges = ranges;
    try {
      this.#addWished();
      await this.apply();
    } catch (error) {
      this.#ranges = before; // or every later change would fail by it
      throw error;
    }
  }

  /** Addresses that a program is about to use; resolves when they are routed, as far as they can be. */
  async cover(answered: readonly string[]): Promise<void> {
    const unknown = answered.filter((text) => this.#hasFamily(text) && !this.#isKnown(text) && isPrivate(text));
    if (unknown.length === 0) return;
    await this.#options.lookFor(unknown);
    if (!this.#ranges.complete) await this.#single.cover(unknown.filter((text) => !this.#isKnown(text)));
  }

  status(): NonNullable<DaemonStatus["routing"]> {
    const { also, never, overlap = [] } = this.#options.wishes;
    const translated = this.#virtual.entries.map(({ real, virtual, because }) => ({
      subnet: formatPrefix(real),
      seenAs: formatPrefix(virtual),
      ...(because === undefined ? {} : { because }),
    }));
    const unrouted = this.#unrouted();
    const reached = this.#reached();
    const ageMs = this.#options.rangesAgeMs?.();
    return {
      subnets: this.#routes.map(formatPrefix),
      ...(ageMs === undefined ? {} : { ageMs }),
      alsoProxy: [...also],
      neverProxy: [...never],
      ...(overlap.length === 0 ? {} : { overlap: [...overlap] }),
      ...(translated.length === 0 ? {} : { translated }),
      ...(unrouted.length === 0 ? {} : { unrouted: [...unrouted], laptopHasIpv6: this.#options.laptopHasIpv6 ?? true }),
      ...(reached.length === 0 ? {} : { reached: [...reached] }),
    };
  }

  /** Trap 13: a nameserver inside the cluster's ranges would be asked through ourselves. */
  #keepOut(nameservers: readonly string[]): void {
    const { never, apiServer } = this.#options.wishes;
    this.#never = parseAll([...never, ...apiServer, ...nameservers.map(withoutZone)]);
  }

  #all(): readonly Prefix[] {
    return parseAll([...this.#ranges.services, ...this.#ranges.pods]);
  }
  #cluster(): readonly Prefix[] {
    return this.#all().filter(({ address }) => this.#options.families.includes(address.length));
  }
  #unrouted(): readonly string[] {
    return this.#all()
      .filter(({ address }) => !this.#options.families.includes(address.length))
      .map(formatPrefix);
  }
  #hasFamily(text: string): boolean {
    return this.#options.families.includes(parsePrefix(text)?.address.length ?? 0);
  }
  /** Left on this machine's own way, unless the user wants them elsewhere. */
  #reached(): readonly string[] {
    const { reached = nothingReached, wishes } = this.#options;
    const isWanted = (word: string): boolean => wishes.vnat.includes(word) || wishes.vnat.includes("all");
    return [
      ...(reached.services && !isWanted("service") ? this.#ranges.services : []),
      ...(reached.pods && !isWanted("pods") ? this.#ranges.pods : []),
    ];
  }
  #wanted(): readonly Prefix[] {
    const reached = new Set(this.#reached());
    return this.#cluster().filter((prefix) => !reached.has(formatPrefix(prefix)));
  }

  async #apply(): Promise<void> {
    const { helper, wishes } = this.#options;
    for (let moves = 0; ; moves++) {
      const planned = this.#plan();
      try {
        const overlap = parseAll(wishes.overlap ?? []).map(formatPrefix);
        await helper.setRoutes({
          routes: planned.map(formatPrefix),
          never: [...wishes.apiServer],
          ...(overlap.length === 0 ? {} : { overlap }),
        });
        this.#routes = planned;
        this.#publish();
        return;
      } catch (error) {
        if (moves >= maxMoves || !this.#moveAway(error)) throw error;
      }
    }
  }

  #plan(): readonly Prefix[] {
    return planRoutes({
      cluster: [...this.#wanted(), ...this.#single.prefixes, ...this.#virtual.virtual],
      also: this.#also,
      never: [...this.#never, ...this.#virtual.real],
    });
  }

  /** Shows what was refused at other addresses; false when it is nothing of the cluster's, or not wanted. */
  #moveAway(error: unknown): boolean {
    if (!isAppError(error, "route_conflict")) return false;
    const { route, against } = error.fields as { readonly route?: string; readonly against?: readonly string[] };
    const refused = route === undefined ? undefined : parsePrefix(route);
    if (refused === undefined) return false;
    if (this.#virtual.avoid(refused, parsePrefix(against?.[0] ?? ""))) return true;
    if (this.#options.wishes.vnat.includes("off") || this.#also.some((prefix) => isInside(refused, prefix)))
      return false;
    const range = [...this.#wanted(), ...this.#single.prefixes].find((prefix) => isInside(refused, prefix));
    if (range === undefined) return false;
    this.#options.log.warn("a range of the cluster is shown at other addresses", { reason: error.message });
    this.#virtual.add(range, error.message);
    return true;
  }

  #publish(): void {
    const next = this.#virtual.translation(this.#never);
    if (JSON.stringify(next.mappings) === JSON.stringify(this.#translation.mappings)) return;
    this.#translation = next;
    this.#options.onTranslation(next);
  }

  #addWished(): void {
    const { vnat, also } = this.#options.wishes;
    const { services, pods } = this.#ranges;
    const named: Readonly<Record<string, readonly string[]>> = {
      service: services,
      pods,
      also,
      all: [...services, ...pods, ...also],
      off: [],
    };
    for (const prefix of parseAll(vnat.flatMap((wish) => named[wish] ?? [wish]))) {
      if (this.#options.families.includes(prefix.address.length)) this.#virtual.add(prefix);
    }
  }

  /** Routed, seen elsewhere, or never to be routed. */
  #isKnown(text: string): boolean {
    const address = parsePrefix(text);
    if (address === undefined) return true;
    const known = [...this.#routes, ...this.#virtual.real, ...this.#never, ...parseAll(this.#reached())];
    return known.some((prefix) => prefixesOverlap(prefix, address));
  }
}

function isInside(inner: Prefix, outer: Prefix): boolean {
  return inner.bits >= outer.bits && prefixContains(outer, inner.address);
}

function withoutZone(address: string): string {
  return address.split("%")[0] ?? address;
}

function parseAll(cidrs: readonly string[]): readonly Prefix[] {
  return cidrs.map((cidr) => {
    const prefix = parsePrefix(cidr);
    if (prefix !== undefined) return prefix;
    throw new AppError("invalid_config", `${cidr} is not an address range; expected a form like 10.0.0.0/8`, {
      hint: "check --also-proxy, --never-proxy, --allow-conflicting-subnets, --vnat and the kubeconfig's extension",
    });
  });
}
