// Traps 2 (search paths: `localhost` expanded, exclude suffixes hidden, `*.svc` missing) and 3 (wpad, DNS-SD and mDNS
// leaked to the cluster). The table is the specification of which names are ours.
import { describe, expect, test } from "vitest";
import { parsePrefix } from "#packet/address.ts";
import { dnsTypes } from "#packet/dns-message.ts";
import { checkName, checkNameOf, Names, reverseAddress, routingDomains, type DnsConfig } from "./names.ts";

const config: DnsConfig = {
  clusterDomain: "cluster.local",
  namespace: "default",
  namespaces: ["default", "staging", "kube-system", "dev", "io"],
  services: ["web"],
  includeSuffixes: [".corp.example.com", "intern", ".cloud"],
  excludes: ["excluded.staging"],
  mappings: [
    { name: "Db.", aliasFor: "postgres.staging" },
    { name: "wpad.mapped.example", aliasFor: "192.0.2.7" },
  ],
  subnets: ["10.96.0.0/12", "10.244.0.0/16", "fd00:96::/112"].map((text) => parsePrefix(text)!),
};
const names = new Names(config);

/** `→ candidate, candidate | otherwise`, or the kind. */
function describeVerdict(name: string, type: number = dnsTypes.a): string {
  const verdict = names.classify(name, type);
  if (verdict.kind === "alias") return `→ ${verdict.target}`;
  return verdict.kind === "cluster" ? `${verdict.candidates.join(", ")} | ${verdict.otherwise}` : verdict.kind;
}

const search = "hello.default.svc.cluster.local, hello.svc.cluster.local, hello.cluster.local";

test.each([
  // the cluster domain, and nobody else's
  ["hello.default.svc.cluster.local", "hello.default.svc.cluster.local | missing"],
  ["web-0.web.default.svc.cluster.local", "web-0.web.default.svc.cluster.local | missing"],
  ["10-244-0-3.default.pod.cluster.local", "10-244-0-3.default.pod.cluster.local | missing"],
  ["cluster.local", "cluster.local | missing"],
  // as in a pod
  ["hello", `${search} | host`],
  ["hello.staging", "hello.staging.svc.cluster.local | missing"],
  ["web-0.web.staging", "web-0.web.staging.svc.cluster.local | missing"],
  ["hello.default.svc", "hello.default.svc.cluster.local | missing"],
  ["kubernetes.default.svc", "kubernetes.default.svc.cluster.local | missing"],
  ["web-0.web", "web-0.web.default.svc.cluster.local | missing"],
  ["_http._tcp.web", "_http._tcp.web.default.svc.cluster.local | missing"],
  ["_http._tcp.hello.staging", "_http._tcp.hello.staging.svc.cluster.local | missing"],
  // a namespace spelled like a public suffix shares its names with the world
  ["hello.dev", "hello.dev.svc.cluster.local | host"],
  ["www.google.dev", "www.google.dev.svc.cluster.local | host"],
  ["github.io", "host"],
  // unknown last labels and public names
  ["hello.production", "host"],
  ["example.com", "host"],
  ["www.example.co.uk", "host"],
  ["cluster.local.example.org", "host"],
  ["notcluster.local", "host"],
  // suffixes: the longer one wins, exact excludes always
  ["git.corp.example.com", "git.corp.example.com | missing"],
  ["corp.example.com", "corp.example.com | missing"],
  ["example.intern", "example.intern | missing"],
  ["excluded.staging", "host"],
  ["example.cloud", "example.cloud | host"],
  // the user's own, before everything else
  ["db", "→ postgres.staging"],
  ["db.tel2-search", "→ postgres.staging"],
  ["wpad.mapped.example", "→ 192.0.2.7"],
  ["x.db", "host"],
  // never
  ["wpad", "host"],
  ["wpad.corp.example.com", "host"],
  ["wpad.default.svc.cluster.local", "missing"],
  ["wpad.staging", "host"],
  ["b._dns-sd._udp.staging", "host"],
  ["_services._dns-sd._udp.local", "host"],
  ["lb._dns-sd._udp.0.0.96.10.in-addr.arpa", "host"],
  ["printer.local", "host"],
  ["localhost", "host"],
  ["app.localhost", "host"],
  ["local", "host"],
  ["", "host"],
  ["_ldap", "host"],
  ["a\\032printer", "host"],
  ["a\\032b.staging", "a\\032b.staging.svc.cluster.local | missing"],
  ["example.onion", "host"],
  // systemd-resolved's search domain
  ["hello.tel2-search", `${search} | missing`],
  ["hello.staging.tel2-search", "hello.staging.svc.cluster.local | missing"],
  ["hello.dev.tel2-search", "hello.dev.svc.cluster.local | missing"],
  ["www.example.com.tel2-search", "missing"],
  ["wpad.tel2-search", "missing"],
  ["localhost.tel2-search", "missing"],
  ["tel2-search", "missing"],
  [checkName, "check"],
  ["telepresence-check", "check"],
])("%s → %s", (name, verdict) => {
  expect(describeVerdict(name)).toBe(verdict);
});

test("single labels that the connection's namespace lacks are looked up in further ones", () => {
  const wider = new Names({ ...config, namespaces: [], alsoNamespaces: ["Dev"] });
  expect(wider.classify("hello", dnsTypes.a)).toMatchObject({
    candidates: [
      "hello.default.svc.cluster.local",
      "hello.dev.svc.cluster.local",
      "hello.svc.cluster.local",
      "hello.cluster.local",
    ],
    otherwise: "host",
  });
  expect(wider.classify("hello.dev", dnsTypes.a)).toMatchObject({ candidates: ["hello.dev.svc.cluster.local"] });
});

