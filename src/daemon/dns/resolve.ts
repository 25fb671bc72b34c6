// One query in, one reply out: decides by name who answers, and keeps the two worlds apart. A query that is not ours
// takes the forwarding branch before anything of the cluster is touched.
// @from daemon/dns/server.ts
// @to daemon/dns/names.ts, daemon/dns/cluster.ts, daemon/dns/forward.ts
import { randomInt } from "node:crypto";
import { parseAddress } from "#packet/address.ts";
import type { Translation } from "#packet/translation.ts";
import {
  addressOf,
  buildQuery,
  dnsClassIn,
  dnsHeaderBytes,
  dnsRcodes,
  dnsTypes,
  encodeName,
  encodeReply,
  isTruncated,
  parseAnswer,
  parseQuery,
  putBelow,
  rcodeOf,
  type DnsAnswer,
  type DnsQuery,
  type DnsRecord,
} from "#packet/dns-message.ts";
import type { ClusterLookup } from "./cluster.ts";
import type { Forwarder } from "./forward.ts";
import { Names, type DnsConfig, type Verdict } from "./names.ts";

export type DnsTransport = "udp" | "tcp";

export interface DnsStats {
  queries: number;
  /** Answered by the cluster, positive or not. */
  fromCluster: number;
  /** Ours, and the cluster could not be asked. */
  clusterFailed: number;
  forwarded: number;
  /** Not one nameserver of the host answered. */
  forwardFailed: number;
  malformed: number;
}

/** What the check name resolves to: an address of this host that nothing listens on. */
export const checkAddress = "127.0.0.42";
const checkAnswer: DnsAnswer = {
  rcode: dnsRcodes.noError,
  answers: [
    { owner: undefined, type: dnsTypes.a, class: dnsClassIn, ttlSeconds: 0, data: Uint8Array.of(127, 0, 0, 42) },
  ],
};
const noData: DnsAnswer = { rcode: dnsRcodes.noError, answers: [] };
const nameError: DnsAnswer = { rcode: dnsRcodes.nxDomain, answers: [] };
const failure: DnsAnswer = { rcode: dnsRcodes.servFail, answers: [] };
/** chosen: names that stand for names that stand for names. */
const maxAliases = 8;
/** chosen: seconds that programs keep what the user has settled; as short as the cluster's own. */
const aliasTtlSeconds = 4;
/** protocol: no limit over TCP but the length field's. */
const tcpLimitBytes = 65_535;

export class Resolve {
  readonly #cluster: Pick<ClusterLookup, "lookUp" | "isEcho">;
  readonly #forwarder: Pick<Forwarder, "forward">;
  #names: Names;
  #translation: Translation | undefined;
  #withoutIpv6: boolean;
  readonly stats: DnsStats = {
    queries: 0,
    fromCluster: 0,
    clusterFailed: 0,
    forwarded: 0,
    forwardFailed: 0,
    malformed: 0,
  };

  constructor(
    config: DnsConfig,
    cluster: Pick<ClusterLookup, "lookUp" | "isEcho">,
    forwarder: Pick<Forwarder, "forward">,
  ) {
    this.#names = new Names(config);
    this.#translation = config.translation;
    this.#withoutIpv6 = config.withoutIpv6 === true;
    this.#cluster = cluster;
    this.#forwarder = forwarder;
  }

  setConfig(config: DnsConfig): void {
    this.#names = new Names(config);
    this.#translation = config.translation;
    this.#withoutIpv6 = config.withoutIpv6 === true;
  }

  /** The reply, or undefined when the message deserves none. Never rejects. */
  async answer(message: Uint8Array, transport: DnsTransport): Promise<Uint8Array | undefined> {
    this.stats.queries++;
    const query = parseQuery(message);
    if (query === undefined) return this.#answerOdd(message, transport);
    if (this.#cluster.isEcho(query)) return reply(query, nameError, transport);
    const verdict = this.#judge(query);
    if (verdict.kind === "host") return this.#forward(query, message, transport);
    if (verdict.kind === "alias") return reply(query, await this.#askAlias(verdict.target, query.type), transport);
    if (verdict.kind !== "cluster") {
      const known = verdict.kind === "check" && query.type === dnsTypes.a ? checkAnswer : noData;
      return reply(query, verdict.kind === "missing" ? nameError : known, transport);
    }
    const answer = this.#seenHere(await this.#askCluster(verdict, query.type));
    if (answer.rcode === dnsRcodes.servFail) this.stats.clusterFailed++;
    else this.stats.fromCluster++;
    const isAnswer = answer.rcode === dnsRcodes.noError;
    if (isAnswer || verdict.otherwise === "missing") return reply(query, answer, transport);
    return this.#askHostToo(query, message, { answer, transport });
  }

  /** Addresses as this laptop sees them. */
  #seenHere(whole: DnsAnswer): DnsAnswer {
    const answer = this.#withoutIpv6
      ? { ...whole, answers: whole.answers.filter(({ type }) => type !== dnsTypes.aaaa) }
      : whole;
    const translation = this.#translation;
    if (translation === undefined || translation.mappings.length === 0) return answer;
    const answers = answer.answers.map((record) => {
      const address = addressOf(record);
      const seen = address === undefined ? undefined : translation.toVirtual(address);
      return seen === undefined ? record : { ...record, data: seen };
    });
    return { ...answer, answers };
  }

  /** What the cluster alone says of a name; undefined where the host's answer is the one that counts. Never rejects. */
  async ask(name: string, type: number): Promise<DnsAnswer | undefined> {
    const verdict = this.#names.classify(name.toLowerCase().replace(/\.$/, ""), type);
    if (verdict.kind === "missing") return nameError;
    if (verdict.kind === "alias") return this.#askAlias(verdict.target, type);
    if (verdict.kind !== "cluster") return undefined;
    const answer = await this.#askCluster(verdict, type);
    return answer.rcode === dnsRcodes.noError || verdict.otherwise === "missing" ? answer : undefined;
  }

  async #askCluster(verdict: Verdict & { readonly kind: "cluster" }, type: number): Promise<DnsAnswer> {
    const { candidates, foreign, below } = verdict;
    const answer = await this.#cluster.lookUp(candidates, type, foreign);
    if (below === undefined) return answer;
    return { ...answer, answers: answer.answers.flatMap((each) => putBelow(each, below.zone, below.suffix) ?? []) };
  }

