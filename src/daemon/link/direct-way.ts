// The way to the traffic-manager without the API server: TLS to a service that the cluster's administrator has made for it
// (PROTOCOL §2.4). Tried in the background while the link goes by port-forward, and taken without a pause; the link itself
// goes back to a port-forward when it is lost, and within the hour, where the session is proved again.
// Invariant: only the key that the manager showed through the port-forward is spoken to.
import { lookup } from "node:dns/promises";
import { BlockList, isIP } from "node:net";
import type { Duplex } from "node:stream";
import { deadline, raceSignal } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { Scope } from "#base/scope.ts";
import { connectPinned, createIdentity } from "#tunnel/identity.ts";
import type { TransportWish } from "#wire/connect-choices.ts";
import type { DaemonStatus } from "#wire/control-api.ts";
import type { ManagerLink } from "./manager-link.ts";

export interface DirectPlace {
  readonly host: string;
  readonly port: number;
}

/** What the administrator has made: places that are named, and a port of every node. */
export interface DirectService {
  readonly places: readonly DirectPlace[];
  readonly nodePort?: number | undefined;
}

export interface DirectWayOptions {
  readonly link: ManagerLink;
  /** Undefined when there is none. */
  readonly find: (signal: AbortSignal) => Promise<DirectService | undefined>;
  /** Ranges that lead into the tunnel: what is in them cannot carry it. */
  readonly routed: (signal: AbortSignal) => Promise<readonly string[]>;
  readonly clock: Clock;
  readonly log: Logger;
}

/** As the session has it. */
interface DirectWishes {
  readonly access: { findDirect(signal: AbortSignal): Promise<DirectService | undefined> };
  readonly transport?: TransportWish | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

interface DirectParts {
  readonly link: ManagerLink;
  readonly network: { status(signal: AbortSignal): Promise<Pick<DaemonStatus, "routing">> };
  readonly scope: Scope;
}

/** chosen: one try of all places together. */
const tryMs = 5000;
/** chosen: pauses between tries, and after a way that did not stand for `steadyMs`. */
const firstPauseMs = 15_000;
const lastPauseMs = 300_000;
const steadyMs = 60_000;
const maxPlaces = 8;

export class DirectWay {
  readonly #options: DirectWayOptions;
  readonly #identity = createIdentity("laptop");
  readonly #names = new WeakMap<Duplex, string>();
  readonly #tried = Promise.withResolvers<void>();
  #problem: string | undefined;
  #taken = false;

  constructor(options: DirectWayOptions) {
    this.#options = options;
  }

  /** In the background, unless only port-forwards are wanted. */
  static begin(wishes: DirectWishes, { link, network, scope }: DirectParts): DirectWay | undefined {
    const { access, transport, clock, log } = wishes;
    if (transport === "port-forward") return undefined;
    const way = new DirectWay({
      link,
      find: (signal) => access.findDirect(signal),
      routed: async (signal) => {
        const { routing } = await network.status(signal);
        return [...(routing?.subnets ?? []), ...(routing?.alsoProxy ?? [])];
      },
      clock,
      log,
    });
    scope.background("direct way to the manager", way.run(scope.signal));
    return way;
  }

