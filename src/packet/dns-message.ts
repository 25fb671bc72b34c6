// DNS messages (RFC 1035, EDNS of RFC 6891) at the level that a resolver in the middle needs: read one question, read
// records with their names expanded, write an answer for a question that is repeated byte for byte. Every length is
// checked; a message that does not hold together gives undefined, never an exception.

export const dnsTypes = {
  a: 1,
  ns: 2,
  cname: 5,
  soa: 6,
  ptr: 12,
  mx: 15,
  txt: 16,
  aaaa: 28,
  srv: 33,
  dname: 39,
  opt: 41,
  https: 65,
  any: 255,
} as const;
export const dnsRcodes = { noError: 0, formErr: 1, servFail: 2, nxDomain: 3, notImp: 4, refused: 5 } as const;
export const dnsClassIn = 1;

export const dnsHeaderBytes = 12;
/** protocol: what a UDP client takes that did not say otherwise. */
export const plainUdpBytes = 512;
/** chosen (DNS flag day 2020): what we say and take over UDP. */
export const ednsUdpBytes = 1232;
/** chosen: largest answer that we send over UDP when the client says it takes more; it never leaves the machine. */
const maxUdpBytes = 4096;
const maxNameBytes = 255;
const flags = { response: 0x8000, truncated: 0x0200, recursionDesired: 0x0100, recursionAvailable: 0x0080 } as const;
const opcodeMask = 0x7800;
/** A pointer to the question's name. */
const questionPointer = Uint8Array.of(0xc0, dnsHeaderBytes);

export interface DnsQuery {
  readonly id: number;
  readonly flags: number;
  readonly opcode: number;
  /** Lower case, without the last dot; bytes that no host name has are `\DDD` (RFC 1035 §5.1), a dot in a label too. */
  readonly name: string;
  readonly type: number;
  readonly class: number;
  /** Name, type and class as they came, to be repeated. */
  readonly question: Uint8Array;
  readonly hasEdns: boolean;
  /** Largest answer that the client takes over UDP. */
  readonly udpBytes: number;
}

export interface DnsRecord {
  /** Wire form, lower case; undefined is the name that was asked for. */
  readonly owner: Uint8Array | undefined;
  readonly type: number;
  readonly class: number;
  readonly ttlSeconds: number;
  /** Names inside are expanded. */
  readonly data: Uint8Array;
}

export interface DnsAnswer {
  readonly rcode: number;
  readonly answers: readonly DnsRecord[];
  /** How long it may be kept that there is nothing (RFC 2308 §5), where the zone says so. */
  readonly negativeTtlSeconds?: number;
}

/** A query with exactly one question; undefined when it is not one (RFC 9619 allows no other number). */
export function parseQuery(message: Uint8Array): DnsQuery | undefined {
  if (message.length < dnsHeaderBytes) return undefined;
  const header = word(message, 2);
  if ((header & flags.response) !== 0 || word(message, 4) !== 1) return undefined;
  const question = readQuestion(message);
  if (question === undefined) return undefined;
  const edns = findEdns(message, question.end);
  return {
    id: word(message, 0),
    flags: header,
    opcode: (header & opcodeMask) >>> 11,
    name: question.name,
    type: question.type,
    class: question.class,
    question: message.slice(dnsHeaderBytes, question.end),
    hasEdns: edns !== undefined,
    udpBytes: Math.min(maxUdpBytes, Math.max(plainUdpBytes, edns ?? plainUdpBytes)),
  };
}

/** A recursive query for the name, with EDNS. The name is as in DnsQuery. */
export function buildQuery(id: number, name: string, type: number): Uint8Array {
  const wire = encodeName(name);
  const message = new Uint8Array(dnsHeaderBytes + wire.length + 4 + 11);
  setWord(message, 0, id);
  setWord(message, 2, flags.recursionDesired);
  setWord(message, 4, 1);
  setWord(message, 10, 1);
  message.set(wire, dnsHeaderBytes);
  setWord(message, dnsHeaderBytes + wire.length, type);
  setWord(message, dnsHeaderBytes + wire.length + 2, dnsClassIn);
  writeOpt(message, dnsHeaderBytes + wire.length + 4);
  return message;
}

