// The network namespaces, the wires between them and the node's guard, as layout.ts draws them; and what tests do to
// a laptop's wire: cut it, make it swallow everything, give the laptop another address.
// Invariant: namespaces are named (`ip netns`), so that what a killed run left behind is found by name.
import { existsSync, mkdirSync } from "node:fs";
import { run } from "./exec.ts";
import {
  allNamespaces,
  apiServerPort,
  laptopAddresses,
  laptopWire,
  laptopNamespace,
  laptopNumbers,
  namespaceFile,
} from "./layout.ts";
import { namespaces, nodeAddress, nodeWire, podRanges, publicNames, type LaptopNumber } from "./layout.ts";

const laptopDevice = "eth0";
const nodeDevice = "wan0";
/** With the length of every subnet here. Nobody else can have an IPv6 address on a wire with two ends. */
function onWire(address: string): string {
  return address.includes(":") ? `${address}/64 nodad` : `${address}/24`;
}

/** The router's end of a laptop's wire. */
function portOf(laptop: LaptopNumber): string {
  return `laptop${laptop}`;
}

export async function createNetwork(): Promise<void> {
  mkdirSync("/run/netns", { recursive: true });
  for (const name of allNamespaces) await run("ip", ["netns", "add", name]);
  for (const [namespace, commands] of wires()) {
    await run("ip", ["-n", namespace, "-batch", "-"], { input: `${commands.join("\n")}\n` });
  }
  for (const name of [namespaces.node, namespaces.router]) {
    await runIn(name, "tee", ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"], "1");
  }
  await runIn(namespaces.node, "nft", ["-f", "-"], nodeRules());
}

/** Namespace → commands of `ip`, as `ip -batch` reads them. The router comes first: it makes every wire. */
export function wires(): ReadonlyMap<string, readonly string[]> {
  const ends = [
    { ns: namespaces.node, device: nodeDevice, port: "node", wire: nodeWire },
    ...laptopNumbers.map((laptop) => ({
      ns: laptopNamespace(laptop),
      device: laptopDevice,
      port: portOf(laptop),
      wire: laptopWire(laptop),
    })),
  ];
  const router = ends.flatMap(({ ns, device, port, wire }) => [
    `link add ${port} type veth peer name ${device} netns ${ns}`,
    ...wire.map(({ gateway }) => `addr add ${onWire(gateway)} dev ${port}`),
    `link set ${port} up`,
  ]);
  const publicAddresses = new Set(Object.values(publicNames).filter((address) => address !== nodeAddress));
  const others = ends.map(
    ({ ns, device, wire }) =>
      [
        ns,
        [
          "link set lo up",
          ...wire.map(({ address }) => `addr add ${onWire(address)} dev ${device}`),
          `link set ${device} up`,
          ...wire.map(({ gateway }) => `route add ${gateway.includes(":") ? "::/0" : "default"} via ${gateway}`),
        ],
      ] as const,
  );
  const loopback = ["link set lo up", ...[...publicAddresses].map((address) => `addr add ${address}/32 dev lo`)];
  return new Map<string, readonly string[]>([[namespaces.router, [...loopback, ...router]], ...others]);
}

/** From outside only the API server is let in; pods that talk to the outside borrow the node's address. */
export function nodeRules(): string {
  const answers = `iifname ${nodeDevice} ct state established,related accept`;
  const borrowed = podRanges.map((range) => {
    const family = range.includes(":") ? "ip6" : "ip";
    return `table ${family} borrowed {
  chain outbound {
    type nat hook postrouting priority srcnat; policy accept;
    ${family} saddr ${range} oifname ${nodeDevice} masquerade
  }
}
`;
  });
  return `table inet guard {
  chain inbound {
    type filter hook input priority -10; policy accept;
    iifname ${nodeDevice} tcp dport ${apiServerPort} accept
    iifname ${nodeDevice} icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    ${answers}
    iifname ${nodeDevice} counter drop
  }
  chain forwarding {
    type filter hook forward priority -10; policy accept;
    ${answers}
    iifname ${nodeDevice} counter drop
  }
}
${borrowed.join("")}`;
}

export async function removeNetwork(): Promise<void> {
  for (const name of allNamespaces) {
    if (existsSync(namespaceFile(name))) await run("ip", ["netns", "del", name], { allowFailure: true });
  }
}

/** The cable is pulled: the laptop's device loses its carrier. */
export async function cutWire(laptop: LaptopNumber = 1): Promise<void> {
  await ipIn(namespaces.router, "link", "set", portOf(laptop), "down");
}

/** The laptop's packets, and those to it, vanish: no FIN, no RST, no ICMP, and the carrier stays. */
export async function blackHole(laptop: LaptopNumber = 1): Promise<void> {
  const port = portOf(laptop);
  const table = holeTable(laptop);
  const chain = (hook: string, ...matches: readonly string[]): string =>
    `chain ${hook} {
  type filter hook ${hook} priority -20; policy accept;
  ${matches.map((match) => `${match} ${port} drop`).join("\n  ")}
}`;
  const chains = [chain("input", "iifname"), chain("output", "oifname"), chain("forward", "iifname", "oifname")];
  // Made anew each time, in one transaction: asking twice is harmless.
  const rules = `table ${table}\ndelete table ${table}\ntable ${table} {\n${chains.join("\n")}\n}\n`;
  await runIn(namespaces.router, "nft", ["-f", "-"], rules);
}

function holeTable(laptop: LaptopNumber): string {
  return `inet hole${laptop}`;
}

/** Undoes cutWire() and blackHole(); harmless when there is nothing to undo. */
export async function restoreWire(laptop: LaptopNumber = 1): Promise<void> {
  const table = holeTable(laptop);
  await runIn(namespaces.router, "nft", ["-f", "-"], `table ${table}\ndelete table ${table}\n`);
  await ipIn(namespaces.router, "link", "set", portOf(laptop), "up");
}

/** The laptop moves to another address of its own subnet, as after a new DHCP lease; the old one is gone. */
export async function readdress(address: string, laptop: LaptopNumber = 1): Promise<void> {
  const { gateway } = laptopAddresses(laptop);
  const name = laptopNamespace(laptop);
  await ipIn(name, "-4", "addr", "flush", "dev", laptopDevice);
  await ipIn(name, "addr", "add", onWire(address), "dev", laptopDevice);
  await ipIn(name, "route", "add", "default", "via", gateway);
}

async function ipIn(namespace: string, ...args: readonly string[]): Promise<void> {
  await run("ip", ["-n", namespace, ...args]);
}

/** Enters the network namespace only: `ip netns exec` would mount a /sys without control groups. */
export async function runIn(namespace: string, file: string, args: readonly string[], input?: string): Promise<string> {
  const { stdout } = await run("nsenter", [`--net=${namespaceFile(namespace)}`, file, ...args], { input });
  return stdout;
}
