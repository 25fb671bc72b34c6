// The data path tests itself at connect: one TCP connection to an address of the device's network that only we answer
// (TcpRedirect gives it an echo). Its whole way is the way of every later connection: route, device, rewrite, INPUT
// firewall, listener. What it did not pass is named.
import { randomBytes } from "node:crypto";
import { createConnection, type Socket } from "node:net";
import { PassThrough, type Duplex } from "node:stream";
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { OutboundStats } from "./stats.ts";

/** chosen: any port will do, nobody else is there. */
export const probePort = 7;
/** chosen: the whole round takes a millisecond or so; the rest is for a laptop that is very busy just then. */
export const selfTestMs = 2500;

export interface SelfTestOptions {
  /** The family's probe address. */
  readonly probe: string;
  /** The device's name, for the message. */
  readonly deviceName: string;
  readonly stats: () => OutboundStats;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** The device that the kernel would use for the address; undefined when there is no route or it is not known. */
  readonly routeTo?: (address: string) => Promise<string | undefined>;
}

/** Answers what it receives, one direction after the other, as the probe's far end. */
export function createEcho(): Duplex {
  return new PassThrough({ allowHalfOpen: true });
}

/** Resolves when bytes went there and back; rejects with `datapath_blocked` naming what is likely in the way. */
export async function testDataPath(options: SelfTestOptions): Promise<void> {
  const before = options.stats();
  using limit = deadline(options.clock, selfTestMs, "the data path's self-test", options.signal);
  try {
    await exchangeNonce(options.probe, limit.signal);
  } catch (error) {
    if (options.signal.aborted) throw options.signal.reason;
    throw await explain(options, before, error);
  }
}

function exchangeNonce(probe: string, signal: AbortSignal): Promise<void> {
  const nonce = randomBytes(16);
  return new Promise((resolve, reject) => {
    const socket: Socket = createConnection({ host: probe, port: probePort });
    const received: Buffer[] = [];
    const settle = (outcome: () => void): void => {
      signal.removeEventListener("abort", onAbort);
      socket.destroy();
      outcome();
    };
    const onAbort = (): void => settle(() => reject(signal.reason as Error));
    signal.addEventListener("abort", onAbort, { once: true });
    socket.on("error", (error) => settle(() => reject(error)));
    socket.on("connect", () => socket.end(nonce));
    socket.on("data", (chunk: Buffer) => received.push(chunk));
    socket.on("end", () => {
      if (Buffer.concat(received).equals(nonce)) settle(resolve);
      else settle(() => reject(new AppError("internal", "the self-test's answer differs from what was sent")));
    });
  });
}

async function explain(options: SelfTestOptions, before: OutboundStats, cause: unknown): Promise<AppError> {
  const { probe, deviceName } = options;
  const after = options.stats();
  const used = await options.routeTo?.(probe).catch(() => undefined);
  const fields = { probe, device: deviceName, route: used };
  if (used !== undefined && used !== deviceName) {
    return new AppError("datapath_blocked", `traffic for ${probe} goes to ${used}, expected ${deviceName}`, {
      cause,
      fields,
      hint: `a VPN or another program took the route; disconnect it or exclude the cluster's addresses from ${used}`,
    });
  }
  if (after.tcpHeld === before.tcpHeld) {
    return new AppError("datapath_blocked", `a connection to ${probe} never reached the device ${deviceName}`, {
      cause,
      fields,
      hint: `look for a firewall rule (OUTPUT) or a policy route that catches traffic for ${deviceName}`,
    });
  }
  return new AppError(
    "datapath_blocked",
    `packets that came in on ${deviceName} never reached this machine's own port`,
    {
      cause,
      fields,
      hint: `the host's firewall drops them: allow input on the device, e.g. nft insert rule inet filter input iifname "${deviceName}" accept`,
    },
  );
}