/** The answer to a query made by buildQuery(); undefined when it answers something else or does not hold together. */
export function parseAnswer(
  message: Uint8Array,
  asked: { id: number; name: string; type: number },
): DnsAnswer | undefined {
  if (message.length < dnsHeaderBytes || word(message, 0) !== asked.id) return undefined;
  const header = word(message, 2);
  if ((header & flags.response) === 0 || word(message, 4) !== 1) return undefined;
  const question = readQuestion(message);
  if (question?.name !== asked.name || question.type !== asked.type) return undefined;
  const askedName = encodeName(asked.name);
  const answers: DnsRecord[] = [];
  let offset = question.end;
  for (let count = word(message, 6); count > 0; count--) {
    const record = readRecord(message, offset, askedName);
    if (record === undefined) return undefined;
    answers.push(record.record);
    offset = record.end;
  }
  const negativeTtlSeconds = answers.length === 0 ? readNegativeTtl(message, offset) : undefined;
  return { rcode: header & 0x0f, answers, ...(negativeTtlSeconds === undefined ? {} : { negativeTtlSeconds }) };
}

/** From the first record behind the answers, when that is the zone's SOA. */
function readNegativeTtl(message: Uint8Array, start: number): number | undefined {
  const soa = word(message, 8) === 0 ? undefined : readRecord(message, start, new Uint8Array(0))?.record;
  if (soa?.type !== dnsTypes.soa || soa.data.length < 20) return undefined;
  const at = soa.data.length - 4;
  return Math.min(soa.ttlSeconds, word(soa.data, at) * 0x10000 + word(soa.data, at + 2));
}

/** The reply to a query: question repeated as it came, records, and EDNS if the query had it; cut to `limitBytes`. */
export function encodeReply(query: DnsQuery, answer: DnsAnswer, limitBytes: number): Uint8Array {
  const size = dnsHeaderBytes + query.question.length + (query.hasEdns ? 11 : 0);
  const body = answer.answers.reduce((sum, record) => sum + recordBytes(record), 0);
  const truncated = size + body > limitBytes;
  const records = truncated ? [] : answer.answers;
  const message = new Uint8Array(size + (truncated ? 0 : body));
  setWord(message, 0, query.id);
  const copied = query.flags & (opcodeMask | flags.recursionDesired);
  const cut = truncated ? flags.truncated : 0;
  setWord(message, 2, flags.response | copied | cut | flags.recursionAvailable | answer.rcode);
  setWord(message, 4, 1);
  setWord(message, 6, records.length);
  setWord(message, 10, query.hasEdns ? 1 : 0);
  message.set(query.question, dnsHeaderBytes);
  let offset = dnsHeaderBytes + query.question.length;
  for (const record of records) offset = writeRecord(message, offset, record);
  if (query.hasEdns) writeOpt(message, offset);
  return message;
}

/** Header and question of a message that has one; works on queries and responses alike. */
export function readQuestion(
  message: Uint8Array,
): { readonly name: string; readonly type: number; readonly class: number; readonly end: number } | undefined {
  const name = expandName(message, dnsHeaderBytes);
  if (name === undefined || name.end + 4 > message.length) return undefined;
  const end = name.end + 4;
  return { name: nameText(name.wire), type: word(message, name.end), class: word(message, name.end + 2), end };
}

/** The rcode of any message that has a header. */
export function rcodeOf(message: Uint8Array): number {
  return (message[3] ?? 0) & 0x0f;
}

/** Whether the sender had more to say than fits into its datagram. */
export function isTruncated(message: Uint8Array): boolean {
  return (word(message, 2) & flags.truncated) !== 0;
}

/** `10.96.0.10` or `fd00::a` of an A or AAAA record's data, as bytes. */
export function addressOf(record: DnsRecord): Uint8Array | undefined {
  if (record.type === dnsTypes.a && record.data.length === 4) return record.data;
  return record.type === dnsTypes.aaaa && record.data.length === 16 ? record.data : undefined;
}

