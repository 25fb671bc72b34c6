// Reading what a request carries as text: bytes that came as Latin-1, percent-encoding, and the W3C `baggage` and
// Cookie headers. Lenient, because a malformed header of a caller is a fact to filter on, not an error of ours.

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
const strictUtf8 = new TextDecoder("utf-8", { ignoreBOM: true, fatal: true });
const encoder = new TextEncoder();
const token = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

/** RFC 9110 §5.6.2, what names of headers, methods and baggage are made of. */
export function isToken(text: string): boolean {
  return token.test(text);
}

export function utf8Length(text: string): number {
  return encoder.encode(text).length;
}

/** Malformed sequences become U+FFFD. */
export function decodeUtf8(bytes: Uint8Array): string {
  return utf8.decode(bytes);
}

/** HTTP parsers hand over bytes above 127 as Latin-1; where they are UTF-8, they were meant as that. */
export function fromLatin1(text: string): string {
  let high = false;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code > 0xff) return text; // somebody has decoded it already
    if (code > 0x7f) high = true;
  }
  if (!high) return text;
  try {
    return strictUtf8.decode(Uint8Array.from(text, (char) => char.charCodeAt(0)));
  } catch {
    return text; // Latin-1 after all
  }
}

/** What is malformed stays as it is, sequences that are not UTF-8 become U+FFFD. */
export function percentDecode(text: string): string {
  if (!text.includes("%")) return text;
  try {
    return decodeURIComponent(text);
  } catch {
    return text.replace(/(?:%[0-9A-Fa-f]{2})+/g, (run) =>
      utf8.decode(Uint8Array.from(run.slice(1).split("%"), (hex) => Number.parseInt(hex, 16))),
    );
  }
}

/**
 * One spelling for all equal paths (RFC 3986 §6.2.2): hexadecimal in upper case, letters and digits not encoded,
 * everything that cannot stand in a path encoded. Flags and requests go through the same.
 */
export function normalizePath(path: string): string {
  return path.replace(/%[0-9A-Fa-f]{2}|[^\x21-\x7e]+/g, (found) => {
    if (!found.startsWith("%") || found.length !== 3) return percentEncode(found);
    const char = String.fromCharCode(Number.parseInt(found.slice(1), 16));
    return /[A-Za-z0-9._~-]/.test(char) ? char : found.toUpperCase();
  });
}

function percentEncode(text: string): string {
  let encoded = "";
  for (const byte of encoder.encode(text)) encoded += `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  return encoded;
}

/** `a=1&b=2&a=3`, decoded; `+` is a space. */
export function parseQuery(query: string): Map<string, string[]> {
  const values = new Map<string, string[]>();
  for (const part of query.split("&")) {
    if (part === "") continue;
    const spaced = part.includes("+") ? part.replaceAll("+", " ") : part;
    const [name, value] = splitAt(spaced, "=");
    const key = percentDecode(name);
    const known = values.get(key);
    if (known === undefined) values.set(key, [percentDecode(value)]);
    else known.push(percentDecode(value));
  }
  return values;
}

/** https://www.w3.org/TR/baggage/: `key=value;property,…`, values percent-encoded, properties of no use here. */
export function parseBaggage(header: string): Map<string, string> {
  const values = new Map<string, string>();
  for (const member of header.split(",")) {
    const [name, value] = splitAt(splitAt(member, ";")[0], "=");
    const key = name.trim();
    if (isToken(key)) values.set(key, percentDecode(value.trim()));
  }
  return values;
}

/** The first of two cookies of one name counts, as with most servers. */
export function parseCookies(header: string): Map<string, string> {
  const values = new Map<string, string>();
  for (const pair of header.split(";")) {
    const [name, value] = splitAt(pair, "=");
    const key = name.trim();
    if (key !== "" && !values.has(key)) values.set(key, value.trim());
  }
  return values;
}

function splitAt(text: string, separator: string): readonly [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}
