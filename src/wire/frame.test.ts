import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ProtocolError } from "#base/error.ts";
import { randomInputs } from "#base/random-inputs.fake.ts";
import { decodeOpen, decodeReason, encodeOpen, encodeReason } from "./frame-body.ts";
import { FrameDecoder, encodeFrame, frameHeaderBytes, frameTypes, isSequenced } from "./frame.ts";
import type { Frame, FrameType } from "./frame.ts";
import { maxDatagramBytes, maxFramePayloadBytes, maxOpenBytes } from "./limits.ts";
import { resetCodes } from "./open.ts";
import type { OpenRequest } from "./open.ts";

const lengths: Readonly<Record<FrameType, readonly [number, number]>> = {
  [frameTypes.open]: [2, maxOpenBytes],
  [frameTypes.openOk]: [0, maxOpenBytes],
  [frameTypes.reject]: [2, maxOpenBytes],
  [frameTypes.data]: [1, maxFramePayloadBytes],
  [frameTypes.end]: [0, 0],
  [frameTypes.reset]: [2, maxOpenBytes],
  [frameTypes.credit]: [4, 4],
  [frameTypes.datagram]: [0, maxDatagramBytes],
  [frameTypes.ack]: [4, 4],
  [frameTypes.ping]: [8, 8],
  [frameTypes.pong]: [8, 8],
  [frameTypes.goaway]: [2, maxOpenBytes],
};
const linkTypes: readonly FrameType[] = [frameTypes.ack, frameTypes.ping, frameTypes.pong, frameTypes.goaway];
const allTypes = Object.values(frameTypes);
const uint32 = fc.integer({ min: 0, max: 0xffff_ffff });

/** Any valid frame with a short payload. */
const anyFrame: fc.Arbitrary<Frame> = fc.constantFrom(...allTypes).chain((type) => {
  const [min, max] = lengths[type];
  return fc.record({
    type: fc.constant(type),
    streamId: linkTypes.includes(type) ? fc.constant(0) : fc.integer({ min: 1, max: 0xffff_ffff }),
    seq: isSequenced(type) ? uint32 : fc.constant(0),
    payload: fc.uint8Array({ minLength: min, maxLength: Math.min(max, min + 40) }),
  });
});

function decodeAll(chunks: readonly Uint8Array[]): Frame[] {
  const decoder = new FrameDecoder();
  const frames: Frame[] = [];
  for (const chunk of chunks) decoder.push(chunk, (frame) => frames.push(frame));
  expect(decoder.bufferedBytes).toBe(0);
  return frames.map((frame) => ({ ...frame, payload: Uint8Array.from(frame.payload) }));
}

function header(type: number, length: number, streamId = 1, seq = 1): Uint8Array {
  const bytes = new Uint8Array(frameHeaderBytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, length);
  view.setUint8(4, type);
  view.setUint32(8, streamId);
  view.setUint32(12, seq);
  return bytes;
}

const manyRuns = { numRuns: randomInputs(), interruptAfterTimeLimit: 3000, markInterruptAsFailure: false };

function errorOf(action: () => void): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  return undefined;
}

const refuse = (bytes: Uint8Array): unknown => errorOf(() => new FrameDecoder().push(bytes, () => undefined));

