// Which prefixes the device takes: the cluster's and --also-proxy's, without --never-proxy's; where prefixes nest the
// most specific wins. What is never ours is cut out rather than routed elsewhere, so that the laptop's own routes to
// it stay as they are. Pure.
import { formatPrefix, prefixContains, type Prefix } from "#packet/address.ts";
import { halvesOf } from "#packet/translation.ts";

export interface RoutingWish {
  /** Service and pod ranges. */
  readonly cluster: readonly Prefix[];
  readonly also: readonly Prefix[];
  /** --never-proxy, the API server's addresses, the host's resolvers. */
  readonly never: readonly Prefix[];
}

interface Rule {
  readonly prefix: Prefix;
  readonly proxy: boolean;
}

/** Prefixes for the device, none inside another. */
export function planRoutes(wish: RoutingWish): readonly Prefix[] {
  const rules = effectiveRules([
    ...wish.cluster.map((prefix) => ({ prefix, proxy: true })),
    ...wish.also.map((prefix) => ({ prefix, proxy: true })),
    ...wish.never.map((prefix) => ({ prefix, proxy: false })),
  ]);
  const routes: Prefix[] = [];
  for (const rule of rules) {
    if (rules.every((other) => other === rule || !strictlyInside(rule.prefix, other.prefix))) {
      cover(rule.prefix, rule.proxy, rules, routes);
    }
  }
  return routes;
}

/** Drops rules that say what the rule around them says already; at the same prefix the later (never) wins. */
function effectiveRules(rules: readonly Rule[]): readonly Rule[] {
  const byPrefix = new Map(rules.map((rule) => [formatPrefix(rule.prefix), rule]));
  const sorted = [...byPrefix.values()].sort((left, right) => left.prefix.bits - right.prefix.bits);
  const kept: Rule[] = [];
  for (const rule of sorted) {
    const around = kept.findLast((other) => strictlyInside(rule.prefix, other.prefix));
    if ((around?.proxy ?? false) !== rule.proxy) kept.push(rule);
  }
  return kept;
}

function cover(region: Prefix, proxy: boolean, rules: readonly Rule[], routes: Prefix[]): void {
  const inside = rules.filter((rule) => strictlyInside(rule.prefix, region));
  if (inside.length === 0) {
    if (proxy) routes.push(region);
    return;
  }
  for (const half of halvesOf(region)) {
    const exact = rules.find((rule) => samePrefix(rule.prefix, half));
    cover(half, exact?.proxy ?? proxy, inside, routes);
  }
}

function strictlyInside(inner: Prefix, outer: Prefix): boolean {
  return inner.bits > outer.bits && prefixContains(outer, inner.address);
}

function samePrefix(left: Prefix, right: Prefix): boolean {
  return (
    left.bits === right.bits && left.address.length === right.address.length && prefixContains(left, right.address)
  );
}
