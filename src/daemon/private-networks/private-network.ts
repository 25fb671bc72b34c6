// One program's network: the packet path over the device that was brought, as over the laptop's own device. The kernel
// of its namespace does TCP, by sockets that were bound there. Look-ups go to this daemon's DNS server.
// @from daemon/outbound/tcp-redirect.ts, daemon/outbound/udp-flow.ts
// @to daemon/proxy/reach.ts
import type { Clock } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import { Scope } from "#base/scope.ts";
import type { Dial, Outbound } from "#daemon/outbound/outbound.ts";
import { startOutbound } from "#daemon/outbound/outbound.ts";
import type { OutboundAddresses } from "#daemon/outbound/addresses.ts";
import type { Reach } from "#daemon/proxy/reach.ts";
import { planDeviceAddresses } from "#daemon/routing/device-addresses.ts";
import { TunDevice } from "#kernel/tun.ts";
import type { Endpoint } from "#wire/open.ts";

/** How programs in such networks get anywhere. */
export interface Ways {
  readonly reach: Pick<Reach, "tcp" | "udp">;
  /** This daemon's DNS server, seen from the laptop. */
  readonly dns: Endpoint;
}

/** Of the device's own network, and nobody's there. */
export const privateNameserver = "246.246.0.4";
export const privateMtu = 65_535;
const planned = planDeviceAddresses(true);
export const privatePrefixes = planned.prefixes;

/** What the maker brings. */
export interface PrivateParts {
  readonly deviceFd: number;
  readonly mtu: number;
  /** Sockets by the address that they are bound to. */
  readonly listeners: ReadonlyMap<string, number>;
}

/** Takes the descriptors over. */
export async function openPrivateNetwork(
  parts: PrivateParts,
  ways: Ways,
  { clock, log }: { readonly clock: Clock; readonly log: Logger },
): Promise<AsyncDisposable> {
  const scope = new Scope(log);
  const device = new TunDevice(parts.deviceFd, parts.mtu);
  scope.defer(() => device.close());
  try {
    const addresses = withListeners(parts.listeners);
    const dial = dialBy(ways);
    const outbound: Outbound = await startOutbound({ device, addresses, dial, clock, log, signal: scope.signal });
    scope.use(outbound);
    return scope;
  } catch (error) {
    await scope[Symbol.asyncDispose]();
    throw error;
  }
}

function withListeners(listeners: ReadonlyMap<string, number>): OutboundAddresses {
  const { v4, v6 } = planned.outbound;
  const [listener4, listener6] = [listeners.get(v4?.address ?? ""), listeners.get(v6?.address ?? "")];
  return {
    ...(v4 === undefined || listener4 === undefined ? {} : { v4: { ...v4, listener: listener4 } }),
    ...(v6 === undefined || listener6 === undefined ? {} : { v6: { ...v6, listener: listener6 } }),
  };
}

function dialBy({ reach, dns }: Ways): Dial {
  const place = ({ address, port }: Endpoint): { host: string; port: number } =>
    address === privateNameserver && port === 53 ? { host: dns.address, port: dns.port } : { host: address, port };
  return {
    tcp: (target, signal) => reach.tcp(place(target), signal),
    udp: (target, signal) => reach.udp(place(target), signal),
  };
}
