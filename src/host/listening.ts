// Whether some program on this laptop listens on a TCP port.
import { readFile } from "node:fs/promises";
import { findListeningPorts } from "#base/listening-ports.ts";

/** On whatever address. Undefined where the kernel does not tell. */
export async function isListening(port: number): Promise<boolean | undefined> {
  const listening = await findListeningPorts((path) => readFile(path, "latin1"));
  return listening?.has(port);
}
