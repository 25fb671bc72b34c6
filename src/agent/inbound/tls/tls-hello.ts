// The first message of a TLS caller (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2): whom it wants and what it would speak, read
// without being changed or answered. Pure.
// Invariant: nothing is guessed. What is not a ClientHello as the RFCs have it is `other`, and its bytes go on as they are.

/** chosen: several times what post-quantum keys and long tickets need. */
export const maxHelloBytes = 32 * 1024;

export interface ClientHello {
  /** SNI; undefined when the caller names nobody. */
  readonly serverName: string | undefined;
  /** ALPN, in the caller's order. */
  readonly protocols: readonly string[];
  /** The highest version that the caller speaks, as on the wire: 0x0303 is TLS 1.2. */
  readonly maxVersion: number;
}

/** chosen: callers send one; more makes every look at them dearer. */
const maxRecords = 64;
/** protocol */
const handshakeRecord = 22;
const clientHelloMessage = 1;
const maxRecordBytes = 16 * 1024;
const recordHeaderBytes = 5;
const messageHeaderBytes = 4;
const extension = { serverName: 0, protocols: 16, versions: 43 } as const;
const hostName = 0;

/** `more` while the bytes may still become one. */
export function parseClientHello(bytes: Buffer): ClientHello | "more" | "other" {
  const message = gatherMessage(bytes);
  if (typeof message === "string") return message;
  try {
    return parseMessage(new Reader(message));
  } catch (error) {
    if (error instanceof Malformed) return "other";
    throw error;
  }
}

/** The handshake message without the records around it, which may cut it anywhere. */
function gatherMessage(bytes: Buffer): Buffer | "more" | "other" {
  const pieces: Buffer[] = [];
  let at = 0;
  while (pieces.length < maxRecords) {
    const fragment = readRecord(bytes, at);
    if (typeof fragment === "string") return fragment;
    pieces.push(fragment.bytes);
    at += recordHeaderBytes + fragment.bytes.length;
    const gathered = at - pieces.length * recordHeaderBytes;
    const wanted = wantedBytes(pieces);
    if (wanted === "other" || gathered > wanted) return "other";
    // A caller says nothing after its hello before it is answered but early data, which is a record of another kind.
    if (gathered === wanted) return Buffer.concat(pieces).subarray(messageHeaderBytes);
    if (!fragment.whole) return stillOpen(bytes);
  }
  return "other";
}

/** Length of the whole message, as far as it is known. */
function wantedBytes(pieces: readonly Buffer[]): number | "other" {
  const [first = Buffer.alloc(0)] = pieces;
  const header = first.length < messageHeaderBytes ? Buffer.concat(pieces) : first;
  if (header[0] !== clientHelloMessage) return "other";
  if (header.length < messageHeaderBytes) return Infinity;
  const wanted = messageHeaderBytes + header.readUIntBE(1, 3);
  return wanted > maxHelloBytes ? "other" : wanted;
}

function readRecord(bytes: Buffer, at: number): { bytes: Buffer; whole: boolean } | "more" | "other" {
  const header = bytes.subarray(at, at + recordHeaderBytes);
  const [type, major, minor] = header;
  if (type !== undefined && type !== handshakeRecord) return "other";
  if (major !== undefined && major !== 3) return "other";
  if (minor !== undefined && minor > 4) return "other";
  if (header.length < recordHeaderBytes) return stillOpen(bytes);
  const length = header.readUInt16BE(3);
  if (length === 0 || length > maxRecordBytes) return "other";
  const fragment = bytes.subarray(at + recordHeaderBytes, at + recordHeaderBytes + length);
  return fragment.length === 0 ? stillOpen(bytes) : { bytes: fragment, whole: fragment.length === length };
}

function stillOpen(bytes: Buffer): "more" | "other" {
  return bytes.length < maxHelloBytes ? "more" : "other";
}

class Malformed extends Error {}

/** Throws `Malformed` beyond its end. */
class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }
  get isEmpty(): boolean {
    return this.#at === this.#bytes.length;
  }
  take(count: number): Buffer {
    const taken = this.#bytes.subarray(this.#at, this.#at + count);
    if (taken.length < count) throw new Malformed();
    this.#at += count;
    return taken;
  }
  number(size: 1 | 2): number {
    return this.take(size).readUIntBE(0, size);
  }
  /** Bytes after their own length. */
  vector(lengthSize: 1 | 2): Reader {
    return new Reader(this.take(this.number(lengthSize)));
  }
  text(): string {
    return this.take(this.#bytes.length - this.#at).toString("latin1");
  }
}

function parseMessage(hello: Reader): ClientHello {
  const legacyVersion = hello.number(2);
  hello.take(32); // random
  hello.vector(1); // session
  const ciphers = hello.vector(2);
  const compressions = hello.vector(1);
  if (ciphers.isEmpty || compressions.isEmpty) throw new Malformed();
  const extensions = hello.isEmpty ? new Map<number, Reader>() : readExtensions(hello.vector(2));
  if (!hello.isEmpty) throw new Malformed();
  return {
    serverName: readServerName(extensions.get(extension.serverName)),
    protocols: readProtocols(extensions.get(extension.protocols)),
    maxVersion: readVersions(extensions.get(extension.versions)) ?? legacyVersion,
  };
}

function readExtensions(list: Reader): ReadonlyMap<number, Reader> {
  const extensions = new Map<number, Reader>();
  while (!list.isEmpty) {
    const type = list.number(2);
    if (extensions.has(type)) throw new Malformed();
    extensions.set(type, list.vector(2));
  }
  return extensions;
}

function readServerName(content: Reader | undefined): string | undefined {
  if (content === undefined) return undefined;
  const names = content.vector(2);
  if (names.number(1) !== hostName) throw new Malformed();
  const name = names.vector(2).text();
  if (!names.isEmpty || !content.isEmpty || name === "") throw new Malformed();
  return name;
}

function readProtocols(content: Reader | undefined): readonly string[] {
  if (content === undefined) return [];
  const list = content.vector(2);
  const protocols: string[] = [];
  while (!list.isEmpty) {
    const name = list.vector(1).text();
    if (name === "") throw new Malformed();
    protocols.push(name);
  }
  if (protocols.length === 0 || !content.isEmpty) throw new Malformed();
  return protocols;
}

/** Values that nobody speaks are there on purpose (GREASE, RFC 8701). */
function readVersions(content: Reader | undefined): number | undefined {
  if (content === undefined) return undefined;
  const list = content.vector(1);
  let highest = 0;
  while (!list.isEmpty) {
    const version = list.number(2);
    if (version >> 8 === 3) highest = Math.max(highest, version);
  }
  if (!content.isEmpty) throw new Malformed();
  return highest;
}
