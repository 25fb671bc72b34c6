import { expect, test } from "vitest";
import { formatAddress, parseAddress } from "./address.ts";
import { buildEcho, isEchoRequest, readEcho } from "./icmp-echo.ts";
import { buildIcmpError } from "./icmp.ts";
import { PacketView } from "./packet-view.ts";
import { checksumsHold, udpPacket } from "./packet.fake.ts";

const families = {
  4: { source: "246.246.0.1", destination: "10.96.0.10" },
  6: { source: "fd00:246::1", destination: "fd00:96::a" },
} as const;

function load(bytes: Uint8Array): PacketView {
  const view = new PacketView();
  expect(view.load(bytes)).toBeUndefined();
  return view;
}
const echoOf = (version: 4 | 6, payload: Uint8Array) => ({
  version,
  source: parseAddress(families[version].source)!,
  destination: parseAddress(families[version].destination)!,
  identifier: 0xbeef,
  sequence: 0x8001,
  payload,
});

test.each([4, 6] as const)("an echo of IPv%s is read as it was built, a reply is no request", (version) => {
  for (const bytes of [0, 1, 56, 60_000]) {
    const echo = echoOf(version, new Uint8Array(bytes).fill(7));
    const request = buildEcho("request", echo);
    expect(checksumsHold(request)).toBe(true);
    const view = load(request);
    expect(isEchoRequest(view)).toBe(true);
    expect(Buffer.from(readEcho(view).payload).equals(Buffer.from(echo.payload))).toBe(true);
    expect({ ...readEcho(view), payload: echo.payload }).toEqual(echo);
    const reply = load(buildEcho("reply", echo));
    expect([isEchoRequest(reply), checksumsHold(reply.bytes)]).toEqual([false, true]);
  }
});

/** The numbers of RFC 792, 1191, 1812 and of RFC 4443, not of the code under test. */
test.each([
  [4, "host", 3, 1, 0],
  [4, "port", 3, 3, 0],
  [4, "protocol", 3, 2, 0],
  [4, "prohibited", 3, 13, 0],
  [4, "tooBig", 3, 4, 65_535],
  [6, "host", 1, 3, 0],
  [6, "port", 1, 4, 0],
  [6, "protocol", 4, 1, 6],
  [6, "prohibited", 1, 1, 0],
  [6, "tooBig", 2, 0, 65_535],
] as const)("IPv%s: %s is type %s, code %s, and %s in the header", (version, reason, ...expected) => {
  const { source, destination } = families[version];
  const sent = load(udpPacket({ source, sourcePort: 1, destination, destinationPort: 2 }, new Uint8Array(2000)));
  const error = load(buildIcmpError(sent, reason));
  const at = error.transportOffset;
  expect([error.bytes[at], error.bytes[at + 1], error.word(at + 6)]).toEqual(expected);
  expect(checksumsHold(error.bytes)).toBe(true);
  expect([formatAddress(error.source()), formatAddress(error.destination())]).toEqual([destination, source]);
  expect(error.bytes.length).toBe(version === 4 ? 576 : 1280);
});