describe("FrameDecoder", () => {
  test("gives back what encodeFrame() wrote, whatever the split", () => {
    const property = fc.property(
      fc.array(anyFrame, { minLength: 1, maxLength: 8 }),
      fc.array(fc.nat(600), { maxLength: 12 }),
      (frames, cuts) => {
        const bytes = Buffer.concat(frames.map(encodeFrame));
        const chunks: Uint8Array[] = [];
        let start = 0;
        for (const end of [...cuts.filter((cut) => cut < bytes.length).toSorted((a, b) => a - b), bytes.length]) {
          chunks.push(bytes.subarray(start, end));
          start = end;
        }
        expect(decodeAll(chunks)).toEqual(frames);
      },
    );
    fc.assert(property, { numRuns: randomInputs(2000), interruptAfterTimeLimit: 3000, markInterruptAsFailure: false });
  });

  test("takes one frame of each type at every split point", () => {
    for (const type of allTypes) {
      const streamId = linkTypes.includes(type) ? 0 : 7;
      const payload = new Uint8Array(Math.max(lengths[type][0], Math.min(lengths[type][1], 9))).fill(type);
      const frame = { type, streamId, seq: isSequenced(type) ? 0xffff_ffff : 0, payload };
      const bytes = encodeFrame(frame);
      for (let cut = 0; cut <= bytes.length; cut += 1) {
        expect(decodeAll([bytes.subarray(0, cut), bytes.subarray(cut)])).toEqual([frame]);
      }
      expect(decodeAll([...bytes].map((byte) => Uint8Array.of(byte)))).toEqual([frame]);
    }
  });

  test("takes the longest payload of each type and refuses one byte more from the header alone", () => {
    for (const type of allTypes) {
      const [, max] = lengths[type];
      const streamId = linkTypes.includes(type) ? 0 : 1;
      const seq = isSequenced(type) ? 1 : 0;
      expect(decodeAll([encodeFrame({ type, streamId, seq, payload: new Uint8Array(max) })])).toHaveLength(1);
      expect(refuse(header(type, max + 1, streamId, seq))).toBeInstanceOf(ProtocolError);
      expect(refuse(header(type, 0xffff_ffff, streamId, seq))).toBeInstanceOf(ProtocolError);
    }
  });

  test.each([
    ["a CREDIT of 3 bytes", header(frameTypes.credit, 3)],
    ["an empty DATA", header(frameTypes.data, 0)],
    ["a RESET without a code", header(frameTypes.reset, 1)],
    ["an unknown type", header(13, 0)],
    ["type 0", header(0, 0)],
    ["DATA of no stream", header(frameTypes.data, 1, 0)],
    ["PING of a stream", header(frameTypes.ping, 8, 3, 0)],
    ["a numbered ACK", header(frameTypes.ack, 4, 0, 9)],
    ["flags", header(frameTypes.end, 0).with(5, 1)],
    ["reserved bits", header(frameTypes.end, 0).with(7, 1)],
  ])("refuses %s", (_name, bytes) => {
    expect(refuse(bytes)).toBeInstanceOf(ProtocolError);
  });

  test("takes nothing more after a malformed frame", () => {
    const decoder = new FrameDecoder();
    const end = encodeFrame({ type: frameTypes.end, streamId: 1, seq: 1, payload: new Uint8Array(0) });
    expect(() => decoder.push(header(99, 0), () => undefined)).toThrow(ProtocolError);
    expect(() => decoder.push(end, () => expect.unreachable())).toThrow(ProtocolError);
  });

  test("throws nothing but ProtocolError at random bytes, and holds no more than they are", () => {
    const property = fc.property(fc.array(fc.uint8Array({ maxLength: 80 }), { maxLength: 4 }), (chunks) => {
      const decoder = new FrameDecoder();
      const pushed = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
      const error = errorOf(() => chunks.forEach((chunk) => decoder.push(chunk, () => undefined)));
      return decoder.bufferedBytes <= pushed && (error === undefined || error instanceof ProtocolError);
    });
    expect(fc.check(property, manyRuns).failed).toBe(false);
  });

  test("throws nothing but ProtocolError at frames with one byte changed", () => {
    const property = fc.property(anyFrame, fc.nat(60), fc.integer({ min: 0, max: 255 }), (frame, at, value) => {
      const bytes = encodeFrame(frame);
      bytes[at % bytes.length] = value;
      const error = refuse(bytes);
      return error === undefined || error instanceof ProtocolError;
    });
    expect(fc.check(property, manyRuns).failed).toBe(false);
  });

  // A slow reader of small frames must not hold the whole chunks they came in.
  test("copies small payloads out of large chunks and passes large ones on as they are", () => {
    const small = encodeFrame({ type: frameTypes.data, streamId: 1, seq: 1, payload: new Uint8Array(10) });
    const large = encodeFrame({ type: frameTypes.data, streamId: 1, seq: 2, payload: new Uint8Array(60_000) });
    const chunk = Buffer.concat([small, large]);
    const shared: boolean[] = [];
    new FrameDecoder().push(chunk, (frame) => shared.push(frame.payload.buffer === chunk.buffer));
    expect(shared).toEqual([false, true]);
  });
});

describe("bodies", () => {
  test("a reason survives, also when its text is too long", () => {
    const property = fc.property(
      fc.constantFrom(...Object.entries(resetCodes)),
      fc.string({ unit: "grapheme", maxLength: 3000 }),
      ([reason, code], message) => {
        const body = encodeReason(code, message);
        expect(body.length).toBeLessThanOrEqual(maxOpenBytes);
        const decoded = decodeReason(body);
        expect(decoded.reason).toBe(reason);
        expect(message.startsWith(decoded.message)).toBe(true);
      },
    );
    fc.assert(property, { numRuns: 300 });
  });

  test("a reason of a later version reads as internal, and GOAWAY's 0 as an orderly end", () => {
    expect(decodeReason(encodeReason(999, "new"))).toEqual({ reason: "internal", message: "new" });
    expect(decodeReason(encodeReason(0, ""))).toEqual({ reason: undefined, message: "" });
  });

  test("an OPEN survives; unknown keys are ignored and unknown kinds refused", () => {
    const request: OpenRequest = {
      kind: "inbound",
      protocol: "tcp",
      interceptId: "a:b",
      containerPort: 8080,
      source: { address: "fd00::1", port: 1234 },
      podName: "hello-1",
    };
    expect(decodeOpen(encodeOpen(request))).toEqual(request);
    const text = new TextEncoder();
    expect(decodeOpen(text.encode('{"kind":"rpc","api":"agent","new":1}'))).toEqual({ kind: "rpc", api: "agent" });
    expect(() => decodeOpen(text.encode('{"kind":"icmp"}'))).toThrow(
      expect.objectContaining({ wireCode: resetCodes.unsupported }),
    );
    expect(() => decodeOpen(text.encode('{"kind":'))).toThrow(
      expect.objectContaining({ wireCode: resetCodes.protocol }),
    );
    expect(() => decodeOpen(Uint8Array.of(0x22, 0xff, 0x22))).toThrow(ProtocolError);
  });

  test("an OPEN that does not fit its frame is refused before it is sent", () => {
    const podName = "x".repeat(maxOpenBytes);
    const source = { address: "10.0.0.1", port: 1 };
    const request = { kind: "inbound", protocol: "tcp", interceptId: "", containerPort: 1, source, podName } as const;
    expect(() => encodeOpen(request)).toThrow(ProtocolError);
  });
});
