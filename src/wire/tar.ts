// Pure: tar as bytes (ustar with the long names of GNU and pax): how files of a pod come through `pods/exec`. The
// reader believes nothing: names are texts that whoever unpacks has to judge.
import { AppError } from "#base/error.ts";

const blockBytes = 512;
/** chosen: the longest name, link or pax record that is kept; Linux allows 4096. */
const maxNameBytes = 64 * 1024;

export type TarKind = "file" | "folder" | "symlink" | "hardlink" | "other";

export interface TarEntry {
  readonly kind: TarKind;
  readonly name: string;
  /** Of symlink and hardlink. */
  readonly link: string;
  readonly size: number;
  readonly mode: number;
}

export type TarEvent =
  | { readonly type: "entry"; readonly entry: TarEntry }
  /** Content of the entry before; never empty. */
  | { readonly type: "data"; readonly data: Buffer }
  | { readonly type: "end" };

/** What the next bytes belong to. */
interface Body {
  /** Left of the content, then of the padding behind it. */
  left: number;
  padding: number;
  /** Collects a long name or pax record; undefined for content. */
  readonly collect: { readonly type: string; readonly parts: Buffer[] } | undefined;
}

export class TarReader {
  #held = Buffer.alloc(0);
  #body: Body | undefined;
  #over: Partial<Record<"name" | "link" | "size", string>> = {};
  #ended = false;

  /** True when the archive was whole: a stream that was cut has no end of its own. */
  get ended(): boolean {
    return this.#ended;
  }

  *push(chunk: Buffer): Generator<TarEvent, void, void> {
    let rest = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    while (rest.length > 0 && !this.#ended) {
      const used = yield* this.#step(rest);
      if (used === 0) break;
      rest = rest.subarray(used);
    }
    this.#held = this.#ended ? Buffer.alloc(0) : Buffer.from(rest);
  }

  /** How many bytes it has used. */
  *#step(bytes: Buffer): Generator<TarEvent, number, void> {
    const body = this.#body;
    if (body === undefined) return yield* this.#header(bytes);
    if (body.left > 0) {
      const data = bytes.subarray(0, Math.min(body.left, bytes.length));
      body.left -= data.length;
      if (body.collect === undefined) yield { type: "data", data };
      else body.collect.parts.push(data);
      if (body.left === 0) this.#collected(body);
      return data.length;
    }
    const used = Math.min(body.padding, bytes.length);
    body.padding -= used;
    if (body.padding === 0) this.#body = undefined;
    return used;
  }

  *#header(bytes: Buffer): Generator<TarEvent, number, void> {
    if (bytes.length < blockBytes) return 0;
    const block = bytes.subarray(0, blockBytes);
    if (block.every((byte) => byte === 0)) {
      this.#ended = true;
      yield { type: "end" };
      return blockBytes;
    }
    checkSum(block);
    const type = String.fromCharCode(block[156] ?? 0);
    const size = numberAt(block, 124, 12);
    if ("LKxg".includes(type)) {
      if (size > maxNameBytes) throw broken(`a name of ${size} bytes`);
      this.#expect(size, { type, parts: [] });
    } else {
      const entry = this.#entry(block, type, Number(this.#over.size ?? size));
      // the size of a folder or a link stands for nothing that follows
      this.#expect(entry.kind === "file" || entry.kind === "other" ? entry.size : 0, undefined);
      yield { type: "entry", entry };
    }
    return blockBytes;
  }

  #expect(size: number, collect: Body["collect"]): void {
    if (!Number.isSafeInteger(size) || size < 0) throw broken(`an entry of size ${size}`);
    const padding = (blockBytes - (size % blockBytes)) % blockBytes;
    this.#body = size === 0 ? undefined : { left: size, padding, collect };
  }

  #entry(block: Buffer, type: string, size: number): TarEntry {
    const prefix = block.toString("latin1", 257, 262) === "ustar" && block[262] === 0 ? textAt(block, 345, 155) : "";
    const short = textAt(block, 0, 100);
    const name = this.#over.name ?? (prefix === "" ? short : `${prefix}/${short}`);
    const link = this.#over.link ?? textAt(block, 157, 100);
    this.#over = {};
    const plain = kinds[type] ?? "other";
    const kind = plain === "file" && name.endsWith("/") ? "folder" : plain;
    return { kind, name, link, size, mode: numberAt(block, 100, 8) };
  }

  #collected({ padding, collect }: Body): void {
    if (padding === 0) this.#body = undefined;
    if (collect === undefined) return;
    const bytes = Buffer.concat(collect.parts);
    if (collect.type === "L") this.#over.name = untilZero(bytes);
    else if (collect.type === "K") this.#over.link = untilZero(bytes);
    else if (collect.type === "x") Object.assign(this.#over, paxFields(bytes));
  }
}

