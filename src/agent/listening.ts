// Whether the application listens. Asked without a connection: the agent asks five times a second while it drains.
// Invariant: what cannot be known is taken for listening; whoever waits for the end has a deadline of its own.
import { readFile } from "node:fs/promises";
import { findListeningPorts } from "#base/listening-ports.ts";

export async function isAnyListening(
  ports: Iterable<number>,
  read: (path: string) => Promise<string> = (path) => readFile(path, "latin1"),
): Promise<boolean> {
  const wanted = [...ports];
  const listening = await findListeningPorts(read);
  return wanted.some((port) => listening?.has(port) ?? true);
}
