// Builds the outbound hops over one device and ends them. Open this first; the hops are listed in README.md.
import type { Duplex } from "node:stream";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { formatAddress, parseAddress, sameAddress, type IpAddress } from "#packet/address.ts";
import type { TunnelSession, TunnelStream } from "#tunnel/tunnel.ts";
import type { Endpoint } from "#wire/open.ts";
import { parseFamily, type OutboundAddresses, type OutboundFamily } from "./addresses.ts";
import { Classify, type FamilyHops } from "./classify.ts";
import { DeviceWriter, type OutboundDevice } from "./device-writer.ts";
import { EchoFlows } from "./echo-flow.ts";
import { IcmpHop } from "./icmp.ts";
import { StreamOpener, type Detour } from "./open-stream.ts";
import { createEcho } from "./self-test.ts";
import { createStats, type OutboundStats } from "./stats.ts";
import { TcpAccept } from "./tcp-accept.ts";
import { TcpRedirect, type FlowReport } from "./tcp-redirect.ts";
import { UdpFlows } from "./udp-flow.ts";

export interface OutboundOptions {
  readonly device: OutboundDevice;
  /** Their addresses must be on the device already. */
  readonly addresses: OutboundAddresses;
  /** The address in the cluster behind one that only this laptop sees. */
  readonly realAddress?: (address: IpAddress) => IpAddress | undefined;
  /** In place of the session: whoever has the device's packets decides where they go. */
  readonly dial?: Dial;
  /** Where connections to some addresses go instead. */
  readonly detours?: readonly Detour[] | undefined;
  /** The session at start; later ones come through setSession(). */
  readonly session?: TunnelSession | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly onFlow?: FlowReport;
}

/** Resolves when the far end has connected; rejects with its reason. */
export interface Dial {
  tcp(target: Endpoint, signal: AbortSignal): Promise<Duplex>;
  udp(target: Endpoint, signal: AbortSignal): Promise<TunnelStream>;
  /** Left out where echo requests go nowhere. */
  echo?(target: Endpoint, signal: AbortSignal): Promise<TunnelStream>;
}

export interface Outbound extends AsyncDisposable {
  /** A copy of the counters. */
  stats(): OutboundStats;
  /** The session for new flows; undefined while there is none (they wait, DESIGN §5). */
  setSession(session: TunnelSession | undefined): void;
  /** Resets what stands, so that no program waits for a device that goes away. */
  close(): Promise<void>;
}

const noEcho = "echo requests are not carried here";
const tickMs = 1000;
/** chosen: programs that are told of the end in one turn of the event loop, as many as packets are read in one. */
const cutsInATurn = 64;
/** chosen: what close() waits for a device that takes no packets, milliseconds, before it asks again; and how often. */
const closePollMs = 10;
const closePatience = 25;
/** chosen: turns in which close() reads what is in the device's queue, which holds 2000 packets, and what is added. */
const queueTurns = 100;

export async function startOutbound(options: OutboundOptions): Promise<Outbound> {
  const stats = createStats();
  const opener = new StreamOpener(options.clock, options.detours);
  opener.setSession(options.session);
  const dial = options.dial ?? dialCluster(opener, options);
  const writer = new DeviceWriter(options.device, stats);
  const report: FlowReport = options.onFlow ?? (() => undefined);
  const udp = new UdpFlows({
    writer,
    stats,
    report,
    open: (target, signal) => dial.udp(target, signal),
  });
  const echo = new EchoFlows({
    writer,
    stats,
    open: (target, signal) => dial.echo?.(target, signal) ?? Promise.reject(new AppError("unsupported", noEcho)),
  });
  const parts: Parts = { options, stats, dial, writer, report };
  const accepts: TcpAccept[] = [];
  const { v4, v6 } = options.addresses;
  const hops = {
    v4: v4 === undefined ? undefined : await startFamily(4, v4, parts, accepts),
    v6: v6 === undefined ? undefined : await startFamily(6, v6, parts, accepts),
  };
  const icmp = new IcmpHop({ stats, udp, echo });
  const classify = new Classify({ ...hops, udp, icmp, writer, stats, now: () => options.clock.now() });
  const redirects = [hops.v4?.tcp, hops.v6?.tcp].filter((tcp) => tcp !== undefined);
  const ticker = options.clock.every(tickMs, () => {
    for (const redirect of redirects) redirect.tick();
    udp.tick();
    echo.tick();
    writer.tick();
  });
  let open = true;
  options.device.onPacket((packet) => {
    if (open) classify.handle(packet);
  });
  let closing: Promise<void> | undefined;
  const finish = async (): Promise<void> => {
    for (const redirect of redirects) redirect.resetPrograms(0);
    await readQueue(stats); // our sockets' last bytes are in it, which a reset would overtake
    await resetPrograms(redirects, options.clock);
    await readQueue(stats); // a program that had not taken what was last sent asks whether the reset is meant
    for (const accept of accepts) accept.close(); // whom it had not taken yet the kernel resets, too
    for (const redirect of redirects) while (redirect.cut(cutsInATurn) > 0) await nextTurn();
    udp.close();
    echo.close();
    ticker[Symbol.dispose]();
    open = false;
  };
  const close = (): Promise<void> => (closing ??= finish());
  return {
    stats: () => ({ ...stats }),
    setSession: (session) => opener.setSession(session),
    close,
    [Symbol.asyncDispose]: close,
  };
}

