// Where messages end, told by real and by invented bytes. What matters: how the bytes were cut makes no difference, what
// two readers could take in two ways is refused (RFC 9112 §11), and nothing throws, hangs or grows.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { maxHeadBytes } from "./head.ts";
import { cutMessages } from "./messages.fake.ts";
import type { Cut } from "./messages.fake.ts";

/** As `base/random-inputs.fake.ts` has it, which is not for this folder. */
const inputs = Number(process.env["FUZZ_INPUTS"] ?? 20_000);

const bytesOf = (text: string): Buffer => Buffer.from(text, "latin1");

/** Cuts at the given places, taken modulo the length. */
function cutAt(bytes: Buffer, places: readonly number[]): Buffer[] {
  const sorted = [...new Set(places.map((place) => place % (bytes.length + 1)))].toSorted((a, b) => a - b);
  return [0, ...sorted].map((start, index) => bytes.subarray(start, sorted[index] ?? bytes.length));
}
function whole(cut: Cut): string {
  return cut.messages.map((message) => message.head + message.body).join("") + cut.rest;
}

const token = fc.stringMatching(/^[A-Za-z0-9-]{1,12}$/);
const value = fc.stringMatching(/^[!-~]([ -~]{0,20}[!-~])?$/);
const fields = fc.array(fc.tuple(token, value), { maxLength: 5 }).map((list) =>
  list
    .filter(([name]) => !/^(content-length|transfer-encoding)$/i.test(name))
    .map(([name, text]) => `${name}: ${text}\r\n`)
    .join(""),
);
const content = fc.string({ unit: "binary-ascii", maxLength: 200 });
const chunkedBody = fc
  .tuple(fc.array(fc.string({ minLength: 1, maxLength: 40, unit: "binary-ascii" }), { maxLength: 5 }), fields)
  .map(([pieces, trailers]) => {
    const chunks = pieces.map((piece, index) => {
      const size = index % 2 === 0 ? piece.length.toString(16) : `0${piece.length.toString(16).toUpperCase()};a="b"`;
      return `${size}\r\n${piece}\r\n`;
    });
    return `${chunks.join("")}0\r\n${trailers}\r\n`;
  });
const request = fc
  .tuple(
    fc.constantFrom("GET", "POST", "PUT", "BREW"),
    fields,
    fc.oneof(
      fc.constant(["", ""] as const),
      content.map((body) => [`Content-Length: ${body.length}\r\n`, body] as const),
      chunkedBody.map((body) => ["Transfer-Encoding: Chunked\r\n", body] as const),
    ),
  )
  .map(([method, some, [length, body]]) => ({ head: `${method} /a?b HTTP/1.1\r\n${some}${length}\r\n`, body }));

describe("messages", () => {
  test("are found whole, whatever the pieces they come in", () => {
    const requests = fc.array(request, { minLength: 1, maxLength: 4 });
    const places = fc.array(fc.nat(4000), { maxLength: 30 });
    fc.assert(
      fc.property(requests, places, (list, cuts) => {
        const bytes = bytesOf(list.map(({ head, body }) => head + body).join(""));
        const cut = cutMessages(cutAt(bytes, cuts));
        expect(cut.unclear).toBe(undefined);
        expect(cut.messages).toEqual(list.map((item) => ({ ...item, complete: true })));
        expect(cut.rest).toBe("");
      }),
      { numRuns: Math.min(inputs, 2000) },
    );
  });

  test("of any kind are told alike byte by byte and at once, and not a byte is lost", () => {
    const piece = fc.constantFrom(
      ..."GET / HTTP/1.1\r\n|POST /x HTTP/1.0\r\n|HTTP/1.1 200 OK\r\n|HTTP/1.1 100\r\n|\r\n|\n|\r|Host: a\r\n".split(
        "|",
      ),
      ..."Content-Length: 3\r\n|Content-Length: 03\r\n|Transfer-Encoding: chunked\r\n|abc|3\r\nabc\r\n|0\r\n\r\n".split(
        "|",
      ),
      ..." folded\r\n|A : b\r\n|3;x\r\n|ffffffffffffff\r\n|HTTP/1.1 204 \r\n|HTTP/1.1 101 S\r\n|\0|é".split("|"),
    );
    const noise = fc.oneof(piece, fc.string({ unit: "binary-ascii", maxLength: 5 }));
    const bytes = fc.array(noise, { maxLength: 25 }).map((parts) => bytesOf(parts.join("")));
    const methods = fc.option(fc.array(fc.constantFrom("GET", "HEAD", "CONNECT")), { nil: undefined });
    fc.assert(
      fc.property(bytes, methods, (input, answered) => {
        const atOnce = cutMessages([input], answered);
        const singly = cutMessages(
          [...input].map((byte) => Buffer.from([byte])),
          answered,
        );
        expect(whole(atOnce)).toBe(input.toString("latin1"));
        expect(whole(singly)).toBe(input.toString("latin1"));
        expect(singly.messages).toEqual(atOnce.messages);
        if (atOnce.unclear === undefined) expect(singly.unclear).toBe(undefined);
      }),
      { numRuns: inputs },
    );
  }, 60_000);

  test("hold at most one head, however it comes", () => {
    const endless = Array.from({ length: 5000 }, () => bytesOf("GET / HTTP/1.1\r\nA: aaaaaaaaaaaa"));
    const cut = cutMessages(endless);
    expect(cut.mostHeldBytes).toBeLessThanOrEqual(maxHeadBytes);
    expect(cut.messages).toEqual([]);
    const long = `GET / HTTP/1.1\r\nA: ${"a".repeat(maxHeadBytes)}\r\n\r\n`;
    expect(cutMessages([bytesOf(long)]).unclear).toContain("longer than");
    expect(cutMessages([...bytesOf(long)].map((byte) => Buffer.from([byte]))).unclear).toContain("longer than");
  });
});

