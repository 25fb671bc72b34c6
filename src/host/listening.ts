// Whether some program on this laptop listens on a TCP port, seen from the kernel's tables: a connection to find out
// would be a client to whoever listens.
import { readFile } from "node:fs/promises";

const tables = ["/proc/net/tcp", "/proc/net/tcp6"];
/** protocol: TCP_LISTEN (include/net/tcp_states.h). */
const listenState = "0A";

/** On whatever address. Undefined where the kernel does not tell. */
export async function isListening(port: number): Promise<boolean | undefined> {
  const texts = await Promise.all(tables.map((path) => readFile(path, "latin1").catch(() => undefined)));
  const known = texts.filter((text) => text !== undefined);
  return known.length === 0 ? undefined : known.some((text) => parseListeningPorts(text).has(port));
}

/** proc(5): `sl local_address rem_address st …`, where an address is hexadecimal, as is its port after the colon. */
export function parseListeningPorts(text: string): ReadonlySet<number> {
  const ports = new Set<number>();
  for (const line of text.split("\n").slice(1)) {
    const [, local = "", , state] = line.trim().split(/\s+/);
    if (state === listenState) ports.add(Number.parseInt(local.slice(local.lastIndexOf(":") + 1), 16));
  }
  return ports;
}
