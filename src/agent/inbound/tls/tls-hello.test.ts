import { connect as connectTls } from "node:tls";
import type { ConnectionOptions } from "node:tls";
import { Duplex } from "node:stream";
import { describe, expect, test } from "vitest";
import { randomInputs } from "#base/random-inputs.fake.ts";
import { maxHelloBytes, parseClientHello } from "./tls-hello.ts";

/** What Node itself says first. */
async function nodeHello(options: ConnectionOptions): Promise<Buffer> {
  const { promise, resolve } = Promise.withResolvers<Buffer>();
  const wire = new Duplex({
    read: () => undefined,
    write: (chunk: Buffer, _encoding, done) => {
      resolve(chunk);
      done();
    },
  });
  const socket = connectTls({ socket: wire, ...options });
  socket.on("error", () => undefined);
  const said = await promise;
  socket.destroy();
  return said;
}

/** The same message in records, the first of so many bytes. */
function cutRecords(hello: Buffer, first: number): Buffer {
  const message = hello.subarray(5);
  const records: Buffer[] = [];
  for (let at = 0, end = first; at < message.length; at = end, end += 100) {
    const fragment = message.subarray(at, end);
    const header = Buffer.from([22, 3, 1, fragment.length >> 8, fragment.length & 255]);
    records.push(header, fragment);
  }
  return Buffer.concat(records);
}

const usual = { servername: "shop.example", ALPNProtocols: ["h2", "http/1.1"] };
const read = { serverName: "shop.example", protocols: ["h2", "http/1.1"], maxVersion: 0x0304 };

describe("a ClientHello", () => {
  test("tells the name, the protocols and the version", async () => {
    expect(parseClientHello(await nodeHello(usual))).toEqual(read);
    expect(parseClientHello(await nodeHello({ maxVersion: "TLSv1.2" }))).toEqual({
      serverName: undefined,
      protocols: [],
      maxVersion: 0x0303,
    });
  });

  test("is more to come at every byte before its last, and the same in any pieces", async () => {
    const hello = await nodeHello(usual);
    for (let end = 0; end < hello.length; end += 1) expect(parseClientHello(hello.subarray(0, end))).toBe("more");
    for (const first of [1, 2, 3, 4, 5, 40, 333]) {
      const records = cutRecords(hello, first);
      expect(parseClientHello(records)).toEqual(read);
      expect(parseClientHello(records.subarray(0, -1))).toBe("more");
    }
  });

  test("with early data behind it is still that", async () => {
    const early = Buffer.from([23, 3, 3, 0, 1, 0]);
    expect(parseClientHello(Buffer.concat([await nodeHello(usual), early]))).toEqual(read);
  });

  test("is never seen in what is something else", () => {
    const others = [
      "GET / HTTP/1.1\r\n",
      "PRI * HTTP/2.0",
      "SSH-2.0-x",
      "\x16\x04\x01",
      "\x15\x03\x01",
      "\x16\x03\x05",
    ];
    for (const text of others) expect(parseClientHello(Buffer.from(text, "latin1"))).toBe("other");
    expect(parseClientHello(Buffer.from([22, 3, 1, 0, 4, 2, 0, 0, 0]))).toBe("other"); // a ServerHello
    expect(parseClientHello(Buffer.from([22, 3, 1, 0, 4, 1, 1, 0, 0]))).toBe("other"); // too long
    expect(parseClientHello(Buffer.from([22, 3, 1, 0, 4, 1, 0, 0, 0]))).toBe("other"); // too short
  });

  test("that never ends is not waited for", () => {
    const record = Buffer.concat([Buffer.from([22, 3, 1, 0, 1]), Buffer.from([1])]);
    expect(parseClientHello(Buffer.concat([record, Buffer.alloc(maxHelloBytes)]))).toBe("other");
    const endless = Buffer.concat(Array.from({ length: maxHelloBytes / 6 + 1 }, () => record));
    expect(parseClientHello(endless)).toBe("other");
  });
});

test("random changes of a ClientHello, and random bytes, never make it throw", async () => {
  const hello = await nodeHello(usual);
  let state = 0x2545f491;
  const random = (below: number): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
  const inputs = randomInputs();
  for (let index = 0; index < inputs; index += 1) {
    const bytes = Buffer.from(index % 4 === 0 ? hello.subarray(0, random(hello.length)) : hello);
    for (let changes = random(6); changes >= 0 && bytes.length > 0; changes -= 1)
      bytes[random(bytes.length)] = random(256);
    const parsed = parseClientHello(bytes);
    if (typeof parsed === "string") continue;
    expect(parsed.protocols.every((name) => name.length > 0 && name.length < 256)).toBe(true);
    expect(parsed.serverName).not.toBe("");
  }
});
