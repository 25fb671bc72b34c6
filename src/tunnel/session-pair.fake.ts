// Two real sessions over a transport in memory, for tests of whatever works over a session.
import { FakeClock } from "#base/clock.fake.ts";
import type { Clock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { softwareVersion } from "#base/version.ts";
import { protocolVersions } from "#wire/hello.ts";
import type { Hello } from "#wire/hello.ts";
import type { ReceiveLimits } from "./receive-window.ts";
import { openSession } from "./session.ts";
import { createTransportPair } from "./transport.fake.ts";
import type { TransportPair, TransportPairOptions } from "./transport.fake.ts";
import type { TunnelSession } from "./tunnel.ts";

export interface SessionPair extends AsyncDisposable {
  readonly opener: TunnelSession;
  readonly accepter: TunnelSession;
  readonly transport: TransportPair;
}

export interface SessionPairOptions extends TransportPairOptions {
  readonly openerRole?: Hello["role"];
  readonly accepterRole?: Hello["role"];
  /** Of both ends. */
  readonly limits?: ReceiveLimits;
}

export function testHello(role: Hello["role"]): Hello {
  return { protocol: protocolVersions, software: softwareVersion, role, features: [] };
}

/** Laptop and manager by default. Without a clock of the caller's, time stands still: no heart-beat, no time-outs. */
export async function createSessionPair(clock?: Clock, options: SessionPairOptions = {}): Promise<SessionPair> {
  const time = clock ?? new FakeClock();
  const transport = createTransportPair({ ...options, clock: time });
  const common = {
    clock: time,
    log: silentLogger,
    signal: new AbortController().signal,
    ...(options.limits === undefined ? {} : { limits: options.limits }),
  };
  const [opener, accepter] = await Promise.all([
    openSession({
      ...common,
      transport: transport.opener,
      role: "opener",
      hello: testHello(options.openerRole ?? "laptop"),
    }),
    openSession({
      ...common,
      transport: transport.accepter,
      role: "accepter",
      hello: testHello(options.accepterRole ?? "manager"),
    }),
  ]);
  return {
    opener,
    accepter,
    transport,
    [Symbol.asyncDispose]: async () => {
      opener.destroy();
      accepter.destroy();
      await Promise.all([opener.closed, accepter.closed]);
    },
  };
}
