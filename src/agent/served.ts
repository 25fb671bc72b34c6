// Which intercepts have which of the pod's ports, now, in the order in which they are asked: those with a filter as their
// manager names them, then the one that takes everything. Several managers may be connected (each user's own); of what
// could be taken by two, the first that takes it keeps it until it lets go. Wiretaps stand apart: they take nothing, so
// they are in nobody's way.
// Invariant: only intercepts of links that stand are in here; a link's end takes them out in the same tick.
import type { Duplex } from "node:stream";
import { toAppError } from "#base/error.ts";
import { compileFilter } from "#filter/compile.ts";
import type { Filter } from "#filter/compile.ts";
import { mayOverlap } from "#filter/overlap.ts";
import { isSamePort } from "#wire/agent-api.ts";
import type { AgentPort, AppPort, ServedIntercept } from "#wire/agent-api.ts";
import type { InterceptTls } from "#wire/intercept-tls.ts";
import { existingModes } from "#wire/manager-api.ts";
import type { ExistingMode, ProbeMode } from "#wire/manager-api.ts";
import type { OpenRequest } from "#wire/open.ts";
import type { TunnelStream } from "#tunnel/tunnel.ts";

/** A link to a manager, as a connection sees it. */
export interface InboundOpener {
  open(request: OpenRequest, signal: AbortSignal): Promise<TunnelStream>;
  /** The laptop's process did not take a connection, which then went to the application. */
  countRefused(interceptId: string): void;
  /** A wiretap's laptop has one more copy; with why, when it has not got all of one. */
  countCopy(interceptId: string, cut?: string): void;
  /** What `open` gave carries one caller's connection from here on: it may outlive the laptop's link. */
  hold(stream: Duplex): void;
}

/** An active intercept of one port, or a wiretap. */
export interface Taken {
  readonly interceptId: string;
  /** Whose it is: `user@host`. */
  readonly client: string;
  readonly opener: InboundOpener;
  /** Undefined takes every connection, whatever it speaks. */
  readonly filter: Filter | undefined;
  /** What becomes of connections that are older. */
  readonly existing: ExistingMode;
  /** Who answers when the laptop's process does not take a connection. */
  readonly onRefused: "app" | "fail";
  /** Who answers the kubelet's probes; the application when left out. */
  readonly probes?: ProbeMode | undefined;
  /** How connections that speak TLS are read. */
  readonly tls?: InterceptTls | undefined;
}

/** The same one, as the same link has it. */
export function sameIntercept(one: Taken, other: Taken | undefined): boolean {
  return other !== undefined && one.interceptId === other.interceptId && one.opener === other.opener;
}

export interface Refused {
  readonly id: string;
  readonly message: string;
}

/** Why a filter would never match on this port, in one sentence. */
export type WhyUnreadable = (port: AgentPort, tls: InterceptTls | undefined) => string | undefined;

type Protocol = AgentPort["protocol"];

const nobody: readonly Taken[] = [];

export class ServedIntercepts {
  readonly #ports: readonly AgentPort[];
  readonly #whyUnreadable: WhyUnreadable;
  readonly #taken = new Map<string, readonly Taken[]>();
  readonly #taps = new Map<string, readonly Taken[]>();
  readonly #listeners = new Set<() => void>();

  constructor(ports: readonly AgentPort[], whyUnreadable: WhyUnreadable = () => undefined) {
    this.#ports = ports;
    this.#whyUnreadable = whyUnreadable;
  }

