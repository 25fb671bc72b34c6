// On which TCP ports of this network namespace somebody listens, from the kernel's tables (proc(5)). A connection that
// only asks would be a client to whoever listens, and stand in its log. The caller reads, this folder does no I/O.

const tables = ["/proc/net/tcp", "/proc/net/tcp6"];
/** TCP_LISTEN, as the tables write it. */
const listenState = "0A";

/** On whatever address, of both families. Undefined where the kernel does not tell. */
export async function findListeningPorts(
  read: (path: string) => Promise<string>,
): Promise<ReadonlySet<number> | undefined> {
  const texts = await Promise.all(tables.map((path) => read(path).catch(() => undefined))); // no IPv6, no table of it
  const known = texts.filter((text) => text !== undefined);
  return known.length === 0 ? undefined : new Set(known.flatMap((text) => [...parseListeningPorts(text)]));
}

/** `sl local_address rem_address st …`, where an address is hexadecimal, as is its port after the colon. */
export function parseListeningPorts(table: string): ReadonlySet<number> {
  const ports = new Set<number>();
  for (const line of table.split("\n")) {
    const [, local = "", , state] = line.trim().split(/\s+/, 4);
    if (state === listenState) ports.add(Number.parseInt(local.slice(local.lastIndexOf(":") + 1), 16));
  }
  return ports;
}
