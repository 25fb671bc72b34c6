// On which TCP or UDP ports of this network namespace somebody listens, from the kernel's tables (proc(5)). A connection
// that only asks would be a client to whoever listens, and stand in its log. The caller reads, this folder does no I/O.

type Protocol = "tcp" | "udp";

/** As the tables write it: TCP_LISTEN; of UDP, where nobody listens, TCP_CLOSE, which is a socket without a peer. */
const listenStates = { tcp: "0A", udp: "07" } as const satisfies Record<Protocol, string>;

/** On whatever address, of both families. Undefined where the kernel does not tell. */
export async function findListeningPorts(
  read: (path: string) => Promise<string>,
  protocol: Protocol = "tcp",
): Promise<ReadonlySet<number> | undefined> {
  const tables = [`/proc/net/${protocol}`, `/proc/net/${protocol}6`];
  const texts = await Promise.all(tables.map((path) => read(path).catch(() => undefined))); // no IPv6, no table of it
  const known = texts.filter((text) => text !== undefined);
  return known.length === 0 ? undefined : new Set(known.flatMap((text) => [...parseListeningPorts(text, protocol)]));
}

/** `sl local_address rem_address st …`, where an address is hexadecimal, as is its port after the colon. */
export function parseListeningPorts(table: string, protocol: Protocol = "tcp"): ReadonlySet<number> {
  const ports = new Set<number>();
  for (const line of table.split("\n")) {
    const [, local = "", , state] = line.trim().split(/\s+/, 4);
    if (state === listenStates[protocol]) ports.add(Number.parseInt(local.slice(local.lastIndexOf(":") + 1), 16));
  }
  return ports;
}
