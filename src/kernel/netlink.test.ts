import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { isAppError } from "#base/error.ts";
import { parseAddress, parsePrefix } from "#packet/address.ts";
import {
  decodeAcknowledgement,
  decodeAttributes,
  decodeMessages,
  decodeText,
  decodeU32,
  NetlinkWriter,
  nlm,
} from "./netlink.ts";
import {
  decodeAddress,
  decodeLink,
  decodeRoute,
  encodeNewAddress,
  encodeRouteChange,
  encodeRouteTo,
} from "./rtnetlink-messages.ts";

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const address = (text: string): Uint8Array => parseAddress(text) ?? new Uint8Array();

describe("NetlinkWriter", () => {
  test("pads attributes, counts nested ones and marks them", () => {
    const bytes = new NetlinkWriter()
      .message({ type: 16, flags: nlm.request, sequence: 7 }, Uint8Array.of(1, 2, 3), (writer) =>
        writer.u8(1, 9).nested(2, (inner) => inner.text(3, "lo")),
      )
      .bytes();
    expect(hex(bytes)).toBe(
      ["28000000", "1000", "0100", "07000000", "00000000", "01020300"].join("") +
        ["05000100", "09000000", "0c000280", "07000300", "6c6f0000"].join(""),
    );
  });

  test("what it writes decodes to the same, whatever the sizes", () => {
    const attribute = fc.tuple(fc.integer({ min: 1, max: 0x3fff }), fc.uint8Array({ maxLength: 3000 }));
    fc.assert(
      fc.property(fc.array(fc.uniqueArray(attribute, { selector: ([type]) => type, maxLength: 5 })), (messages) => {
        const writer = new NetlinkWriter();
        messages.forEach((attributes, sequence) => {
          writer.message({ type: 20, flags: 1, sequence }, new Uint8Array(4), (out) => {
            for (const [type, value] of attributes) out.attribute(type, value);
          });
        });
        const decoded = decodeMessages(writer.bytes()).map(({ payload }) => [...decodeAttributes(payload, 4)]);
        expect(decoded.map((list) => list.map(([type, value]) => [type, hex(value)]))).toEqual(
          messages.map((list) => list.map(([type, value]) => [type, hex(value)])),
        );
      }),
    );
  });
});

describe("decoding", () => {
  test("random bytes are refused by an AppError or understood, never worse", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        try {
          for (const message of decodeMessages(bytes)) {
            decodeLink(message);
            decodeAddress(message);
            decodeRoute(message);
            decodeAcknowledgement(message);
          }
        } catch (error) {
          expect(isAppError(error, "internal")).toBe(true);
        }
      }),
    );
  });

  test("an acknowledgement gives errno and the kernel's words", () => {
    const echoed = new Uint8Array(16);
    const body = Buffer.concat([Buffer.from("ffffffff", "hex"), echoed, Buffer.from("0900010062616421", "hex")]);
    const padded = Buffer.concat([body, Buffer.alloc(4)]);
    const message = { type: 2, flags: 0x300, sequence: 1, payload: new Uint8Array(padded) };
    expect(decodeAcknowledgement(message)).toEqual({ errno: 1, text: "bad!" });
    expect(decodeAcknowledgement({ ...message, flags: 0 })).toEqual({ errno: 1, text: undefined });
  });

  test("texts end at their NUL and numbers have four bytes", () => {
    expect(decodeText(Uint8Array.of(0x6c, 0x6f, 0, 0x21))).toBe("lo");
    expect(decodeU32(Uint8Array.of(1, 2))).toBeUndefined();
    expect(decodeU32(Uint8Array.of(1, 2, 0, 0))).toBe(513);
  });
});

describe("routes and addresses", () => {
  test.each(["10.96.0.0/12", "fd00:96::/108", "0.0.0.0/0"])("a route to %s is what it says", (text) => {
    const prefix = parsePrefix(text);
    if (prefix === undefined) throw new Error(text);
    const [message] = decodeMessages(encodeRouteChange(3, "add", prefix, 12));
    if (message === undefined) throw new Error("no message");
    expect(message.flags).toBe(nlm.request | nlm.ack | nlm.create | nlm.exclusive);
    expect(decodeRoute(message)).toMatchObject({ destination: prefix, type: "unicast", table: 254, ifIndex: 12 });
  });

  test("an IPv6 address is usable at once (no duplicate detection)", () => {
    const [message] = decodeMessages(encodeNewAddress(1, 5, address("fd00::1"), 125));
    if (message === undefined) throw new Error("no message");
    expect(decodeAddress(message)).toEqual({ ifIndex: 5, address: address("fd00::1"), bits: 125 });
    expect(decodeU32(decodeAttributes(message.payload, 8).get(8))).toBe(2);
  });

  test("a question for a route holds the whole address", () => {
    const [message] = decodeMessages(encodeRouteTo(1, address("10.0.0.7")));
    expect(message?.payload[1]).toBe(32);
  });

  test("messages of another kind are not taken for one", () => {
    const other = { type: 99, flags: 0, sequence: 1, payload: new Uint8Array(40) };
    expect([decodeLink(other), decodeAddress(other), decodeRoute(other)]).toEqual([undefined, undefined, undefined]);
  });
});
