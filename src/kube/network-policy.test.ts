// The rules of NetworkPolicies as a table. Each row: policies, and whether the connection is certain to be cut.
import { describe, expect, test } from "vitest";
import type { NetworkPolicy, PolicyPod } from "./network-policy.ts";
import { findCut, findLost, governs, matchesSelector } from "./network-policy.ts";

const web: PolicyPod = {
  namespace: "shop",
  namespaceLabels: { team: "blue" },
  labels: { app: "web", tier: "front" },
  ips: ["10.1.0.7", "fd00::7"],
  namedPorts: [{ name: "http", port: 8080, protocol: "TCP" }],
};
const manager: PolicyPod = {
  namespace: "telepresence",
  namespaceLabels: {},
  labels: { app: "manager" },
  ips: ["10.1.9.9"],
  namedPorts: [{ name: "agents", port: 8443, protocol: "TCP" }],
};
const unreadable: PolicyPod = { ...manager, namespaceLabels: undefined };

type Spec = NonNullable<NetworkPolicy["spec"]>;
const policy = (spec: Spec, name = "p", namespace = "shop"): NetworkPolicy => ({ metadata: { name, namespace }, spec });
const flow = { from: web, to: manager, port: 8443, protocol: "TCP" as const };
const egress = (...rules: NonNullable<Spec["egress"]>): Spec => ({ policyTypes: ["Egress"], egress: rules });
const onlyName = (name: string) => ({ matchLabels: { "kubernetes.io/metadata.name": name } });

describe("a connection out of a pod", () => {
  const rows: readonly (readonly [what: string, spec: Spec, cut: boolean])[] = [
    ["no rules at all", egress(), true],
    ["one empty rule", egress({}), false],
    ["policyTypes left out, egress there", { egress: [] }, true],
    ["policyTypes left out, no egress", { ingress: [] }, false],
    ["another direction", { policyTypes: ["Ingress"] }, false],
    ["another pod", { ...egress(), podSelector: { matchLabels: { app: "db" } } }, false],
    ["this pod", { ...egress(), podSelector: { matchLabels: { app: "web" } } }, true],
    ["the port", egress({ ports: [{ port: 8443 }] }), false],
    ["another port", egress({ ports: [{ port: 443 }] }), true],
    ["a range that holds the port", egress({ ports: [{ port: 8000, endPort: 9000 }] }), false],
    ["a range beside it", egress({ ports: [{ port: 8000, endPort: 8442 }] }), true],
    ["every port of TCP", egress({ ports: [{ protocol: "TCP" }] }), false],
    ["another protocol", egress({ ports: [{ port: 8443, protocol: "UDP" }] }), true],
    ["the port by name", egress({ ports: [{ port: "agents" }] }), false],
    ["another name", egress({ ports: [{ port: "dns" }] }), true],
    ["a second port", egress({ ports: [{ port: 53 }, { port: 8443 }] }), false],
    ["the namespace by its name", egress({ to: [{ namespaceSelector: onlyName("telepresence") }] }), false],
    ["another namespace", egress({ to: [{ namespaceSelector: onlyName("kube-system") }] }), true],
    ["every namespace", egress({ to: [{ namespaceSelector: {} }] }), false],
    ["pods of its own namespace", egress({ to: [{ podSelector: {} }] }), true],
    [
      "the pod in any namespace",
      egress({ to: [{ namespaceSelector: {}, podSelector: { matchLabels: manager.labels } }] }),
      false,
    ],
    [
      "other pods of that namespace",
      egress({ to: [{ namespaceSelector: {}, podSelector: { matchLabels: { app: "x" } } }] }),
      true,
    ],
    ["a block that holds the address: plugins differ", egress({ to: [{ ipBlock: { cidr: "10.1.0.0/16" } }] }), false],
    [
      "a block, but not the address",
      egress({ to: [{ ipBlock: { cidr: "10.1.0.0/16", except: ["10.1.9.0/24"] } }] }),
      true,
    ],
    ["a block elsewhere", egress({ to: [{ ipBlock: { cidr: "192.0.2.0/24" } }] }), true],
    ["a block of the other family", egress({ to: [{ ipBlock: { cidr: "fd00::/8" } }] }), true],
    ["a block that is none", egress({ to: [{ ipBlock: { cidr: "everything" } }] }), false],
    ["peer and port must be in one rule", egress({ to: [{ podSelector: {} }] }, { ports: [{ port: 443 }] }), true],
  ];
  test.each(rows)("%s", (_, spec, cut) => {
    expect(findCut([policy(spec)], "Egress", flow).length > 0).toBe(cut);
  });

  test("is let through by one of several policies, and cut by all of them together", () => {
    const [first, second] = [policy(egress(), "a"), policy(egress({ ports: [{ port: 443 }] }), "b")];
    expect(findCut([first, second, policy(egress({}), "c")], "Egress", flow)).toEqual([]);
    expect(findCut([first, second], "Egress", flow).map(({ metadata }) => metadata.name)).toEqual(["a", "b"]);
    expect(findCut([], "Egress", flow)).toEqual([]);
  });

  test("is not certain to be cut where the namespace's labels may not be read", () => {
    const to = (selector: object) => [policy(egress({ to: [{ namespaceSelector: selector }] }))];
    const asked = { ...flow, to: unreadable };
    expect(findCut(to({ matchLabels: { team: "x" } }), "Egress", asked)).toEqual([]);
    expect(findCut(to(onlyName("telepresence")), "Egress", asked)).toEqual([]);
    expect(findCut(to(onlyName("other")), "Egress", asked)).toHaveLength(1);
    expect(findCut(to({ matchLabels: { team: "x", ...onlyName("other").matchLabels } }), "Egress", asked)).toHaveLength(
      1,
    );
    expect(findCut(to({ matchLabels: { team: "x" } }), "Egress", flow)).toHaveLength(1);
  });
});