const broken = (what: string): AppError => new AppError("protocol", `the tar stream has ${what}`);

const kinds: Readonly<Record<string, TarKind>> = {
  "0": "file",
  "\0": "file",
  "7": "file",
  "1": "hardlink",
  "2": "symlink",
  "5": "folder",
};

const untilZero = (bytes: Buffer): string => {
  const end = bytes.indexOf(0);
  return bytes.toString("utf8", 0, end < 0 ? bytes.length : end);
};

const textAt = (block: Buffer, start: number, length: number): string =>
  untilZero(block.subarray(start, start + length));

/** Octal digits, or big-endian bytes behind a first byte of 0x80 where eight gigabytes are not enough. */
function numberAt(block: Buffer, start: number, length: number): number {
  const field = block.subarray(start, start + length);
  if (field[0] === 0x80) return field.subarray(1).reduce((value, byte) => value * 256 + byte, 0);
  const text = untilZero(field).trim();
  return text === "" ? 0 : /^[0-7]+$/.test(text) ? Number.parseInt(text, 8) : Number.NaN;
}

function sumOf(block: Buffer): number {
  let sum = 8 * 0x20; // the sum's own field counts as spaces
  for (const [index, byte] of block.entries()) if (index < 148 || index >= 156) sum += byte;
  return sum;
}

function checkSum(block: Buffer): void {
  if (numberAt(block, 148, 8) !== sumOf(block)) throw broken("a header with a wrong checksum");
}

/** `LENGTH KEY=VALUE\n`, LENGTH in bytes of the whole record. */
function paxFields(bytes: Buffer): Partial<Record<"name" | "link" | "size", string>> {
  const names: Readonly<Record<string, "name" | "link" | "size">> = { path: "name", linkpath: "link", size: "size" };
  const found: Partial<Record<"name" | "link" | "size", string>> = {};
  for (let start = 0; start < bytes.length;) {
    const [, digits = ""] = /^(\d{1,6}) /.exec(bytes.toString("latin1", start, start + 8)) ?? [];
    const length = Number(digits);
    if (digits === "" || length <= digits.length + 1) throw broken("a record without a length");
    const record = bytes.toString("utf8", start + digits.length + 1, start + length - 1);
    const equals = record.indexOf("=");
    const name = names[record.slice(0, Math.max(equals, 0))];
    if (name !== undefined) found[name] = record.slice(equals + 1);
    start += length;
  }
  return found;
}

/** The header of one entry, with a long name before it where the name needs one. */
export function tarHeader({ kind, name, link, size, mode }: TarEntry): Buffer {
  const types: Readonly<Record<TarKind, string>> = { file: "0", folder: "5", symlink: "2", hardlink: "1", other: "0" };
  return Buffer.concat([
    ...longText("L", name),
    ...longText("K", link),
    headerBlock({ type: types[kind], name, link, size, mode }),
  ]);
}

/** What follows content of this size. */
export const tarPadding = (size: number): Buffer => Buffer.alloc((blockBytes - (size % blockBytes)) % blockBytes);

export const tarEnd: Buffer = Buffer.alloc(2 * blockBytes);

function longText(type: "L" | "K", text: string): readonly Buffer[] {
  const bytes = Buffer.from(`${text}\0`);
  if (bytes.length <= 100) return [];
  const header = headerBlock({ type, name: "././@LongLink", link: "", size: bytes.length, mode: 0 });
  return [header, bytes, tarPadding(bytes.length)];
}

function headerBlock(fields: Omit<TarEntry, "kind"> & { readonly type: string }): Buffer {
  const block = Buffer.alloc(blockBytes);
  const octal = (value: number, length: number): string => `${value.toString(8).padStart(length - 1, "0")}\0`;
  Buffer.from(fields.name).copy(block, 0, 0, 99);
  block.write(octal(fields.mode & 0o7777, 8), 100, "latin1");
  block.write(octal(0, 8), 108, "latin1");
  block.write(octal(0, 8), 116, "latin1");
  if (fields.size < 8 ** 11) block.write(octal(fields.size, 12), 124, "latin1");
  else {
    block[124] = 0x80;
    block.writeBigUInt64BE(BigInt(fields.size), 128);
  }
  block.write(octal(0, 12), 136, "latin1");
  block.write(fields.type, 156, "latin1");
  Buffer.from(fields.link).copy(block, 157, 0, 99);
  block.write("ustar  \0", 257, "latin1"); // GNU's: the name is not split
  block.write(`${sumOf(block).toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}
