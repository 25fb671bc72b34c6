// Names that are ours, answered by the cluster's resolver through the manager: search-path expansion, one look-up at a
// time for the same question, and a short cache. Addresses of services that the API has told already are not asked for.
// What the cluster says (a name that does not exist, one without such records, a failure) is kept apart to the end.
// @from daemon/dns/resolve.ts
// @to egress/resolve.ts
import { randomInt } from "node:crypto";
import { deadline, linkSignals, raceSignal } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { formatAddress, parseAddress, type IpAddress } from "#packet/address.ts";
import {
  addressOf,
  buildQuery,
  dnsClassIn,
  dnsHeaderBytes,
  dnsRcodes,
  dnsTypes,
  encodeName,
  parseAnswer,
  readQuestion,
  type DnsAnswer,
  type DnsQuery,
  type DnsRecord,
} from "#packet/dns-message.ts";

/** One DNS message to the cluster's resolver, its answer back; rejects when the manager is away. */
export type Exchange = (message: Uint8Array, signal: AbortSignal) => Promise<Uint8Array>;
/** Addresses that programs are about to use; a route may be missing. The answer waits for it, briefly. */
export type OnAddresses = (addresses: readonly string[]) => void | Promise<void>;

/**
 * chosen: callers ask again soon. The cluster's resolver keeps answers too (CoreDNS: 5 s, also of names that do not
 * exist) and counts in whole seconds, rounded up: all that is kept here ends before its own time does, so that a
 * recreated service is found within five seconds of anybody's last question (trap 5).
 */
const maxTtlSeconds = 4;
/** chosen: at most, on top of the cluster's own; less where its SOA says so. */
const negativeTtlMs = 500;
/** chosen: entries; the oldest go first. */
const maxCacheEntries = 4096;
/** chosen: different questions under way at once. */
const maxLookups = 2048;
/** chosen: the whole expansion of one question, unless the user says otherwise. */
export const defaultLookupTimeoutMs = 4000;
/** chosen: what an answer waits for its routes. */
const onAddressesTimeoutMs = 1000;

/** protocol: a longer name cannot exist (RFC 1035 §2.3.4). */
const maxNameBytes = 255;

interface LookupKind {
  readonly type: number;
  readonly foreign: boolean;
}
interface Cached {
  readonly answer: DnsAnswer;
  readonly expiresMs: number;
}

export interface ClusterOptions {
  readonly exchange: Exchange;
  readonly onAddresses?: OnAddresses | undefined;
  readonly lookupTimeoutMs?: number | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

const failed: DnsAnswer = { rcode: dnsRcodes.servFail, answers: [] };

export class ClusterLookup {
  readonly #options: ClusterOptions;
  readonly #cache = new Map<string, Cached>();
  readonly #lookups = new Map<string, Promise<DnsAnswer>>();
  #generation = 0;
  /** Foreign questions under way as they were spelled; one that comes in so is one of these, come back. */
  readonly #spellings = new Set<string>();
  /** By full name: addresses that need not be asked for. */
  #known: ReadonlyMap<string, readonly IpAddress[]> = new Map();
  #nextId = 1;

  constructor(options: ClusterOptions) {
    this.#options = options;
  }

