// Whether a caller's first bytes are those of HTTP, and of which version. Of HTTP/1 only methods that exist count: a
// protocol of one's own may begin with any word, and the sooner a byte rules HTTP out, the sooner nobody waits.

const methods: readonly string[] = [
  ..."GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH QUERY".split(" "),
  ..."PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK REPORT SEARCH PURGE".split(" "),
];
/** chosen: a request line beyond this is somebody else's to refuse. */
const maxLineBytes = 16 * 1024;

/** Every connection of HTTP/2 begins with it (RFC 9113 §3.4). */
const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

export type Recognised = "http1" | "http2" | "other" | "more";

/** `more` while the bytes may still become a request line, or the preface. */
export function recogniseHttp(bytes: Buffer): Recognised {
  const first = bytes.toString("latin1", 0, maxLineBytes);
  if (first.startsWith(http2Preface)) return "http2";
  if (http2Preface.startsWith(first)) return "more";
  // One empty line may come before (RFC 9112 §2.2).
  const text = first.replace(/^\r\n/, "");
  if (text === "" || text === "\r") return "more";
  const space = text.indexOf(" ");
  if (space < 0) return methods.some((method) => method.startsWith(text)) ? "more" : "other";
  if (!methods.includes(text.slice(0, space))) return "other";
  const lineFeed = text.indexOf("\n");
  if (lineFeed < 0) return text.length < maxLineBytes ? "more" : "other";
  return /^[^ ]+ [^ ]+ HTTP\/1\.[01]\r?\n$/.test(text.slice(0, lineFeed + 1)) ? "http1" : "other";
}

/** Whether a server's first bytes greet a caller of HTTP/2 (RFC 9113 §3.4), for whom most servers do not wait. */
export function greetsHttp2(bytes: Buffer): boolean {
  if (bytes.length < 9) return false;
  const [length, type, flags, streamId] = [bytes.readUIntBE(0, 3), bytes[3], bytes[4], bytes.readUInt32BE(5)];
  return type === 4 && flags === 0 && streamId === 0 && length % 6 === 0; // SETTINGS
}
