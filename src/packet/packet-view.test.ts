import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { randomInputs } from "#base/random-inputs.fake.ts";
import { checksumsHold, tcpPacket, udpPacket } from "./packet.fake.ts";
import { isEchoRequest } from "./icmp-echo.ts";
import { buildIcmpError, quotedPacket, readQuotedUdp } from "./icmp.ts";
import { PacketView, protocols } from "./packet-view.ts";
import { applyRewrite, planRewrite } from "./rewrite.ts";
import { buildReset, flagsOf, isFirstSyn, sequenceOf, tcpFlags } from "./tcp.ts";
import { formatAddress, parseAddress } from "./address.ts";
import { sumWords, foldSum } from "./checksum.ts";

const inputs = randomInputs();
const families = {
  v4: { source: "246.246.0.1", destination: "10.96.0.10" },
  v6: { source: "fd00:246::1", destination: "fd00:96::a" },
} as const;
const ports = { sourcePort: 40_000, destinationPort: 80 };

/** Any access behind the end throws, instead of answering undefined. */
function guarded(bytes: Uint8Array): Uint8Array {
  return new Proxy(bytes, {
    get(target, key) {
      if (typeof key === "string" && /^\d+$/.test(key) && Number(key) >= target.length) {
        throw new RangeError(`read of byte ${key} in a packet of ${target.length}`);
      }
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === "function" ? (value.bind(target) as unknown) : value;
    },
  });
}

function load(bytes: Uint8Array): PacketView {
  const view = new PacketView();
  expect(view.load(bytes)).toBeUndefined();
  return view;
}

describe.each(["v4", "v6"] as const)("PacketView on %s", (family) => {
  const ends = { ...families[family], ...ports };

  test("finds ends, flags and payload of a TCP segment", () => {
    const view = load(tcpPacket({ ...ends, flags: tcpFlags.syn, sequence: 0xffff_fffe, payload: Uint8Array.of(1, 2) }));
    expect(formatAddress(view.source())).toBe(ends.source);
    expect(formatAddress(view.destination())).toBe(ends.destination);
    expect([view.protocol, view.sourcePort, view.destinationPort]).toEqual([protocols.tcp, 40_000, 80]);
    expect([...view.bytes.subarray(view.payloadOffset, view.end)]).toEqual([1, 2]);
    expect(isFirstSyn(view)).toBe(true);
    expect(sequenceOf(view)).toBe(0xffff_fffe);
  });

  test("ignores padding behind the packet", () => {
    const packet = udpPacket(ends, Uint8Array.of(7));
    const padded = new Uint8Array(packet.length + 18);
    padded.set(packet);
    expect(load(padded).end).toBe(packet.length);
  });

  test("names every way of being cut short", () => {
    const packet = tcpPacket({ ...ends, flags: tcpFlags.ack });
    for (let length = 0; length < packet.length; length++) {
      const problem = new PacketView().load(guarded(packet.subarray(0, length)));
      expect(problem).toBe(length === 0 ? "empty" : "truncated");
    }
  });

  test("a reset answers a SYN with its acknowledgement, an ACK with its sequence", () => {
    const toSyn = load(buildReset(load(tcpPacket({ ...ends, flags: tcpFlags.syn, sequence: 0xffff_ffff }))));
    expect(flagsOf(toSyn)).toBe(tcpFlags.rst | tcpFlags.ack);
    expect(new DataView(toSyn.bytes.buffer).getUint32(toSyn.transportOffset + 8)).toBe(0);
    expect(formatAddress(toSyn.source())).toBe(ends.destination);
    const toAck = load(buildReset(load(tcpPacket({ ...ends, flags: tcpFlags.ack, acknowledgement: 77 }))));
    expect([flagsOf(toAck), sequenceOf(toAck)]).toEqual([tcpFlags.rst, 77]);
    expect(checksumsHold(toSyn.bytes) && checksumsHold(toAck.bytes)).toBe(true);
  });

  test("an unreachable quotes the packet and finds its way back to the flow", () => {
    const sent = udpPacket(ends, new Uint8Array(3000));
    const error = load(buildIcmpError(load(sent), "port"));
    expect(checksumsHold(error.bytes)).toBe(true);
    expect(error.bytes.length).toBe(family === "v4" ? 576 : 1280);
    const quote = readQuotedUdp(quotedPacket(error) ?? new Uint8Array(0));
    expect(quote?.sourcePort).toBe(40_000);
    expect(formatAddress(quote?.destination ?? new Uint8Array(4))).toBe(ends.destination);
  });

  test("rewriting keeps checksums right for any ends and payload, and there and back is the identity", () => {
    const size = family === "v4" ? 4 : 16;
    const address = fc.uint8Array({ minLength: size, maxLength: size });
    const port = fc.integer({ min: 1, max: 65_535 });
    const anyEnds = fc.record({ source: address, destination: address, sourcePort: port, destinationPort: port });
    fc.assert(
      fc.property(anyEnds, fc.uint8Array({ maxLength: 40 }), (after, payload) => {
        const view = load(tcpPacket({ ...ends, flags: tcpFlags.ack, payload }));
        const before = { source: view.source(), destination: view.destination(), ...ports };
        applyRewrite(view, planRewrite(before, after));
        expect(checksumsHold(view.bytes)).toBe(true);
        const rewritten = load(view.bytes);
        expect([rewritten.sourcePort, rewritten.destinationPort]).toEqual([after.sourcePort, after.destinationPort]);
        expect([...rewritten.source()]).toEqual([...after.source]);
        applyRewrite(rewritten, planRewrite(after, before));
        expect(checksumsHold(rewritten.bytes)).toBe(true);
        expect([...rewritten.source()]).toEqual([...before.source]);
      }),
    );
  });

  test(
    `${inputs} random and mutated packets are loaded or named malformed, and nothing is read outside of them`,
    { timeout: 60_000 },
    () => {
      const random = seededRandom(family === "v4" ? 1 : 2);
      const view = new PacketView();
      const wrong: string[] = [];
      let understood = 0;
      for (let round = 0; round < inputs; round++) {
        const bytes = hostilePacket(family, random);
        if (view.load(guarded(bytes)) !== undefined) continue;
        understood++;
        if (!holdsTogether(view, bytes.length)) wrong.push(Buffer.from(bytes).toString("hex"));
      }
      expect(wrong).toEqual([]);
      expect(understood).toBeGreaterThan(inputs / 10);
    },
  );
});

