// The vectors of RFC 7541 Appendix C, and what node:http2 sends.
import { connect, createServer } from "node:http2";
import { createConnection, createServer as createTcpServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { once } from "node:events";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Unclear } from "./head.ts";
import { HpackDecoder } from "./hpack.ts";
import { decodeHuffman } from "./hpack-huffman.ts";

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(" ", ""), "hex");
const lines = (decoder: HpackDecoder, block: string): string[] => {
  const fields = decoder.decode(hex(block));
  if (fields instanceof Unclear) throw new Error(fields.reason);
  return fields.map(({ name, value }) => `${name}=${value}`);
};

describe("a decoder of header blocks", () => {
  test("reads the requests of Appendix C.4, which share a table", () => {
    const decoder = new HpackDecoder();
    const first = [":method=GET", ":scheme=http", ":path=/", ":authority=www.example.com"];
    expect(lines(decoder, "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff")).toEqual(first);
    expect(lines(decoder, "8286 84be 5886 a8eb 1064 9cbf")).toEqual([...first, "cache-control=no-cache"]);
    expect(lines(decoder, "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf")).toEqual([
      ":method=GET",
      ":scheme=https",
      ":path=/index.html",
      ":authority=www.example.com",
      "custom-key=custom-value",
    ]);
  });

  test("reads plain literals that are and are not kept (C.2)", () => {
    const decoder = new HpackDecoder();
    expect(lines(decoder, "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572")).toEqual([
      "custom-key=custom-header",
    ]);
    expect(lines(decoder, "040c 2f73 616d 706c 652f 7061 7468")).toEqual([":path=/sample/path"]);
    expect(lines(decoder, "be")).toEqual(["custom-key=custom-header"]);
  });

  test("forgets the oldest entries when a table is full or made smaller", () => {
    const decoder = new HpackDecoder();
    const add = (name: string): void => void decoder.decode(Buffer.from(`\x40\x01${name}\x01v`, "latin1"));
    add("a");
    add("b");
    expect(lines(decoder, "be bf")).toEqual(["b=v", "a=v"]);
    expect(lines(decoder, "3f 03 be")).toEqual(["b=v"]); // room for one entry of 34 bytes
    expect(decoder.decode(hex("bf"))).toBeInstanceOf(Unclear);
  });

  test("takes no size of table that was not allowed", () => {
    const decoder = new HpackDecoder();
    expect(decoder.decode(hex("3fe2 1f"))).toBeInstanceOf(Unclear); // 4097
    decoder.allow(8192);
    expect(new HpackDecoder().decode(hex("3fe1 1f"))).toEqual([]); // 4096
    expect(decoder.decode(hex("3fe2 1f"))).toEqual([]);
  });

  test("a small block that means a large text ends at a limit", () => {
    const decoder = new HpackDecoder();
    const large = Buffer.concat([Buffer.from([0x40, 1, 97, 0x7f, 0xa1, 0x1e]), Buffer.alloc(4000, 98)]);
    expect(decoder.decode(large)).toHaveLength(1);
    expect(decoder.decode(Buffer.alloc(1000, 0xbe))).toBeInstanceOf(Unclear);
  });

  test("random bytes end in fields or Unclear, and never throw", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 60 }), (block) => {
        const result = new HpackDecoder().decode(Buffer.from(block));
        return Array.isArray(result) || result instanceof Unclear;
      }),
      { numRuns: 2000 },
    );
  });
});

test("a string that ends in something else than the beginning of EOS is none", () => {
  expect(decodeHuffman(hex("f1e3 c2e5 f23a 6ba0 ab90 f4ff"))?.toString()).toBe("www.example.com");
  expect(decodeHuffman(hex("f1e3 c2e5 f23a 6ba0 ab90 f400"))).toBeUndefined();
  expect(decodeHuffman(hex("ffff ffff"))).toBeUndefined();
});

test("what node:http2 sends is read as it was meant, every printable byte of a value included", async () => {
  const sent: Record<string, string> = { "x-low": "", "x-high": "" };
  for (let code = 33; code < 127; code += 1) sent["x-low"] += String.fromCharCode(code);
  for (let code = 160; code < 256; code += 1) sent["x-high"] += String.fromCharCode(code);
  const received = await headerBlocksOf(sent);
  const decoder = new HpackDecoder();
  for (const block of received) {
    const fields = decoder.decode(block);
    if (fields instanceof Unclear) throw new Error(fields.reason);
    const read = Object.fromEntries(fields.map(({ name, value }) => [name, value]));
    expect(read).toMatchObject({ ...sent, ":method": "GET", ":path": "/some/path" });
  }
  expect(received).toHaveLength(2);
});

/** Two requests with these headers; the payloads of their HEADERS frames. */
async function headerBlocksOf(headers: Record<string, string>): Promise<Buffer[]> {
  const blocks: Buffer[] = [];
  const server = createServer((_request, response) => response.end());
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const proxy = createTcpServer((caller: Socket) => {
    const far = createConnection((server.address() as AddressInfo).port, "127.0.0.1");
    let held = Buffer.alloc(0);
    let isPrefaceRead = false;
    caller.on("data", (chunk: Buffer) => {
      held = Buffer.concat([held, chunk]);
      if (!isPrefaceRead) held = held.subarray(24);
      isPrefaceRead = true;
      while (held.length >= 9 && held.length >= 9 + held.readUIntBE(0, 3)) {
        const length = held.readUIntBE(0, 3);
        if (held[3] === 1) blocks.push(Buffer.from(held.subarray(9, 9 + length)));
        held = held.subarray(9 + length);
      }
    });
    caller.pipe(far).pipe(caller);
    for (const end of [caller, far]) end.on("error", () => undefined);
  });
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  const client = connect(`http://127.0.0.1:${(proxy.address() as AddressInfo).port}`);
  for (let round = 0; round < 2; round += 1) {
    const request = client.request({ ":path": "/some/path", ...headers });
    request.resume();
    await once(request, "close");
  }
  client.close();
  await once(client, "close");
  await Promise.all([new Promise((done) => proxy.close(done)), new Promise((done) => server.close(done))]);
  return blocks;
}
