// Whether the application listens, read from the kernel's table of the pod's network namespace (proc(5)). A connection
// that only asks would stand in the application's log, five times a second while the agent drains.
// Invariant: what cannot be known is taken for listening; whoever waits for the end has a deadline of its own.
import { readFile } from "node:fs/promises";

const tables = ["/proc/net/tcp", "/proc/net/tcp6"];
/** TCP_LISTEN, as the tables write it. */
const listenState = "0A";

/** Ports on which a socket listens, on whatever address. Lines that are no sockets are passed over. */
export function listeningPorts(table: string): ReadonlySet<number> {
  const ports = new Set<number>();
  for (const line of table.split("\n")) {
    const [, local = "", , state] = line.trim().split(/\s+/, 4);
    if (state === listenState) ports.add(Number.parseInt(local.slice(local.lastIndexOf(":") + 1), 16));
  }
  return ports;
}

export async function isAnyListening(
  ports: Iterable<number>,
  read: (path: string) => Promise<string> = (path) => readFile(path, "latin1"),
): Promise<boolean> {
  const wanted = [...ports];
  const texts = await Promise.all(tables.map((path) => read(path).catch(() => undefined))); // no IPv6, no table of it
  const known = texts.filter((text) => text !== undefined).map(listeningPorts);
  if (known.length === 0) return wanted.length > 0;
  return known.some((table) => wanted.some((port) => table.has(port)));
}