type Random = (below: number) => number;

function seededRandom(start: number): Random {
  let seed = start;
  return (below) => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return (seed >>> 8) % below;
  };
}

/** Half noise, half a segment with some bytes changed; mostly with a believable version and extension headers. */
function hostilePacket(family: "v4" | "v6", random: Random): Uint8Array {
  const noise = random(2) === 0;
  const bytes = noise
    ? Uint8Array.from({ length: 1 + random(120) }, () => random(256))
    : tcpPacket({ ...families[family], ...ports, flags: random(256), payload: new Uint8Array(random(64)) });
  if (!noise) {
    for (let change = random(8); change > 0; change--) bytes[random(bytes.length)] = random(256);
  }
  if (random(8) !== 0) bytes[0] = family === "v4" ? 0x45 : 0x60;
  const headers = [0, 43, 44, 51, 60, 135, 6, 17, 1, 58, 59];
  if (family === "v6" && bytes.length > 40 && random(2) === 0) {
    bytes[6] = headers[random(headers.length)] ?? 0;
    bytes[40] = headers[random(headers.length)] ?? 0;
  }
  return bytes;
}

/** Calls everything that reads a loaded packet; the guarded bytes throw on a read outside. */
function holdsTogether(view: PacketView, length: number): boolean {
  const { transportOffset, payloadOffset, end } = view;
  if (transportOffset > payloadOffset || payloadOffset > end || end > length) return false;
  if (view.fragment !== "none") return true;
  isEchoRequest(view);
  const quote = quotedPacket(view);
  if (quote !== undefined) readQuotedUdp(guarded(quote));
  if (buildIcmpError(view, "host").length > 1280) return false;
  return view.protocol !== protocols.tcp || checksumsHold(buildReset(view));
}

describe("fragments", () => {
  test("of IPv4 are recognised by offset and flag", () => {
    const packet = udpPacket({ ...families.v4, ...ports }, new Uint8Array(64));
    packet[6] = 0x20;
    expect(load(packet)).toMatchObject({ fragment: "first", moreFragments: true, destinationPort: 80 });
    packet[7] = 0x02;
    expect(load(packet)).toMatchObject({ fragment: "later", fragmentOffset: 16, destinationPort: 0 });
  });

  test("of IPv6 are recognised behind other extension headers, and a chain of nine is refused", () => {
    const udp = udpPacket({ ...families.v6, ...ports }, new Uint8Array(8));
    const chain = (headers: number[][]): Uint8Array => {
      const extra = Uint8Array.from(headers.flat());
      const packet = new Uint8Array(udp.length + extra.length);
      packet.set(udp.subarray(0, 40));
      packet.set(extra, 40);
      packet.set(udp.subarray(40), 40 + extra.length);
      packet[6] = 60;
      new DataView(packet.buffer).setUint16(4, packet.length - 40);
      return packet;
    };
    const fragmented = load(
      chain([
        [44, 0, 0, 0, 0, 0, 0, 0],
        [17, 0, 0, 9, 0, 0, 1, 2],
      ]),
    );
    expect(fragmented).toMatchObject({ fragment: "later", fragmentId: 258, fragmentOffset: 8, moreFragments: true });
    const options = Array.from({ length: 9 }, (_, index) => [index === 8 ? 17 : 60, 0, 0, 0, 0, 0, 0, 0]);
    expect(new PacketView().load(chain(options))).toBe("too_many_extensions");
    expect(load(chain(options.slice(1))).destinationPort).toBe(80);
  });
});

test("sumWords() counts an odd last byte as a high half and survives the longest packet", () => {
  expect(foldSum(sumWords(Uint8Array.of(1, 2, 3), 0, 3))).toBe(0x0102 + 0x0300);
  expect(foldSum(sumWords(new Uint8Array(65_535).fill(255), 0, 65_535))).toBe(0xff00);
  expect(parseAddress("::1")?.length).toBe(16);
});