/**
 * The record with names of `zone` put below `suffix`, so that whoever asks for them next is still below it; undefined when
 * one gets too long to exist.
 */
export function putBelow(record: DnsRecord, zone: string, suffix: string): DnsRecord | undefined {
  const move = (wire: Uint8Array): Uint8Array => {
    const name = nameText(wire);
    return name === zone || name.endsWith(`.${zone}`) ? encodeName(`${name}.${suffix}`) : wire;
  };
  const owner = record.owner && move(record.owner);
  const layout = embeddedNames[record.type];
  const name = layout?.names === 1 ? move(record.data.subarray(layout.skip)) : undefined;
  if ((owner?.length ?? 0) > maxNameBytes || (name?.length ?? 0) > maxNameBytes) return undefined;
  const data = name === undefined ? record.data : concatenate([record.data.subarray(0, layout?.skip), name]);
  return { ...record, owner, data };
}

/** Wire form of a name as in DnsQuery. */
export function encodeName(name: string): Uint8Array {
  if (name === "") return Uint8Array.of(0);
  if (name.includes("\\")) return encodeOddName(name);
  const wire = new Uint8Array(name.length + 2);
  let offset = 0;
  for (const label of name.split(".")) {
    wire[offset++] = label.length;
    for (let index = 0; index < label.length; index++) wire[offset++] = label.charCodeAt(index);
  }
  return wire;
}

function encodeOddName(name: string): Uint8Array {
  const labels = name.split(".").map((label) => {
    const bytes = label.replace(/\\(\d{3})/g, (_, code: string) => String.fromCharCode(Number(code)));
    return Buffer.from(String.fromCharCode(bytes.length) + bytes, "latin1");
  });
  return concatenate([...labels, Uint8Array.of(0)]);
}

function readRecord(
  message: Uint8Array,
  start: number,
  askedName: Uint8Array,
): { readonly record: DnsRecord; readonly end: number } | undefined {
  const owner = expandName(message, start);
  if (owner === undefined || owner.end + 10 > message.length) return undefined;
  const offset = owner.end;
  const type = word(message, offset);
  const dataStart = offset + 10;
  const end = dataStart + word(message, offset + 8);
  if (end > message.length) return undefined;
  const data = expandData(message, type, dataStart, end);
  if (data === undefined) return undefined;
  const record: DnsRecord = {
    owner: sameBytes(owner.wire, askedName) ? undefined : owner.wire,
    type,
    class: word(message, offset + 2),
    ttlSeconds: word(message, offset + 4) * 0x10000 + word(message, offset + 6),
    data,
  };
  return { record, end };
}

/** Where names begin in the data of the types that may hold compressed ones (RFC 3597 §4, RFC 2782), and how many. */
const embeddedNames: Readonly<Record<number, { readonly skip: number; readonly names: number }>> = {
  [dnsTypes.ns]: { skip: 0, names: 1 },
  [dnsTypes.cname]: { skip: 0, names: 1 },
  [dnsTypes.ptr]: { skip: 0, names: 1 },
  [dnsTypes.dname]: { skip: 0, names: 1 },
  [dnsTypes.mx]: { skip: 2, names: 1 },
  [dnsTypes.srv]: { skip: 6, names: 1 },
  [dnsTypes.soa]: { skip: 0, names: 2 },
};

function expandData(message: Uint8Array, type: number, start: number, end: number): Uint8Array | undefined {
  const layout = embeddedNames[type];
  if (layout === undefined) return message.slice(start, end);
  const parts = [message.subarray(start, start + layout.skip)];
  let offset = start + layout.skip;
  for (let count = 0; count < layout.names; count++) {
    const name = expandName(message, offset);
    if (name === undefined || name.end > end) return undefined;
    parts.push(name.wire);
    offset = name.end;
  }
  parts.push(message.subarray(offset, end));
  return concatenate(parts);
}

