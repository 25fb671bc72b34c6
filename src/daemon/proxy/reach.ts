// Where a connection that a program asks us for goes: what is the cluster's through the session, all else from this
// laptop, as the program itself would have dialed it. Names of the cluster are resolved in the cluster, others here.
// @from daemon/proxy/socks.ts, daemon/proxy/http-proxy.ts, daemon/private-networks/private-network.ts
// @to daemon/outbound/open-stream.ts
import { lookup } from "node:dns/promises";
import { connect, isIP, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { deadline, raceSignal } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, toAppError } from "#base/error.ts";
import { parseAddress, type IpAddress } from "#packet/address.ts";
import { resetReasonOf } from "#tunnel/stream.ts";
import type { TunnelStream } from "#tunnel/tunnel.ts";
import { formatEndpoint, type Endpoint, type OpenRequest } from "#wire/open.ts";
import { openLaptopDatagrams } from "./laptop-datagrams.ts";

export interface ReachOptions {
  /** A stream of the session; rejects with the far end's reason. */
  readonly open: (request: OpenRequest, signal: AbortSignal) => Promise<TunnelStream>;
  /** Whether the session goes there. */
  readonly isCluster: (address: IpAddress) => boolean;
  /** Addresses of a name of the cluster's; undefined when the name is not. Rejects when it does not exist there. */
  readonly resolve: (name: string) => Promise<readonly string[] | undefined>;
  readonly clock: Clock;
}

/** `host` is a name or an IP address. */
export interface Target {
  readonly host: string;
  readonly port: number;
}

/** chosen: as long as the kernel's own attempts would go on, roughly; programs give up earlier. */
const dialTimeoutMs = 60_000;
/** chosen: a name with many addresses is a headless service; if these refuse, so will the rest. */
const maxAttempts = 4;

export class Reach {
  readonly #options: ReachOptions;

  constructor(options: ReachOptions) {
    this.#options = options;
  }

  /** Resolves when the target has connected. Rejects with `refused`, `unreachable`, `not_found`, `timeout`, … */
  async tcp(target: Target, signal: AbortSignal): Promise<Duplex> {
    using limit = deadline(this.#options.clock, dialTimeoutMs, `connecting to ${describe(target)}`, signal);
    const { addresses, place } = await this.#locate(target, limit.signal);
    if (place === "laptop") return await dialFromLaptop(target, addresses, limit.signal);
    return await this.#firstOf(addresses, (address) =>
      this.#options.open({ kind: "tcp", target: { address, port: target.port } }, limit.signal),
    );
  }

  /** A flow of datagrams. */
  async udp(target: Target, signal: AbortSignal): Promise<TunnelStream> {
    using limit = deadline(this.#options.clock, dialTimeoutMs, `a flow to ${describe(target)}`, signal);
    const { addresses, place } = await this.#locate(target, limit.signal);
    const endpoint: Endpoint = { address: addresses[0] ?? "", port: target.port };
    if (place === "laptop") return await openLaptopDatagrams(endpoint, limit.signal);
    return await this.#options.open({ kind: "udp", target: endpoint }, limit.signal);
  }

  async #locate(
    target: Target,
    signal: AbortSignal,
  ): Promise<{ readonly place: "cluster" | "laptop"; readonly addresses: readonly string[] }> {
    const addresses = await raceSignal(this.#addressesOf(target), signal);
    const first = parseAddress(addresses[0] ?? "");
    const place = first !== undefined && this.#options.isCluster(first) ? "cluster" : "laptop";
    return { place, addresses };
  }

  async #addressesOf({ host }: Target): Promise<readonly string[]> {
    if (isIP(host) !== 0) return [host];
    const inCluster = await this.#options.resolve(host);
    if (inCluster !== undefined) return inCluster;
    try {
      return (await lookup(host, { all: true })).map(({ address }) => address);
    } catch (cause) {
      throw new AppError("not_found", `the name ${host} is known neither in the cluster nor here`, { cause });
    }
  }

  async #firstOf<T>(addresses: readonly string[], open: (address: string) => Promise<T>): Promise<T> {
    let failure: unknown = new AppError("not_found", "the name has no address");
    for (const address of addresses.slice(0, maxAttempts)) {
      try {
        return await open(address);
      } catch (error) {
        failure = error;
        if (!["refused", "unreachable"].includes(toAppError(error).code)) break;
      }
    }
    throw failure;
  }
}

/** As the program itself would: its addresses side by side, when it has several. */
function dialFromLaptop({ host, port }: Target, addresses: readonly string[], signal: AbortSignal): Promise<Socket> {
  const found = addresses.map((address) => ({ address, family: isIP(address) }));
  const socket = connect({
    host,
    port,
    allowHalfOpen: true,
    noDelay: true,
    autoSelectFamily: true,
    lookup: (_host, _options, callback) => callback(null, found),
  });
  return new Promise((resolve, reject) => {
    const giveUp = (): void => void socket.destroy(signal.reason as Error);
    signal.addEventListener("abort", giveUp, { once: true });
    const fail = (error: Error): void => {
      signal.removeEventListener("abort", giveUp);
      reject(signal.aborted ? (signal.reason as Error) : asRefusal(error, { host, port }));
    };
    socket.once("error", fail);
    socket.once("connect", () => {
      signal.removeEventListener("abort", giveUp);
      socket.off("error", fail);
      resolve(socket);
    });
    if (signal.aborted) giveUp();
  });
}

function asRefusal(error: Error, target: Target): AppError {
  // Several addresses fail together; what the first one said counts.
  const first = error instanceof AggregateError ? (error.errors[0] as Error) : error;
  const { code } = first as NodeJS.ErrnoException;
  const reason = code === "EACCES" || code === "EPERM" ? "denied" : resetReasonOf(first);
  return new AppError(reason, `${describe(target)} did not take the connection: ${first.message}`, { cause: error });
}

const describe = ({ host, port }: Target): string => formatEndpoint({ address: host, port });