describe("a request is unclear", () => {
  test.each([
    ["with two lengths", "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n"],
    ["with the same length twice", "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n"],
    ["with a list of lengths", "POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\n"],
    ["with a signed length", "POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n"],
    ["with a length in hexadecimal", "POST / HTTP/1.1\r\nContent-Length: 0x3\r\n\r\n"],
    ["with an empty length", "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n"],
    ["with a length beyond counting", `POST / HTTP/1.1\r\nContent-Length: ${"9".repeat(20)}\r\n\r\n`],
    ["with length and coding", "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"],
    ["with an unknown coding", "POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n"],
    ["with the coding twice", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"],
    ["with a coding in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"],
    ["with a space before the colon", "POST / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n"],
    ["with a folded line", "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n"],
    ["with a bare line feed", "GET / HTTP/1.1\r\nA: b\nContent-Length: 3\r\n\r\n"],
    ["with nothing but bare line feeds", "GET / HTTP/1.1\nHost: a\n\n"],
    ["with a bare carriage return", "GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n"],
    ["with a zero byte", "GET / HTTP/1.1\r\nA: b\0\r\n\r\n"],
    ["with a space in the target", "GET /a b HTTP/1.1\r\n\r\n"],
    ["with two spaces", "GET  / HTTP/1.1\r\n\r\n"],
    ["of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    ["of HTTP/0.9", "GET /\r\n\r\n"],
    ["that connects with content", "CONNECT a:1 HTTP/1.1\r\nContent-Length: 3\r\n\r\n"],
    ["after two empty lines", "\r\n\r\nGET / HTTP/1.1\r\n\r\n"],
  ])("%s", (_, text) => {
    const cut = cutMessages([bytesOf(text)]);
    expect(cut.messages).toEqual([]);
    expect(cut.unclear).toBeTypeOf("string");
    expect(cut.rest).toBe(text);
  });

  test.each([
    ["a size that is no number", "g\r\n"],
    ["a signed size", "+1\r\n"],
    ["an empty size", "\r\n"],
    ["a size with too many digits", "00000000000001\r\n"],
    ["a space after the size", "1 \r\na\r\n"],
    ["a bare line feed after the size", "1\na\r\n"],
    ["more bytes than the size says", "1\r\nab\r\n"],
    ["a line feed in an extension", "1;a\nb\r\n"],
    ["an endless extension", `1;${"a".repeat(5000)}`],
    ["a folded trailer", "0\r\n a: b\r\n\r\n"],
    ["a trailer that ends bare", "0\r\na: b\n\r\n"],
    ["endless trailers", `0\r\n${"a: b\r\n".repeat(20_000)}`],
  ])("from there on with %s", (_, body) => {
    const head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    const cut = cutMessages([bytesOf(`${head}3\r\nabc\r\n${body}`)]);
    expect(cut.unclear).toBeTypeOf("string");
    expect(cut.messages).toMatchObject([{ head, complete: false }]);
    expect(whole(cut)).toBe(`${head}3\r\nabc\r\n${body}`);
  });

  test("but not for one empty line before it (RFC 9112 §2.2)", () => {
    expect(cutMessages([bytesOf("\r\nGET / HTTP/1.1\r\n\r\n")]).messages).toHaveLength(1);
  });
});

describe("an answer's body (RFC 9112 §6.3)", () => {
  const ok = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
  test.each([
    ["is none for HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", ""],
    ["is none for HEAD, chunked", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ""],
    ["is none for 204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", ""],
    ["is none for 304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", ""],
    ["is as long as it says", "GET", "HTTP/1.1 404 Gone away\r\nContent-Length: 5\r\n\r\n", "abcde"],
    ["is chunked", "GET", "HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\na\r\n0\r\nT: x\r\n\r\n"],
  ])("%s", (_, method, head, body) => {
    const cut = cutMessages([bytesOf(head + body + ok + "abc")], [method, "GET"]);
    expect(cut.messages).toEqual([
      { head, body, complete: true },
      { head: ok, body: "abc", complete: true },
    ]);
  });

  test("comes after interim answers, which have none", () => {
    const interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n";
    const cut = cutMessages([bytesOf(`${interim}${ok}abc`)], ["HEAD"]);
    expect(cut.messages.map(({ head }) => head.slice(9, 12))).toEqual(["100", "103", "200"]);
  });

  test("lasts until the connection closes where nothing else is said", () => {
    const cut = cutMessages([bytesOf("HTTP/1.0 200 OK\r\n\r\n"), bytesOf("a"), bytesOf(ok)], ["GET"]);
    expect(cut.messages).toEqual([{ head: "HTTP/1.0 200 OK\r\n\r\n", body: `a${ok}`, complete: false }]);
  });

  test.each([
    ["101", "GET", "HTTP/1.1 101 Switching Protocols\r\n\r\n"],
    ["2xx of CONNECT", "CONNECT", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"],
  ])("is a tunnel after %s", (_, method, head) => {
    expect(cutMessages([bytesOf(head)], [method]).unclear).toBe("a tunnel");
  });
});
