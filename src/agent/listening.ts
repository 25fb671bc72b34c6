// Whether the application listens. Asked without a connection: the agent asks five times a second while it drains.
// Invariant: what cannot be known is taken for listening; whoever waits for the end has a deadline of its own.
import { readFile } from "node:fs/promises";
import { findListeningPorts } from "#base/listening-ports.ts";
import type { AgentPort } from "#wire/agent-api.ts";

export async function isAnyListening(
  ports: readonly Pick<AgentPort, "containerPort" | "protocol">[],
  read: (path: string) => Promise<string> = (path) => readFile(path, "latin1"),
): Promise<boolean> {
  for (const protocol of ["tcp", "udp"] as const) {
    const wanted = ports.filter((port) => port.protocol === protocol);
    if (wanted.length === 0) continue;
    const listening = await findListeningPorts(read, protocol);
    if (wanted.some(({ containerPort }) => listening?.has(containerPort) ?? true)) return true;
  }
  return false;
}
