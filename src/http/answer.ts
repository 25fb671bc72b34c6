// An answer of our own, for a request that nobody else can answer: a status and one line of text that says why.
import type { RequestHead } from "./head.ts";

export interface OwnAnswer {
  readonly status: keyof typeof phrases;
  /** One sentence for whoever sees the answer. */
  readonly text: string;
  /** Nothing can follow on this connection. */
  readonly close: boolean;
}

const phrases = { 200: "OK", 400: "Bad Request", 502: "Bad Gateway" } as const;

export function encodeAnswer(request: Pick<RequestHead, "method" | "minor">, answer: OwnAnswer): Buffer {
  const body = Buffer.from(`${answer.text}\n`);
  const head = [
    `HTTP/1.1 ${answer.status} ${phrases[answer.status]}`,
    "Content-Type: text/plain; charset=utf-8",
    `Content-Length: ${body.length}`,
    "Cache-Control: no-store",
    ...(answer.close ? ["Connection: close"] : request.minor === 0 ? ["Connection: keep-alive"] : []),
  ];
  const bytes = Buffer.from(`${head.join("\r\n")}\r\n\r\n`, "latin1");
  return request.method === "HEAD" ? bytes : Buffer.concat([bytes, body]);
}
