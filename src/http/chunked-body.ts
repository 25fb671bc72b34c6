// What a chunked body holds (RFC 9112 §7.1), for who has to look into it.

/** `body` is whole and well-formed: a BodyScanner has found its end. */
export function decodeChunked(body: Buffer): Buffer {
  const pieces: Buffer[] = [];
  for (let at = 0; at < body.length;) {
    const line = body.indexOf("\r\n", at);
    const size = Number.parseInt(body.toString("latin1", at, line), 16); // an extension ends the number
    if (!(size > 0)) break;
    pieces.push(body.subarray(line + 2, line + 2 + size));
    at = line + 2 + size + 2;
  }
  return Buffer.concat(pieces);
}
