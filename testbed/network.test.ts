import { expect, test } from "vitest";
import { laptopNamespace, namespaces } from "./layout.ts";
import { nodeRules, wires } from "./network.ts";

test("wires() gives every namespace its own end, and the router one end of each wire", () => {
  const commands = wires();
  expect([...commands.keys()]).toEqual([
    namespaces.router, // first: it makes the links
    namespaces.node,
    laptopNamespace(1),
    laptopNamespace(2),
  ]);
  expect(commands.get(laptopNamespace(1))).toContain("route add default via 192.168.77.1");
  expect(commands.get(namespaces.router)).toContain(
    `link add laptop2 type veth peer name eth0 netns ${laptopNamespace(2)}`,
  );
  // The router must not know the way to pods and services, or a test of connect would prove nothing.
  expect(commands.get(namespaces.router)?.filter((line) => line.startsWith("route"))).toEqual([]);
});

test("nodeRules() let in the API server's port and answers, and drop the rest", () => {
  expect(nodeRules()).toContain("tcp dport 6443 accept");
  expect(nodeRules().match(/counter drop/g)).toHaveLength(2);
});
