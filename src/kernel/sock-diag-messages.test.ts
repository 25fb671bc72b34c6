import { describe, expect, test } from "vitest";
import { decodeMessages } from "./netlink.ts";
import { decodeConnection, encodeConnectionDump, encodeDestroy } from "./sock-diag-messages.ts";
import type { TcpConnection } from "./sock-diag-messages.ts";

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const mapped = "00000000000000000000ffff";
const zeros = (count: number): string => "00".repeat(count);

/** The kernel's struct tcp_info up to the fields that are read, and some of what newer kernels add. */
function infoBytes(): Uint8Array {
  const info = new Uint8Array(160);
  const view = new DataView(info.buffer);
  view.setUint32(44, 5120, true);
  view.setUint32(52, 6000, true);
  view.setUint32(56, 5080, true);
  view.setBigUint64(128, 70_000_000_000n, true);
  view.setUint32(152, 4711, true);
  return info;
}

function answer(body: string, info?: Uint8Array): TcpConnection | undefined {
  const attribute = info === undefined ? "" : "a4000200" + hex(info);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(16 + (body.length + attribute.length) / 2);
  const bytes = Buffer.from(hex(length) + "1400" + "0200" + "07000000" + zeros(4) + body + attribute, "hex");
  return decodeConnection(decodeMessages(bytes)[0]!);
}

describe("encodeConnectionDump()", () => {
  test("is `ss -4 -t -i state established state close-wait sport = 8080`", () => {
    const request = { family: 4, states: [1, 8], localPort: 8080, remotePort: 0 } as const;
    expect(hex(encodeConnectionDump(7, request))).toBe(
      [
        "48000000" + "1400" + "0103" + "07000000" + zeros(4), // length 72, SOCK_DIAG_BY_FAMILY, request dump
        "02" + "06" + "02" + "00" + "02010000", // IPv4, TCP, with tcp_info, the two states
        "1f90" + "0000" + zeros(16) + zeros(16) + zeros(4) + zeros(8),
      ].join(""),
    );
  });
  test("asks for every state when none is named, and for the far end's port", () => {
    const bytes = Buffer.from(encodeConnectionDump(1, { family: 6, states: [], localPort: 0, remotePort: 443 }));
    expect(bytes[16]).toBe(10);
    expect(bytes.readUInt32LE(20)).toBe(0xffff_ffff);
    expect(bytes.readUInt16BE(26)).toBe(443);
  });
});

describe("decodeConnection()", () => {
  const identity = "1f90" + "d431" + "c6336402" + zeros(12) + "c6336401" + zeros(12) + zeros(4) + "2a00000001000000";
  const tail = zeros(4) + "03000000" + "05000000" + "e8030000" + "39300000";

  test("reads an IPv4 connection and what passed over it", () => {
    expect(answer("02" + "01" + "0000" + identity + tail, infoBytes())).toEqual({
      family: 4,
      local: { address: "198.51.100.2", port: 8080 },
      remote: { address: "198.51.100.1", port: 54_321 },
      state: 1,
      cookie: "2a00000001000000",
      unreadBytes: 3,
      unacknowledgedBytes: 5,
      traffic: {
        sinceSentMs: 5120,
        sinceReceivedMs: 6000,
        sinceAcknowledgedMs: 5080,
        receivedBytes: 70_000_000_000,
        receivedSegments: 4711,
      },
      identity: Uint8Array.from(Buffer.from(identity, "hex")),
    });
  });
  test("writes IPv4 on a socket of both families as IPv4", () => {
    const both = `1f90d431${mapped}c6336402${mapped}c6336401${zeros(12)}`;
    const connection = answer("0a" + "08" + "0000" + both + tail);
    expect(connection).toMatchObject({ family: 6, state: 8, local: { address: "198.51.100.2" } });
    expect(connection?.remote.address).toBe("198.51.100.1");
    expect(connection?.traffic).toBeUndefined();
  });
  test("leaves out other families and short answers", () => {
    expect(answer("01" + "01" + "0000" + identity + tail)).toBeUndefined();
    expect(answer("02" + "01" + "0000" + identity)).toBeUndefined();
  });
  test("keeps an answer whose tcp_info is an old kernel's, without its traffic", () => {
    const info = new Uint8Array(160).subarray(0, 104);
    const bytes = "6c000200" + hex(info);
    expect(answer("02" + "01" + "0000" + identity + tail + bytes)?.traffic).toBeUndefined();
  });
});

describe("encodeDestroy()", () => {
  test("names the socket as the kernel named it", () => {
    const identity = Uint8Array.from({ length: 48 }, (_, index) => index);
    expect(hex(encodeDestroy(2, { family: 6, identity }))).toBe(
      "48000000" + "1500" + "0500" + "02000000" + zeros(4) + "0a060200" + "ffffffff" + hex(identity),
    );
  });
});