function dialCluster(opener: StreamOpener, options: OutboundOptions): Dial {
  return {
    tcp: (target, signal) => opener.open({ kind: "tcp", target: inCluster(target, options) }, signal),
    udp: (target, signal) => opener.open({ kind: "udp", target: inCluster(target, options) }, signal),
    echo: (target, signal) => opener.open({ kind: "echo", target: inCluster(target, options) }, signal),
  };
}

function inCluster(target: Endpoint, { realAddress }: OutboundOptions): Endpoint {
  const seen = realAddress === undefined ? undefined : parseAddress(target.address);
  const real = seen === undefined ? undefined : realAddress?.(seen);
  return real === undefined ? target : { address: formatAddress(real), port: target.port };
}

interface Parts {
  readonly options: OutboundOptions;
  readonly stats: OutboundStats;
  readonly dial: Dial;
  readonly writer: DeviceWriter;
  readonly report: FlowReport;
}

async function startFamily(
  version: 4 | 6,
  text: OutboundFamily,
  parts: Parts,
  accepts: TcpAccept[],
): Promise<FamilyHops> {
  const { options, stats, dial, writer, report } = parts;
  const own = parseFamily(version, text);
  const isProbe = (target: Endpoint): boolean => sameAddress(own.probe, parseAddress(target.address) ?? own.peer);
  const tcp = new TcpRedirect({
    own,
    writer,
    stats,
    report,
    open: (target, signal) => (isProbe(target) ? Promise.resolve(createEcho()) : dial.tcp(target, signal)),
  });
  const { clock, log, signal } = options;
  const { address, listener } = text;
  const accept = await TcpAccept.listen({ address, listener, redirect: tcp, stats, clock, log, signal });
  tcp.setListenPort(accept.port);
  accepts.push(accept);
  return { own, tcp };
}

/**
 * Tells all programs before any socket of ours is closed: each of those makes the kernel send a reset of its own, by
 * thousands more than the device's queue holds.
 */
async function resetPrograms(redirects: readonly TcpRedirect[], clock: Clock): Promise<void> {
  const never = new AbortController().signal;
  for (const redirect of redirects) {
    let left = redirect.resetPrograms(cutsInATurn);
    for (let inVain = 0; left > 0 && inVain < closePatience;) {
      await nextTurn();
      const before = left;
      left = redirect.resetPrograms(cutsInATurn);
      inVain = left < before ? 0 : inVain + 1;
      if (inVain > 0) await clock.sleep(closePollMs, never);
    }
  }
}

/** Has what waits in the device's queue pass, also while more is added, but not for ever. */
async function readQueue(stats: OutboundStats): Promise<void> {
  let before = -1;
  for (let turn = 0; turn < queueTurns && stats.packetsIn !== before; turn++) {
    before = stats.packetsIn;
    await nextTurn();
  }
}

/** Resolves when the event loop has looked at what can be read: the first may come before it does. */
async function nextTurn(): Promise<void> {
  for (let look = 0; look < 2; look++) await new Promise((resolve) => setImmediate(resolve));
}