  /** Why it is not taken, when there is one that should be. */
  get problem(): string | undefined {
    return this.#problem;
  }
  /** Waits for the first try, and says why the way is not taken. */
  async firstWarnings(signal: AbortSignal): Promise<readonly string[]> {
    using limit = deadline(this.#options.clock, 2 * tryMs, "the direct way", signal);
    await raceSignal(this.#tried.promise, limit.signal).catch(() => undefined); // said below
    if (this.#taken) return [];
    const why = this.#problem ?? "there is no service for it (an administrator makes one with `connect --direct`)";
    return [`the link goes by port-forward, not the direct way: ${why}`];
  }
  /** Where a transport leads, if it is one of this way's. */
  nameOf(transport: Duplex): string | undefined {
    return this.#names.get(transport);
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, link } = this.#options;
    for (let pauseMs = 0; !signal.aborted;) {
      await clock.sleep(pauseMs, signal).catch(() => undefined); // aborted: the loop's condition ends it
      if (signal.aborted) return;
      const taken = await this.#try(signal);
      this.#taken ||= taken !== undefined;
      this.#tried.resolve();
      const upMs = clock.now();
      if (taken !== undefined) await link.replacedTransport(taken, signal).catch(() => undefined);
      const stood = taken !== undefined && clock.now() - upMs > steadyMs;
      pauseMs = stood ? 0 : Math.min(Math.max(2 * pauseMs, firstPauseMs), lastPauseMs);
    }
  }

  /** The transport that carries the link now. */
  async #try(signal: AbortSignal): Promise<Duplex | undefined> {
    const { clock, link, log, find } = this.#options;
    using limit = deadline(clock, tryMs, "the direct way to the traffic-manager", signal);
    try {
      const service = await find(limit.signal);
      this.#problem = undefined;
      const standing = link.current;
      if (service === undefined || standing === undefined) return undefined;
      const { fingerprint } = this.#identity;
      const { nodeAddresses } = await standing.rpc.call("direct.admit", { fingerprint }, limit.signal);
      const places = await this.#reachable(service, nodeAddresses, limit.signal);
      const transport = await this.#dial(places, standing.arrival.manager.fingerprint, limit.signal);
      if (link.current !== standing) transport.destroy();
      return (await link.moveTo(transport)) ? transport : undefined;
    } catch (error) {
      if (signal.aborted) return undefined;
      this.#problem = toAppError(error).message;
      log.info("the direct way to the traffic-manager is not taken", { reason: this.#problem });
      return undefined;
    }
  }

  /** By address, without those that lead into the tunnel. */
  async #reachable(
    { places, nodePort }: DirectService,
    nodes: readonly string[],
    signal: AbortSignal,
  ): Promise<readonly DirectPlace[]> {
    const named = nodePort === undefined ? [] : nodes.map((host) => ({ host, port: nodePort }));
    const found = await Promise.all(
      [...places, ...named].map(async ({ host, port }) =>
        (await addressesOf(host)).map((address) => ({ host: address, port })),
      ),
    );
    const routed = rangesOf(await this.#options.routed(signal));
    const all = found.flat();
    const outside = all.filter(({ host }) => !routed.check(host, isIP(host) === 6 ? "ipv6" : "ipv4"));
    if (outside.length > 0) return outside.slice(0, maxPlaces);
    const why = all.length === 0 ? "it has no address yet" : "its addresses lead into the cluster's own ranges";
    throw new Error(`the service of the traffic-manager's direct port cannot be used: ${why}`);
  }

  /** The first that answers with the right key. */
  async #dial(places: readonly DirectPlace[], expectedFingerprint: string, signal: AbortSignal): Promise<Duplex> {
    const done = new AbortController();
    const onAbort = (): void => done.abort(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      const dials = places.map(async (place) => {
        const dialing = { ...place, identity: this.#identity, expectedFingerprint, signal: done.signal };
        const socket = await connectPinned(dialing);
        if (done.signal.aborted) socket.destroy();
        return { socket, place };
      });
      const { socket, place } = await Promise.any(dials);
      this.#names.set(socket, `${place.host}:${place.port}`);
      return socket;
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      throw error instanceof AggregateError ? error.errors[0] : error;
    } finally {
      signal.removeEventListener("abort", onAbort);
      done.abort(new Error("another place answered first"));
    }
  }
}

async function addressesOf(host: string): Promise<readonly string[]> {
  if (isIP(host) !== 0) return [host];
  return (await lookup(host, { all: true })).map(({ address }) => address);
}

function rangesOf(ranges: readonly string[]): BlockList {
  const list = new BlockList();
  for (const range of ranges) {
    const [base = "", bits] = range.split("/");
    const family = isIP(base) === 6 ? "ipv6" : "ipv4";
    list.addSubnet(base, bits === undefined ? (family === "ipv6" ? 128 : 32) : Number(bits), family);
  }
  return list;
}
