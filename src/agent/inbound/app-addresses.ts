// Where the application is asked, first to last: on the pod's own addresses, as a caller in the cluster would. An
// application that trusts what comes from loopback must not trust the whole cluster because of us (DESIGN 15), so that
// loopback is only for those that listen nowhere else.
import type { Clock } from "#base/clock.ts";

/** chosen: an application that listened only on loopback may have been restarted to listen everywhere. */
const knownMs = 5000;

export class AppAddresses {
  readonly #podIps: readonly string[];
  readonly #clock: Clock;
  /** Where the application answered, and until when that is believed. */
  #known: { readonly address: string; readonly untilMs: number } | undefined;

  constructor(podIps: readonly string[], clock: Clock) {
    this.#podIps = podIps;
    this.#clock = clock;
  }

  /**
   * The pod's own addresses, the one that the caller reached first, then loopback; before all of them loopback where it
   * worked lately, or whatever did when there is no caller.
   */
  candidates(reached: string | undefined): readonly string[] {
    const lately = this.#lately();
    const known = lately !== undefined && (reached === undefined || isLoopback(lately)) ? [lately] : [];
    const own = [...(reached === undefined ? [] : [plainAddress(reached)]), ...this.#podIps];
    return [...new Set([...known, ...own.filter((ip) => !isLoopback(ip)), "127.0.0.1", "::1"])];
  }

  /** Not believed for longer because it is used: the others were not asked then. */
  answered(address: string): void {
    if (this.#lately() !== address) this.#known = { address, untilMs: this.#clock.now() + knownMs };
  }

  #lately(): string | undefined {
    return this.#known !== undefined && this.#clock.now() < this.#known.untilMs ? this.#known.address : undefined;
  }
}

export function isLoopback(address: string): boolean {
  return address === "::1" || address === "127.0.0.1";
}

/** `::ffff:10.0.0.1`, as a dual-stack listener sees IPv4, is 10.0.0.1. */
export function plainAddress(address: string): string {
  return address.toLowerCase().startsWith("::ffff:") && address.includes(".")
    ? address.slice("::ffff:".length)
    : address;
}
