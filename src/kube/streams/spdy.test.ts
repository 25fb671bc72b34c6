import { constants, inflateSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { encodeDataHeader, encodeOpenings, SpdyReader } from "./spdy.ts";

function read(chunks: readonly Buffer[]): string[] {
  const seen: string[] = [];
  const reader = new SpdyReader({
    onReply: (id) => seen.push(`reply ${id}`),
    onData: (id, piece) => {
      const last = seen.at(-1);
      if (last?.startsWith(`data ${id} `) === true) seen[seen.length - 1] = last + piece.toString();
      else seen.push(`data ${id} ${piece.toString()}`);
    },
    onEnd: (id) => seen.push(`end ${id}`),
    onReset: (id) => seen.push(`reset ${id}`),
    onPing: (frame) => seen.push(`ping ${frame.toString("hex")}`),
  });
  for (const chunk of chunks) reader.push(chunk);
  return seen;
}

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(" ", ""), "hex");
function data(id: number, text: string, flags = 0): Buffer {
  const frame = Buffer.alloc(8 + text.length);
  encodeDataHeader(frame, id, text.length);
  frame[4] = flags;
  frame.write(text, 8);
  return frame;
}

const said = Buffer.concat([
  hex("8003 0002 00 000004 00000003"),
  data(3, "hello"),
  hex("8003 0006 00 000004 00000002"),
  hex("8003 0004 00 00000c 00000001 00000004 00000064"), // SETTINGS
  data(1, ""),
  data(3, "bye", 1),
  hex("8003 0003 00 000008 00000001 00000005"),
]);
const heard = ["reply 3", "data 3 hello", "ping 800300060000000400000002", "data 3 bye", "end 3", "reset 1"];

describe("SpdyReader", () => {
  test("reads frames, whatever the chunks", () => {
    expect(read([said])).toEqual(heard);
    for (let at = 0; at <= said.length; at += 1) expect(read([said.subarray(0, at), said.subarray(at)])).toEqual(heard);
    expect(read([...said].map((byte) => Buffer.of(byte)))).toEqual(heard);
  });
  test("throws at another version and at a control frame that is too long", () => {
    expect(() => read([hex("8002 0002 00 000004 00000003")])).toThrow("not SPDY/3.1");
    expect(() => read([hex("8003 0004 00 ffffff 00000003")])).toThrow("not SPDY/3.1");
    expect(() => read([hex("8003 0002 00 000001 00")])).toThrow("names no stream");
  });
});

describe("encodeOpenings()", () => {
  test("sends headers that any inflater reads, as one stream of a connection", () => {
    const bytes = encodeOpenings([
      { id: 1, headers: { streamType: "error" } },
      { id: 3, headers: { port: "80" } },
    ]);
    const blocks: Buffer[] = [];
    const ids: number[] = [];
    for (let rest = bytes; rest.length > 0;) {
      expect(rest.readUInt32BE(0)).toBe(0x8003_0001);
      const end = 8 + rest.readUIntBE(5, 3);
      ids.push(rest.readUInt32BE(8));
      blocks.push(rest.subarray(18, end));
      rest = rest.subarray(end);
    }
    const headers = inflateSync(Buffer.concat(blocks), { finishFlush: constants.Z_SYNC_FLUSH });
    expect(ids).toEqual([1, 3]);
    expect(headers.toString("latin1")).toBe(
      "\0\0\0\u0001\0\0\0\u000astreamtype\0\0\0\u0005error\0\0\0\u0001\0\0\0\u0004port\0\0\0\u000280",
    );
  });
});
