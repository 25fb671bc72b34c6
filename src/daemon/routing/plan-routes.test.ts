import { describe, expect, test } from "vitest";
import { formatPrefix, parsePrefix, prefixContains, type IpAddress, type Prefix } from "#packet/address.ts";
import fc from "fast-check";
import { planRoutes } from "./plan-routes.ts";

const prefix = (text: string): Prefix => {
  const parsed = parsePrefix(text);
  if (parsed === undefined) throw new Error(`${text} is not a prefix`);
  return parsed;
};
const plan = (cluster: string[], also: string[] = [], never: string[] = []): string[] =>
  planRoutes({ cluster: cluster.map(prefix), also: also.map(prefix), never: never.map(prefix) })
    .map(formatPrefix)
    .sort();

describe("planRoutes()", () => {
  test("drops prefixes that another covers", () => {
    expect(plan(["10.0.0.0/8", "10.96.0.0/16", "10.244.0.0/24"])).toEqual(["10.0.0.0/8"]);
  });
  test("keeps both families apart", () => {
    expect(plan(["10.96.0.0/16", "fd00:96::/112"])).toEqual(["10.96.0.0/16", "fd00:96::/112"]);
  });
  // Trap 12: an API server inside the service or pod range was proxied into itself.
  test("cuts an address that is never ours out of the range around it", () => {
    expect(plan(["10.0.0.0/30"], [], ["10.0.0.2/32"])).toEqual(["10.0.0.0/31", "10.0.0.3/32"]);
  });
  test("lets a more specific also-proxy win inside a never-proxy", () => {
    expect(plan(["10.0.0.0/8"], ["10.1.1.1/32"], ["10.1.0.0/16"])).toContain("10.1.1.1/32");
  });
  test("gives nothing for a range that is never ours, but keeps one that is more specific than it", () => {
    expect(plan(["10.1.0.0/16"], [], ["10.1.0.0/16"])).toEqual([]);
    expect(plan(["10.1.0.0/16"], [], ["10.0.0.0/8"])).toEqual(["10.1.0.0/16"]);
  });
  test("agrees with the most specific rule for every address", () => {
    const rule = fc.tuple(fc.integer({ min: 0, max: 255 }), fc.integer({ min: 24, max: 32 }));
    const addresses = Array.from({ length: 256 }, (_, last) => prefix(`10.0.0.${last}`).address);
    const text = ([last, bits]: [number, number]): string => formatPrefix(prefix(`10.0.0.${last}/${bits}`));
    fc.assert(
      fc.property(fc.array(rule), fc.array(rule), (cluster, never) => {
        const routes = plan(cluster.map(text), [], never.map(text)).map(prefix);
        const [inCluster, inNever] = [cluster, never].map((rules) => rules.map(text).map(prefix)) as [
          Prefix[],
          Prefix[],
        ];
        const counts = addresses.map((address) => routes.filter((p) => prefixContains(p, address)).length);
        const most = (rules: readonly Prefix[], address: IpAddress): number =>
          Math.max(-1, ...rules.filter((p) => prefixContains(p, address)).map((p) => p.bits));
        expect(counts).toEqual(addresses.map((address) => (most(inCluster, address) > most(inNever, address) ? 1 : 0)));
      }),
      { numRuns: 50 },
    );
  });
});