  /** In the order in which they are asked; only the last may be without a filter. */
  of({ containerPort, protocol }: AppPort): readonly Taken[] {
    return this.#entries(containerPort, protocol);
  }
  /** Those that get copies, whoever answers. */
  tapsOf({ containerPort, protocol }: AppPort): readonly Taken[] {
    return this.#taps.get(keyOf(containerPort, protocol)) ?? nobody;
  }
  get hasTaps(): boolean {
    return this.#taps.size > 0;
  }
  /** Somebody wants its traffic, or copies. */
  isTaken({ containerPort, protocol }: AppPort): boolean {
    const key = keyOf(containerPort, protocol);
    return this.#taken.has(key) || this.#taps.has(key);
  }
  /** The one that gets what is no request, as a whole. */
  whole({ containerPort, protocol }: AppPort): Taken | undefined {
    const last = this.#entries(containerPort, protocol).at(-1);
    return last?.filter === undefined ? last : undefined;
  }
  /** Somebody wants to choose among its requests. */
  isFiltered(port: AppPort): boolean {
    return this.of(port)[0]?.filter !== undefined || this.tapsOf(port).some(({ filter }) => filter !== undefined);
  }
  /** Somebody wants to see inside of TLS: a copy of what only its caller can read is of no use, unless nothing else is. */
  isRead(port: AppPort): boolean {
    return this.isFiltered(port) || (this.tapsOf(port).length > 0 && this.whole(port) === undefined);
  }
  /** Of several wishes the one that goes furthest. */
  existingOf(port: AppPort): ExistingMode | undefined {
    const modes = new Set([...this.of(port), ...this.tapsOf(port)].map(({ existing }) => existing));
    return existingModes.findLast((mode) => modes.has(mode));
  }
  get size(): number {
    return this.#taken.size + this.#taps.size;
  }
  /** Whose intercepts these are. */
  get clients(): readonly string[] {
    const all = [...this.#taken.values(), ...this.#taps.values()].flat();
    return [...new Set(all.map((taken) => taken.client))];
  }
  /** Called after each change, in the same tick. */
  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** Replaces what this link serves; what cannot be served is left out and returned. */
  set(opener: InboundOpener, intercepts: readonly ServedIntercept[]): readonly Refused[] {
    this.#release(opener);
    const refused: Refused[] = [];
    for (const intercept of intercepts) {
      const { id } = intercept;
      try {
        const entry = entryOf(opener, intercept);
        const isTap = intercept.kind === "wiretap";
        const message = this.#obstacle(entry, intercept.ports, isTap ? () => false : excludes);
        if (message !== undefined) refused.push({ id, message });
        else for (const port of intercept.ports) this.#add(isTap ? this.#taps : this.#taken, port, entry);
      } catch (error) {
        refused.push({ id, message: `the agent does not understand it: ${toAppError(error).message}` });
      }
    }
    this.#changed();
    return refused;
  }

  clear(opener: InboundOpener): void {
    if (this.#release(opener)) this.#changed();
  }

  #entries(containerPort: number, protocol: Protocol): readonly Taken[] {
    return this.#taken.get(keyOf(containerPort, protocol)) ?? nobody;
  }

  #add(to: Map<string, readonly Taken[]>, { containerPort, protocol }: AppPort, entry: Taken): void {
    const key = keyOf(containerPort, protocol);
    const all = [...(to.get(key) ?? nobody), entry];
    to.set(key, [...all.filter(({ filter }) => filter !== undefined), ...all.filter((one) => !one.filter)]);
  }

  #obstacle(entry: Taken, ports: readonly AppPort[], excluded: typeof excludes): string | undefined {
    for (const { containerPort, protocol } of ports) {
      const name = `port ${containerPort}/${protocol}`;
      const own = this.#ports.find((port) => isSamePort(port, { containerPort, protocol }));
      if (own === undefined) {
        const all = this.#ports.map((port) => `${port.containerPort}/${port.protocol}`).join(", ");
        return `${name} is not taken over by the pod's agent, which has ${all || "none"}`;
      }
      if (entry.filter !== undefined && protocol !== "tcp") return `${name} has no requests to choose from`;
      const unreadable = entry.filter === undefined ? undefined : this.#whyUnreadable(own, entry.tls);
      if (unreadable !== undefined) return unreadable;
      const other = this.#entries(containerPort, protocol).find((one) => excluded(one, entry));
      if (other !== undefined) {
        const through = other.opener === entry.opener ? "" : " through another traffic-manager";
        return `${name} is intercepted by ${other.client}${through}`;
      }
    }
    return undefined;
  }

  #release(opener: InboundOpener): boolean {
    const released = [this.#taken, this.#taps].map((entries) => release(entries, opener));
    return released.includes(true);
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }
}

function release(all: Map<string, readonly Taken[]>, opener: InboundOpener): boolean {
  let released = false;
  for (const [key, entries] of all) {
    const others = entries.filter((entry) => entry.opener !== opener);
    if (others.length === entries.length) continue;
    released = true;
    if (others.length === 0) all.delete(key);
    else all.set(key, others);
  }
  return released;
}

/** Throws when the filter is none that this version knows. */
function entryOf(
  opener: InboundOpener,
  { id, client, existing, onRefused, probes, filter, tls }: ServedIntercept,
): Taken {
  return {
    interceptId: id,
    opener,
    filter: filter === undefined ? undefined : compileFilter(filter),
    existing: existing ?? "keep",
    onRefused: onRefused ?? "app",
    probes,
    tls,
    client,
  };
}

/** One manager has judged its own; two do not know of each other. */
function excludes(one: Taken, other: Taken): boolean {
  if (one.filter === undefined && other.filter === undefined) return true;
  if (one.opener === other.opener) return false;
  return one.filter === undefined || other.filter === undefined || mayOverlap(one.filter, other.filter).mayOverlap;
}

function keyOf(containerPort: number, protocol: Protocol): string {
  return `${protocol}/${containerPort}`;
}