describe("a connection into a pod", () => {
  const rows: readonly (readonly [what: string, spec: Spec, cut: boolean])[] = [
    ["no rules at all", {}, true],
    ["policyTypes left out, egress only", { egress: [{}] }, true],
    ["policyTypes say egress only", { policyTypes: ["Egress"] }, false],
    [
      "the caller's namespace by a label",
      { ingress: [{ from: [{ namespaceSelector: { matchLabels: { team: "blue" } } }] }] },
      false,
    ],
    ["another label", { ingress: [{ from: [{ namespaceSelector: { matchLabels: { team: "red" } } }] }] }, true],
    ["pods of the policy's namespace", { ingress: [{ from: [{ podSelector: {} }] }] }, true],
    ["port by the pod's own name for it", { ingress: [{ ports: [{ port: "agents" }] }] }, false],
    ["one of two peers", { ingress: [{ from: [{ podSelector: {} }, { namespaceSelector: {} }] }] }, false],
  ];
  test.each(rows)("%s", (_, spec, cut) => {
    expect(findCut([policy(spec, "p", "telepresence")], "Ingress", flow).length > 0).toBe(cut);
  });

  test("is not judged by policies of another namespace", () => {
    expect(findCut([policy({}, "p", "shop")], "Ingress", flow)).toEqual([]);
  });
});

describe("a port whose place another one takes", () => {
  const ports = { port: 8080, instead: 24_900 };
  const front = { podSelector: { matchLabels: { tier: "front" } } };
  const rows: readonly (readonly [what: string, rules: NonNullable<Spec["ingress"]>, lost: number])[] = [
    ["admitted by number", [{ ports: [{ port: 8080 }] }], 1],
    ["admitted by name", [{ ports: [{ port: "http" }] }], 0],
    ["admitted by name and number", [{ ports: [{ port: 8080 }] }, { ports: [{ port: "http" }] }], 0],
    ["admitted with every port", [{}], 0],
    ["admitted in a range", [{ ports: [{ port: 8000, endPort: 9000 }] }], 1],
    ["admitted in a range that holds both", [{ ports: [{ port: 8000, endPort: 30_000 }] }], 0],
    ["not admitted before either", [{ ports: [{ port: 9090 }] }], 0],
    ["admitted by number for some, with every port for all", [{ from: [front], ports: [{ port: 8080 }] }, {}], 0],
    [
      "admitted by number for some, by name for others",
      [
        { from: [front], ports: [{ port: 8080 }] },
        { from: [{ podSelector: {} }], ports: [{ port: "http" }] },
      ],
      1,
    ],
    ["admitted by number and by name for the same", [{ from: [front], ports: [{ port: 8080 }, { port: "http" }] }], 0],
    ["admitted for UDP", [{ ports: [{ port: 8080, protocol: "UDP" }] }], 0],
  ];
  test.each(rows)("%s", (_, ingress, lost) => {
    expect(findLost([policy({ ingress })], web, ports)).toHaveLength(lost);
  });

  test("names each policy once, and no other pod's", () => {
    const rule = { ports: [{ port: 8080 }] };
    const other = policy({ podSelector: { matchLabels: { app: "db" } }, ingress: [rule] }, "db");
    const lost = findLost([policy({ ingress: [rule, { ...rule, from: [front] }] }, "a"), other], web, ports);
    expect(lost.map(({ metadata }) => metadata.name)).toEqual(["a"]);
  });
});

describe("a selector", () => {
  const labels = { app: "web", tier: "front" };
  test.each([
    [{}, true],
    [{ matchLabels: { app: "web", tier: "back" } }, false],
    [{ matchExpressions: [{ key: "app", operator: "In", values: ["api", "web"] }] }, true],
    [{ matchExpressions: [{ key: "zone", operator: "In", values: ["a"] }] }, false],
    [{ matchExpressions: [{ key: "app", operator: "NotIn", values: ["web"] }] }, false],
    [{ matchExpressions: [{ key: "zone", operator: "NotIn", values: ["a"] }] }, true],
    [{ matchExpressions: [{ key: "app", operator: "Exists" }] }, true],
    [{ matchExpressions: [{ key: "zone", operator: "Exists" }] }, false],
    [{ matchExpressions: [{ key: "zone", operator: "DoesNotExist" }] }, true],
    [{ matchExpressions: [{ key: "app", operator: "DoesNotExist" }] }, false],
    [{ matchExpressions: [{ key: "app", operator: "Resembles" }] }, false],
    [{ matchLabels: { app: "web" }, matchExpressions: [{ key: "tier", operator: "In", values: ["back"] }] }, false],
  ])("%j", (selector, matches) => {
    expect(matchesSelector(selector, labels)).toBe(matches);
  });

  test("a policy without a spec isolates every pod of its namespace from callers", () => {
    const bare: NetworkPolicy = { metadata: { name: "p", namespace: "shop" } };
    expect([governs(bare, "Ingress", web), governs(bare, "Egress", web), governs(bare, "Ingress", manager)]).toEqual([
      true,
      false,
      false,
    ]);
  });
});