  /** The first candidate that exists; SERVFAIL when the cluster could not be asked. Never rejects. */
  async lookUp(candidates: readonly string[], type: number, foreign = false): Promise<DnsAnswer> {
    const key = `${type} ${candidates.join(" ")}`;
    const cached = this.#fromCache(key);
    if (cached !== undefined) return cached;
    const running = this.#lookups.get(key);
    if (running !== undefined) return running;
    if (this.#lookups.size >= maxLookups) return failed;
    const lookup = this.#run(key, candidates, { type, foreign });
    this.#lookups.set(key, lookup);
    try {
      return await lookup;
    } finally {
      if (this.#lookups.get(key) === lookup) this.#lookups.delete(key);
    }
  }

  /**
   * What the cluster's API says of services, by the first part of their names. Its resolver learns of them later than
   * we do, and keeps what was: with the usual settings for half a minute, also that there was none.
   */
  setKnown(addresses: Readonly<Record<string, readonly string[]>>, suffix: string): void {
    const end = suffix.toLowerCase().replace(/\.$/, "");
    const entries = Object.entries(addresses).map(
      ([name, texts]) => [`${name}${end}`, texts.flatMap((text) => parseAddress(text) ?? [])] as const,
    );
    this.#known = new Map(entries);
  }

  /** Forgets every answer, also those under way: the cluster or the question's meaning has changed. */
  flush(): void {
    this.#generation++;
    this.#cache.clear();
    this.#lookups.clear();
  }

  async #run(key: string, candidates: readonly string[], kind: LookupKind): Promise<DnsAnswer> {
    const { clock, log, signal, lookupTimeoutMs = defaultLookupTimeoutMs } = this.#options;
    const generation = this.#generation;
    using limit = deadline(clock, lookupTimeoutMs, "a look-up in the cluster", signal);
    try {
      const known = this.#fromKnown(candidates[0] ?? "", kind.type);
      const answer = known ?? bound(await this.#firstThatExists(candidates, kind, limit.signal));
      await this.#announce(answer);
      if (generation === this.#generation && answer.rcode !== dnsRcodes.servFail) this.#keep(key, answer);
      return answer;
    } catch (error) {
      log.debug("cluster look-up failed", { name: candidates[0], type: kind.type, error: String(error) });
      return failed;
    }
  }

  #fromKnown(name: string, type: number): DnsAnswer | undefined {
    const bytes = { [dnsTypes.a]: 4, [dnsTypes.aaaa]: 16 }[type];
    const addresses = bytes === undefined ? undefined : this.#known.get(name);
    const own = addresses?.filter((address) => address.length === bytes);
    return own && { rcode: dnsRcodes.noError, answers: own.map((data) => knownRecord(type, data)) };
  }

  /**
   * As a pod's resolver: on to the next only when the name does not exist. But all are asked at once: a name that is
   * nowhere would cost a round trip for each, before the laptop's own nameservers are asked for it.
   */
  async #firstThatExists(candidates: readonly string[], kind: LookupKind, signal: AbortSignal): Promise<DnsAnswer> {
    const possible = candidates.filter((name) => encodeName(name).length <= maxNameBytes);
    const settled = new AbortController();
    using linked = linkSignals(signal, settled.signal);
    const asked = possible.map((name) => this.#ask(name, kind, linked.signal));
    for (const asking of asked) asking.catch(() => undefined); // perhaps nobody waits for it any more
    let answer: DnsAnswer = { rcode: dnsRcodes.nxDomain, answers: [] };
    try {
      for (const asking of asked) {
        answer = await asking;
        if (answer.rcode !== dnsRcodes.nxDomain) break;
      }
      return answer;
    } finally {
      settled.abort(new AppError("cancelled", "another name has answered"));
    }
  }

  /**
   * Whether this question is one of ours that the cluster's resolver has forwarded to the laptop it runs on (a cluster
   * on this machine). Waiting for our own answer would take until everybody's time-out.
   */
  isEcho(query: DnsQuery): boolean {
    return this.#spellings.size > 0 && this.#spellings.has(questionKey(query.question));
  }

  async #ask(name: string, { type, foreign }: LookupKind, signal: AbortSignal): Promise<DnsAnswer> {
    const id = this.#nextId;
    this.#nextId = (this.#nextId % 0xffff) + 1;
    const message = buildQuery(id, foreign ? spell(name) : name, type);
    const key = questionKey(message.subarray(dnsHeaderBytes, readQuestion(message)?.end));
    if (foreign) this.#spellings.add(key);
    let reply: Uint8Array;
    try {
      reply = await raceSignal(this.#options.exchange(message, signal), signal);
    } finally {
      this.#spellings.delete(key);
    }
    const answer = parseAnswer(reply, { id, name, type });
    if (answer !== undefined) return answer;
    this.#options.log.warn("the cluster's answer does not fit its question", { name, type });
    return failed;
  }

  async #announce(answer: DnsAnswer): Promise<void> {
    const { onAddresses, clock, log, signal } = this.#options;
    const addresses = answer.answers.map(addressOf).filter((address) => address !== undefined);
    if (onAddresses === undefined || addresses.length === 0) return;
    using limit = deadline(clock, onAddressesTimeoutMs, "adding routes for an answer", signal);
    try {
      const texts = addresses.map((address) => formatAddress(address));
      await raceSignal(Promise.resolve(onAddresses(texts)), limit.signal);
    } catch (error) {
      log.warn("routes for an answer are missing", { error: String(error) });
    }
  }

  #fromCache(key: string): DnsAnswer | undefined {
    const cached = this.#cache.get(key);
    if (cached === undefined) return undefined;
    const leftMs = cached.expiresMs - this.#options.clock.now();
    if (leftMs > 0) return withTtl(cached.answer, Math.floor(leftMs / 1000));
    this.#cache.delete(key);
    return undefined;
  }

  #keep(key: string, answer: DnsAnswer): void {
    const ttls = answer.answers.map((record) => record.ttlSeconds * 1000);
    const soonMs = Math.min(negativeTtlMs, (answer.negativeTtlSeconds ?? Number.POSITIVE_INFINITY) * 1000);
    const lifeMs = ttls.length === 0 ? soonMs : Math.min(...ttls);
    if (lifeMs <= 0) return;
    this.#cache.delete(key);
    this.#cache.set(key, { answer, expiresMs: this.#options.clock.now() + lifeMs });
    for (const oldest of this.#cache.keys()) {
      if (this.#cache.size <= maxCacheEntries) break;
      this.#cache.delete(oldest);
    }
  }
}

function knownRecord(type: number, data: IpAddress): DnsRecord {
  return { owner: undefined, type, class: dnsClassIn, ttlSeconds: maxTtlSeconds, data };
}

/** The name with about half of its letters in upper case, at random: resolvers keep the spelling (RFC 4343 §4). */
function spell(name: string): string {
  const spelled = name.replace(/[a-z]/g, (letter) => (randomInt(2) === 0 ? letter : letter.toUpperCase()));
  return spelled === name ? name.replace(/[a-z]/, (letter) => letter.toUpperCase()) : spelled;
}

function questionKey(question: Uint8Array): string {
  return Buffer.from(question).toString("latin1");
}

/** What is left of the answer's time: "1" may mean that it ends in a millisecond. */
function bound(answer: DnsAnswer): DnsAnswer {
  const ttls = answer.answers.map((record) => Math.max(0, record.ttlSeconds - 1));
  return withTtl(answer, Math.min(maxTtlSeconds, ...ttls));
}

function withTtl(answer: DnsAnswer, seconds: number): DnsAnswer {
  const limit = (record: DnsRecord): DnsRecord => ({ ...record, ttlSeconds: Math.min(record.ttlSeconds, seconds) });
  return { ...answer, answers: answer.answers.map(limit) };
}