describe("types", () => {
  test("single labels are the host's when a resolver walks the public tree", () => {
    for (const type of [dnsTypes.ns, dnsTypes.soa, 43, 48]) expect(describeVerdict("com", type)).toBe("host");
    for (const type of [dnsTypes.aaaa, dnsTypes.srv, dnsTypes.txt, dnsTypes.https]) {
      expect(describeVerdict("hello", type)).toBe(`${search} | host`);
    }
  });
  test.each([
    ["10.0.96.10.in-addr.arpa", "10.0.96.10.in-addr.arpa | missing"],
    ["3.0.244.10.in-addr.arpa", "3.0.244.10.in-addr.arpa | missing"],
    ["1.1.168.192.in-addr.arpa", "host"],
    ["0.96.10.in-addr.arpa", "host"],
    ["256.0.96.10.in-addr.arpa", "host"],
    [
      `${"a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f"}.ip6.arpa`,
      `${"a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f"}.ip6.arpa | missing`,
    ],
    ["f.ip6.arpa", "host"],
  ])("PTR %s → %s", (name, verdict) => {
    expect(describeVerdict(name, dnsTypes.ptr)).toBe(verdict);
  });
  test("reverseAddress() reads both families", () => {
    expect([...(reverseAddress("1.2.3.4.in-addr.arpa") ?? [])]).toEqual([4, 3, 2, 1]);
    expect(reverseAddress("example.com")).toBeUndefined();
  });
});

describe("a connection of several", () => {
  const first: DnsConfig = { ...config, connection: "dev" };
  const later: DnsConfig = { ...first, suffixOnly: true };
  const below = { zone: "cluster.local", suffix: "dev.telepresence" };
  const ours = (name: string) => ({ kind: "cluster", candidates: [name], otherwise: "missing", below });

  test.each([first, later])("has all that a pod would find below its suffix, and nothing else there", (each) => {
    const found = (name: string): unknown => new Names(each).classify(`${name}.dev.telepresence`, dnsTypes.a);
    expect(found("hello.staging")).toEqual(ours("hello.staging.svc.cluster.local"));
    expect(found("hello.default.svc.cluster.local")).toEqual(ours("hello.default.svc.cluster.local"));
    expect(found("hello")).toMatchObject({ candidates: search.split(", "), otherwise: "missing", below });
    expect(found("git.corp.example.com")).toMatchObject({ foreign: true, below });
    expect(found("example.cloud")).toMatchObject({ otherwise: "missing" });
    for (const name of ["hello.production", "example.com", "localhost", "wpad"]) {
      expect(found(name)).toEqual({ kind: "missing" });
    }
    expect(new Names(each).classify("dev.telepresence", dnsTypes.a)).toEqual({ kind: "missing" });
    // The user's own stays below it as well: bare, what it stands for may be another cluster's.
    expect(found("db")).toEqual({ kind: "alias", target: "postgres.staging.dev.telepresence" });
    expect(found("wpad.mapped.example")).toEqual({ kind: "alias", target: "192.0.2.7" });
  });

  test("has all other names as before where it is the first", () => {
    for (const name of ["hello", "hello.staging", "db", "example.com", "hello.other.telepresence", "telepresence"]) {
      expect(new Names(first).classify(name, dnsTypes.a)).toEqual(names.classify(name, dnsTypes.a));
    }
    expect(routingDomains(first)).toEqual([
      "cluster.local",
      "svc",
      "dev.telepresence",
      ...routingDomains(config).slice(2),
    ]);
    expect(checkNameOf(first)).toBe(checkName);
  });

  test("has nothing but its suffix and its addresses where it is a later one", () => {
    const there = new Names(later);
    const bare = ["hello", "hello.staging", "hello.default.svc", "cluster.local", "db", "git.corp.example.com"];
    for (const name of [...bare, checkName, "hello.other.telepresence", "hello.tel2-search", "telepresence"]) {
      expect(there.classify(name, dnsTypes.a)).toEqual({ kind: "host" });
    }
    const reverse = "10.0.96.10.in-addr.arpa";
    expect(there.classify(reverse, dnsTypes.ptr)).toEqual({ ...ours(reverse), foreign: true });
    expect(there.classify("1.1.168.192.in-addr.arpa", dnsTypes.ptr)).toEqual({ kind: "host" });
    expect(there.classify(checkNameOf(later), dnsTypes.a)).toEqual({ kind: "check" });
    expect(routingDomains(later)).toEqual(["dev.telepresence"]);
  });
});

test("a cluster domain below an excluded suffix is still ours", () => {
  const other = new Names({ ...config, clusterDomain: "K8s.Example.com." });
  expect(other.classify("hello.default.svc.k8s.example.com", dnsTypes.a)).toMatchObject({ kind: "cluster" });
  expect(other.classify("hello.example.com", dnsTypes.a)).toEqual({ kind: "host" });
  expect(other.classify("x.cluster.local", dnsTypes.a)).toEqual({ kind: "host" });
});

// The root helper takes plain labels only: a suffix with a dot in front, as the kubeconfig's extension has it, was refused.
test("systemd-resolved is told plain domains, each once, and suffixes are not crowded out by namespaces", () => {
  expect(routingDomains(config)).toEqual([
    "cluster.local",
    "svc",
    "corp.example.com",
    "intern",
    "cloud",
    "db",
    "wpad.mapped.example",
    "default",
    "staging",
    "kube-system",
    "dev",
    "io",
  ]);
  const many = Array.from({ length: 300 }, (_, index) => `ns-${index}`);
  const domains = routingDomains({ ...config, namespaces: [...many, "ns-1"] });
  expect(domains).toHaveLength(256);
  expect(domains).toContain("intern");
});
