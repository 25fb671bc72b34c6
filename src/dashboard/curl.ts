// A request as a command line of curl, for a POSIX shell.
import type { ExchangeView } from "#wire/inspector-api.ts";

/** Set by curl itself, or of one connection. */
const leftOut = new Set(["host", "content-length", "connection", "transfer-encoding", "accept-encoding"]);

export function toCurl(view: ExchangeView): string {
  const words = ["curl", "-i", "--globoff"];
  if (view.version === "HTTP/2") words.push("--http2-prior-knowledge");
  if (view.method !== "GET" || view.requestBody.bytes > 0) words.push("-X", view.method);
  for (const { name, value } of view.requestHeaders) {
    if (!leftOut.has(name)) words.push("-H", `${name}: ${value}`);
  }
  if (view.requestBody.text !== undefined && view.requestBody.bytes > 0)
    words.push("--data-raw", view.requestBody.text); // not `--data-binary`, to which `@` names a file of this machine
  words.push(`http://${view.host}${view.target}`);
  return words.map(quoted).join(" ");
}

function quoted(word: string): string {
  return /^[-\w./:=@%+,]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`;
}
