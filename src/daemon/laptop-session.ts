// How this laptop greets whoever is at the other end of a port-forward: the manager or an agent.
import type { Duplex } from "node:stream";
import type { Clock } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import { softwareVersion } from "#base/version.ts";
import { openSession } from "#tunnel/session.ts";
import type { TunnelSession } from "#tunnel/tunnel.ts";
import { protocolVersions } from "#wire/hello.ts";

/** Takes the transport over. The signal bounds the HELLO exchange. */
export function openLaptopSession(
  transport: Duplex,
  { clock, log }: { readonly clock: Clock; readonly log: Logger },
  signal: AbortSignal,
): Promise<TunnelSession> {
  const hello = { protocol: protocolVersions, software: softwareVersion, role: "laptop" as const, features: [] };
  return openSession({ transport, role: "opener", hello, clock, log, signal });
}
