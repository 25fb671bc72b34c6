// The head of a message: start line and fields (RFC 9112 §2–5). Strict where leniency would let two readers see two
// different messages: one space in the start line, no space before a colon, no folded lines, no bare CR or LF, no
// control characters. What does not fit is Unclear; the caller of this folder then leaves the bytes to somebody else.

/** Bytes that can be taken in more than one way, or not at all. */
export class Unclear {
  readonly reason: string;
  constructor(reason: string) {
    this.reason = reason;
  }
}

export interface HeaderField {
  /** Lower case. */
  readonly name: string;
  /** Without white space around it; bytes above 127 as Latin-1. */
  readonly value: string;
}

interface Head {
  /** The minor version: HTTP/1.0 or HTTP/1.1. */
  readonly minor: 0 | 1;
  readonly fields: readonly HeaderField[];
}

export interface RequestHead extends Head {
  readonly method: string;
  readonly target: string;
}

export interface ResponseHead extends Head {
  readonly status: number;
}

/** chosen: more than any server takes by default (8 to 16 KiB are common). */
export const maxHeadBytes = 64 * 1024;

// A client may send one empty line too many before a request (§2.2).
const requestLine = /(?:\r\n)?([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e\x80-\xff]+) HTTP\/1\.([01])\r\n/y;
const statusLine = /HTTP\/1\.([01]) ([1-9][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?\r\n/y;
const fieldLine = /([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)\r\n/y;

/** `bytes` reaches to the end of the empty line. */
export function parseRequestHead(bytes: Buffer): RequestHead | Unclear {
  const text = bytes.toString("latin1");
  requestLine.lastIndex = 0;
  const line = requestLine.exec(text);
  if (line === null) return new Unclear("the request line is not one of HTTP/1");
  const fields = parseFields(text, requestLine.lastIndex);
  if (fields instanceof Unclear) return fields;
  return { method: line[1] ?? "", target: line[2] ?? "", minor: line[3] === "1" ? 1 : 0, fields };
}

export function parseResponseHead(bytes: Buffer): ResponseHead | Unclear {
  const text = bytes.toString("latin1");
  statusLine.lastIndex = 0;
  const line = statusLine.exec(text);
  if (line === null) return new Unclear("the status line is not one of HTTP/1");
  const fields = parseFields(text, statusLine.lastIndex);
  if (fields instanceof Unclear) return fields;
  return { status: Number(line[2]), minor: line[1] === "1" ? 1 : 0, fields };
}

function parseFields(text: string, from: number): HeaderField[] | Unclear {
  const fields: HeaderField[] = [];
  const end = text.length - 2;
  for (let at = from; at < end; at = fieldLine.lastIndex) {
    fieldLine.lastIndex = at;
    const line = fieldLine.exec(text);
    if (line === null) return new Unclear("a header line is not name, colon, value");
    fields.push({ name: (line[1] ?? "").toLowerCase(), value: (line[2] ?? "").trimEnd() });
  }
  return fields;
}

/** All values of a field, in order; `name` in lower case. */
export function valuesOf(head: Head, name: string): readonly string[] {
  const values: string[] = [];
  for (const field of head.fields) if (field.name === name) values.push(field.value);
  return values;
}

/** Whether a list field (RFC 9110 §5.6.1) holds this word, in any case. */
export function listHolds(head: Head, name: string, word: string): boolean {
  for (const field of head.fields) {
    if (field.name !== name) continue;
    for (const item of field.value.split(",")) if (item.trim().toLowerCase() === word) return true;
  }
  return false;
}

/** Whether the sender of this message means the connection to go on after the exchange (RFC 9112 §9.3). */
export function staysOpen(head: Head): boolean {
  if (listHolds(head, "connection", "close")) return false;
  return head.minor === 1 || listHolds(head, "connection", "keep-alive");
}
