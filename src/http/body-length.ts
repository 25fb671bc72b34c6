// How the length of a message's body is told (RFC 9112 §6.3), and what makes it untellable (§6.1, §11.2): both
// Transfer-Encoding and Content-Length, either more than once, a coding that is not `chunked` alone, a length that is
// not plain digits.
import { Unclear, valuesOf } from "./head.ts";
import type { RequestHead, ResponseHead } from "./head.ts";

/** A number of bytes, or: chunked, until the connection closes, no message any more but a tunnel (§6.3 items 1 and 2). */
export type BodyLength = number | "chunked" | "until-close" | "tunnel";

export function requestBodyLength(head: RequestHead): number | "chunked" | Unclear {
  const stated = statedLength(head);
  // Nobody agrees on what the bytes of a CONNECT request with content are (RFC 9110 §9.3.6).
  if (head.method === "CONNECT" && stated !== undefined) return new Unclear("CONNECT with content");
  return stated ?? 0;
}

export function responseBodyLength(head: ResponseHead, requestMethod: string): BodyLength | Unclear {
  const { status } = head;
  if (status === 101 || (requestMethod === "CONNECT" && status >= 200 && status < 300)) return "tunnel";
  if (requestMethod === "HEAD" || status < 200 || status === 204 || status === 304) return 0;
  return statedLength(head) ?? "until-close";
}

function statedLength(head: RequestHead | ResponseHead): number | "chunked" | Unclear | undefined {
  const codings = valuesOf(head, "transfer-encoding");
  const lengths = valuesOf(head, "content-length");
  if (codings.length > 0) {
    if (lengths.length > 0) return new Unclear("both Transfer-Encoding and Content-Length");
    if (head.minor === 0) return new Unclear("Transfer-Encoding in a message of HTTP/1.0");
    if (codings.length > 1 || codings[0]?.toLowerCase() !== "chunked") {
      return new Unclear("a Transfer-Encoding that is not just chunked");
    }
    return "chunked";
  }
  if (lengths.length === 0) return undefined;
  const [text = ""] = lengths;
  // 15 digits are a petabyte, and still a safe integer.
  if (lengths.length > 1 || !/^[0-9]{1,15}$/.test(text)) return new Unclear("a Content-Length that is not one number");
  return Number(text);
}
