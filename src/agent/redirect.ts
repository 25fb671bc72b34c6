// Numeric and headless ports have no name to take over: while such a port is intercepted, new connections are sent to
// the agent by a rule in the pod's network namespace (DESIGN 14). The rule matches a connection's first SYN only, so a
// connection older than the attach is never touched. The table belongs to this process: when it dies, so does the rule.
//
//   no table ──attach──► redirecting ──detach──► inert ──no redirected connection for a while──► no table
//                            ▲                     │ attach
//                            └─────────────────────┘
// Invariant: the table is never removed while a connection that came through it is open. The while covers those that
// the kernel knows and we do not: not yet accepted, or closed by us with bytes still to be sent.
import type { Clock, Timer } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import type { TcpConnection } from "#kernel/sock-diag-messages.ts";
import type { AgentPort } from "#wire/agent-api.ts";
import { KeptCallers } from "./kept-callers.ts";
import type { CallerDialer, KeptCallersOptions } from "./kept-callers.ts";

/** What the kernel is asked for; `openKernelTable` in production. */
export interface RedirectTable extends Disposable {
  /** Dials the application as its callers while the table is there. */
  readonly callers?: CallerDialer;
  /** Whether the kernel has a connection that came through the table. Throws when it cannot be told. */
  isInUse(): boolean;
  /** Replaces all rules in one transaction; none means the inert rule. */
  apply(ports: readonly AgentPort[]): void;
}

export interface RedirectOptions {
  readonly ports: readonly AgentPort[];
  readonly openTable: () => Promise<RedirectTable>;
  /** Whether the port has an active intercept. */
  readonly isTaken: (port: AgentPort) => boolean;
  readonly clock: Clock;
  readonly log: Logger;
  /** `redirectLingerMs` when left out. */
  readonly lingerMs?: number;
}

/** chosen: an inert table costs nothing, a connection lost at its removal does. */
export const redirectLingerMs = 30_000;
/** chosen: when the agent is to end, the kernel is asked so often instead. */
export const hastyLookMs = 500;

export class Redirect implements AsyncDisposable {
  readonly #options: RedirectOptions;
  readonly #ports: readonly AgentPort[];
  #table: RedirectTable | undefined;
  #applied = "";
  #openConnections = 0;
  #removal: Timer | undefined;
  #hasty = false;
  #turn: Promise<void> = Promise.resolve();

  constructor(options: RedirectOptions) {
    this.#options = options;
    this.#ports = options.ports.filter((port) => port.takeover === "redirect");
  }

  /** Undefined while there is no table. */
  get callers(): CallerDialer | undefined {
    return this.#table?.callers;
  }

  /** Connections may depend on the table, which goes with this process. */
  get inPlace(): boolean {
    return this.#table !== undefined;
  }

  /** Whether new connections to the port are sent over now. */
  isInForce(port: AgentPort): boolean {
    return this.#applied.split(" ").includes(keyOf(port));
  }

  /** The agent is to end: the table goes as soon as the kernel knows no connection that came through it. */
  hasten(): void {
    this.#hasty = true;
    this.#keep();
    this.#removeLater();
  }

  /** Brings the rules in line with what is intercepted; resolves when they are in force. */
  update(): Promise<void> {
    if (this.#ports.length === 0) return Promise.resolve();
    const turn = this.#turn.catch(() => undefined).then(() => this.#apply());
    this.#turn = turn;
    return turn;
  }

  /** A connection came through the table; dispose when it has ended. */
  hold(): Disposable {
    this.#openConnections += 1;
    this.#keep();
    let held = true;
    return {
      [Symbol.dispose]: () => {
        if (!held) return;
        held = false;
        this.#openConnections -= 1;
        this.#removeLater();
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#turn.catch(() => undefined); // whoever asked for it has heard
    this.#remove();
  }

  async #apply(): Promise<void> {
    const wanted = this.#ports.filter((port) => this.#options.isTaken(port));
    const key = wanted.map(keyOf).join(" ");
    if (this.#table === undefined && wanted.length === 0) return;
    this.#keep();
    if (this.#table === undefined || key !== this.#applied) {
      this.#table ??= await this.#options.openTable();
      this.#table.apply(wanted);
      this.#applied = key;
      this.#options.log.info("redirect changed", { ports: key === "" ? "none" : key });
    }
    this.#removeLater();
  }

  /** Removes an inert table when nothing comes through it any more. */
  #removeLater(): void {
    if (this.#table === undefined || this.#applied !== "" || this.#openConnections > 0) return;
    const { clock, lingerMs = redirectLingerMs } = this.#options;
    if (!this.#hasty) {
      this.#removal ??= clock.after(lingerMs, () => this.#remove()).unref();
      return;
    }
    this.#removal ??= clock.after(Math.min(hastyLookMs, lingerMs), () => this.#removeUnused()).unref();
  }
  #removeUnused(): void {
    this.#keep();
    try {
      if (this.#table?.isInUse() === true) this.#removeLater();
      else this.#remove();
    } catch (error) {
      this.#options.log.info("connections cannot be told, the table stays a while", { reason: String(error) });
      this.#hasty = false;
      this.#removeLater();
    }
  }
  #keep(): void {
    this.#removal?.[Symbol.dispose]();
    this.#removal = undefined;
  }
  #remove(): void {
    this.#keep();
    this.#table?.[Symbol.dispose]();
    this.#table = undefined;
    this.#applied = "";
  }
}

function keyOf(port: AgentPort): string {
  return `${port.protocol}/${port.containerPort}`;
}

/** The nft table, made when the first port needs it: most agents never load the kernel's part. */
export async function openKernelTable(
  ports: readonly AgentPort[],
  options: KeptCallersOptions,
): Promise<RedirectTable> {
  const [{ OwnedTable }, rules, { listConnections }] = await Promise.all([
    import("#kernel/nftables.ts"),
    import("#kernel/nft-rules.ts"),
    import("#kernel/sock-diag.ts"),
  ]);
  const table = OwnedTable.open("telepresence", ["prerouting"]);
  const callers = await KeptCallers.open(table, options);
  return {
    callers,
    isInUse: () => listConnections({ states: underWay }).connections.some((item) => cameThrough(item, ports, options)),
    apply: (wanted) => {
      const redirects = wanted.map((port) =>
        port.protocol === "tcp"
          ? rules.firstSynRedirect(port.containerPort, port.agentPort)
          : rules.udpRedirect(port.containerPort, port.agentPort),
      );
      table.replaceRules(
        "prerouting",
        redirects.length === 0 ? [rules.inertRule()] : [...redirects, rules.inertRule()],
      );
    },
    [Symbol.dispose]: () => {
      table[Symbol.dispose]();
      callers[Symbol.dispose]();
    },
  };
}

/** All but LISTEN, CLOSE and TIME_WAIT: nothing is left to be sent then (RFC 9293 §3.3.2). */
const underWay = [1, 2, 3, 4, 5, 8, 9, 11];

/** A caller's connection with us, or ours with the application in the caller's name. */
function cameThrough(
  { local, remote }: TcpConnection,
  ports: readonly AgentPort[],
  { podIps }: Pick<KeptCallersOptions, "podIps">,
): boolean {
  return ports.some(
    ({ agentPort, containerPort, takeover }) =>
      takeover === "redirect" &&
      (local.port === agentPort || (remote.port === containerPort && !isOwn(local.address, podIps))),
  );
}

function isOwn(address: string, podIps: readonly string[]): boolean {
  return address === "::1" || address.startsWith("127.") || podIps.includes(address);
}