  /** An address as it is, a name with what is behind it, whoever knows that. */
  async #askAlias(target: string, type: number, left = maxAliases): Promise<DnsAnswer> {
    const address = parseAddress(target);
    if (address !== undefined) {
      const own = address.length === 4 ? dnsTypes.a : dnsTypes.aaaa;
      const isAsked = type === own || type === dnsTypes.any;
      return this.#seenHere({ rcode: dnsRcodes.noError, answers: isAsked ? [alias(own, address)] : [] });
    }
    const wire = encodeName(target);
    const cname = alias(dnsTypes.cname, wire);
    if (type === dnsTypes.cname) return { rcode: dnsRcodes.noError, answers: [cname] };
    const behind = await this.#askBehind(target, type, left);
    if (behind.rcode === dnsRcodes.servFail) return failure;
    const answers = behind.answers.map((record) => ({ ...record, owner: record.owner ?? wire }));
    return { rcode: behind.rcode, answers: [cname, ...answers] };
  }

  async #askBehind(target: string, type: number, left: number): Promise<DnsAnswer> {
    const verdict = this.#names.classify(target, type);
    if (verdict.kind === "alias") return left === 0 ? failure : this.#askAlias(verdict.target, type, left - 1);
    const ours = await this.ask(target, type);
    return ours === undefined ? this.#askHost(target, type) : this.#seenHere(ours);
  }

  /** A question of our own to the host's nameservers. */
  async #askHost(name: string, type: number): Promise<DnsAnswer> {
    const id = randomInt(0x10000);
    const message = buildQuery(id, name, type);
    this.stats.forwarded++;
    let reply = await this.#forwarder.forward(message, "udp");
    if (reply !== undefined && isTruncated(reply)) reply = await this.#forwarder.forward(message, "tcp");
    return (reply && parseAnswer(reply, { id, name, type })) ?? failure;
  }

  #judge(query: DnsQuery): Verdict {
    if (query.opcode !== 0 || query.class !== dnsClassIn) return { kind: "host" };
    return this.#names.classify(query.name, query.type);
  }

  /**
   * A name that may be either's. When the host knows it, that counts. When it does not either, the cluster's word is
   * given, which no cache keeps: the name may appear in the cluster at any moment.
   */
  async #askHostToo(
    query: DnsQuery,
    message: Uint8Array,
    cluster: { readonly answer: DnsAnswer; readonly transport: DnsTransport },
  ): Promise<Uint8Array> {
    this.stats.forwarded++;
    const fromHost = await this.#forwarder.forward(message, cluster.transport);
    const known = fromHost !== undefined && rcodeOf(fromHost) === dnsRcodes.noError;
    return known ? fromHost : reply(query, cluster.answer, cluster.transport);
  }

  async #forward(query: DnsQuery, message: Uint8Array, transport: DnsTransport): Promise<Uint8Array> {
    this.stats.forwarded++;
    const answer = await this.#forwarder.forward(message, transport);
    if (answer !== undefined) return answer;
    this.stats.forwardFailed++;
    return reply(query, failure, transport);
  }

  /** Not one plain question. What a nameserver could make sense of goes on; noise is refused or dropped. */
  async #answerOdd(message: Uint8Array, transport: DnsTransport): Promise<Uint8Array | undefined> {
    const isQuery = message.length >= dnsHeaderBytes && ((message[2] ?? 0) & 0x80) === 0;
    if (isQuery && message[4] === 0 && message[5] !== 1) {
      this.stats.forwarded++;
      return this.#forwarder.forward(message, transport);
    }
    this.stats.malformed++;
    return isQuery ? formatError(message) : undefined;
  }
}

function alias(type: number, data: Uint8Array): DnsRecord {
  return { owner: undefined, type, class: dnsClassIn, ttlSeconds: aliasTtlSeconds, data };
}

function reply(query: DnsQuery, answer: DnsAnswer, transport: DnsTransport): Uint8Array {
  return encodeReply(query, answer, transport === "udp" ? query.udpBytes : tcpLimitBytes);
}

/** A bare header that says FORMERR (RFC 1035 §4.1.1). */
function formatError(message: Uint8Array): Uint8Array {
  const header = new Uint8Array(dnsHeaderBytes);
  header.set(message.subarray(0, 4));
  header[2] = (header[2] ?? 0) | 0x80;
  header[3] = 0x80 | dnsRcodes.formErr;
  return header;
}