/** The name at `start` without pointers, lower case, and where reading goes on. */
function expandName(
  message: Uint8Array,
  start: number,
): { readonly wire: Uint8Array; readonly end: number } | undefined {
  const wire = new Uint8Array(maxNameBytes);
  let length = 0;
  let end: number | undefined;
  let offset = start;
  let lowest = start;
  for (;;) {
    const target = pointerAt(message, offset);
    if (target !== undefined) {
      // Pointers must point back (RFC 1035 §4.1.4), which also ends every loop.
      if (target >= lowest) return undefined;
      end ??= offset + 2;
      offset = target;
      lowest = target;
      continue;
    }
    const size = message[offset] ?? Number.POSITIVE_INFINITY;
    if (size > 63 || length + size + 1 > maxNameBytes || offset + 1 + size > message.length) return undefined;
    wire[length++] = size;
    for (let index = 0; index < size; index++) wire[length++] = lowerCase(message[offset + 1 + index] as number);
    offset += 1 + size;
    if (size === 0) return { wire: wire.slice(0, length), end: end ?? offset };
  }
}

/** Where a compression pointer at `offset` leads; undefined when there is none, or half of one. */
function pointerAt(message: Uint8Array, offset: number): number | undefined {
  const high = message[offset] ?? 0;
  const low = message[offset + 1];
  return (high & 0xc0) === 0xc0 && low !== undefined ? ((high & 0x3f) << 8) | low : undefined;
}

function nameText(wire: Uint8Array): string {
  let text = "";
  for (let offset = 0; wire[offset] !== 0;) {
    const end = offset + 1 + (wire[offset] as number);
    if (text !== "") text += ".";
    for (offset++; offset < end; offset++) {
      const byte = wire[offset] as number;
      text += isHostCharacter(byte) ? String.fromCharCode(byte) : `\\${String(byte).padStart(3, "0")}`;
    }
  }
  return text;
}

/** a–z, 0–9, `-` and `_`; upper case was lowered before. */
function isHostCharacter(byte: number): boolean {
  return (byte >= 0x61 && byte <= 0x7a) || (byte >= 0x30 && byte <= 0x39) || byte === 0x2d || byte === 0x5f;
}

function lowerCase(byte: number): number {
  return byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte;
}

/** The UDP size that the OPT record in the additional section gives; undefined when there is none. */
function findEdns(message: Uint8Array, questionEnd: number): number | undefined {
  const before = word(message, 6) + word(message, 8);
  const total = before + word(message, 10);
  let offset = questionEnd;
  for (let count = 0; count < total; count++) {
    const owner = expandName(message, offset);
    if (owner === undefined || owner.end + 10 > message.length) return undefined;
    if (count >= before && word(message, owner.end) === dnsTypes.opt) return word(message, owner.end + 2);
    offset = owner.end + 10 + word(message, owner.end + 8);
  }
  return undefined;
}

function recordBytes(record: DnsRecord): number {
  return (record.owner ?? questionPointer).length + 10 + record.data.length;
}

function writeRecord(message: Uint8Array, start: number, record: DnsRecord): number {
  const owner = record.owner ?? questionPointer;
  message.set(owner, start);
  const offset = start + owner.length;
  setWord(message, offset, record.type);
  setWord(message, offset + 2, record.class);
  setWord(message, offset + 4, record.ttlSeconds >>> 16);
  setWord(message, offset + 6, record.ttlSeconds & 0xffff);
  setWord(message, offset + 8, record.data.length);
  message.set(record.data, offset + 10);
  return offset + 10 + record.data.length;
}

function writeOpt(message: Uint8Array, offset: number): void {
  setWord(message, offset + 1, dnsTypes.opt);
  setWord(message, offset + 3, ednsUdpBytes);
}

function word(bytes: Uint8Array, offset: number): number {
  return ((bytes[offset] ?? 0) << 8) | (bytes[offset + 1] ?? 0);
}
function setWord(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value >>> 8;
  bytes[offset + 1] = value & 0xff;
}
function sameBytes(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && left.every((byte, index) => byte === right[index]);
}
function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    joined.set(part, offset);
    offset += part.length;
  }
  return joined;
}
