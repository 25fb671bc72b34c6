// What a laptop opens from this pod (`connect --via`): connections, datagrams and look-ups with the pod's own network
// identity, its loopback included. Only over the introduction's port-forward, by a session that has asked for it.
// Invariant: no port of the agent's own is ever dialled, nor what the manager's dialer refuses everywhere.
import { readFile } from "node:fs/promises";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { acceptOutbound } from "#egress/accept.ts";
import { Dialer } from "#egress/dial.ts";
import { createDialGuard } from "#egress/guard.ts";
import { parseResolvConf } from "#egress/resolv-conf.ts";
import { Resolver } from "#egress/resolve.ts";
import type { IncomingStream } from "#tunnel/tunnel.ts";

/** chosen: laptops that live in this pod's network at once. */
const maxSessions = 8;

export interface DialingOptions {
  readonly podIps: readonly string[];
  /** Ports that the agent itself listens on. */
  readonly ownPorts: () => readonly number[];
  readonly clock: Clock;
  readonly log: Logger;
}

export class Dialing {
  readonly #options: DialingOptions;
  readonly #dialer: Dialer;
  #resolver: Promise<Resolver> | undefined;
  #sessions = 0;

  constructor(options: DialingOptions) {
    this.#options = options;
    const { podIps, ownPorts, clock } = options;
    const beside = { podAddresses: podIps, ownPorts };
    const all = { ownAddresses: [], nodeAddresses: [], allowNodes: true, allowRanges: [], denyRanges: [] };
    this.#dialer = new Dialer({ guard: createDialGuard({ ...all, beside }), clock });
  }

  /** How many laptops dial from here. */
  get sessions(): number {
    return this.#sessions;
  }

  /** One more laptop, until it is disposed. */
  begin(): Disposable {
    if (this.#sessions >= maxSessions) {
      throw new AppError("busy", `${maxSessions} laptops dial from this pod already, expected fewer`);
    }
    this.#sessions += 1;
    this.#options.log.info("a laptop dials from this pod");
    return { [Symbol.dispose]: () => void (this.#sessions -= 1) };
  }

  /** A `tcp`, `udp` or `echo` stream; never throws. */
  async accept(incoming: IncomingStream): Promise<void> {
    const { clock, log } = this.#options;
    await acceptOutbound(incoming, { dialer: this.#dialer, clock, log });
  }

  /** One DNS message to this pod's own resolver and back, both as base64. */
  async exchange(message: string, signal: AbortSignal): Promise<string> {
    this.#resolver ??= this.#openResolver();
    const answer = await (await this.#resolver).exchange(Buffer.from(message, "base64"), signal);
    return Buffer.from(answer.buffer, answer.byteOffset, answer.byteLength).toString("base64");
  }

  async #openResolver(): Promise<Resolver> {
    const { nameservers } = parseResolvConf(await readFile("/etc/resolv.conf", "utf8"));
    return new Resolver({ nameservers, clock: this.#options.clock });
  }
}
