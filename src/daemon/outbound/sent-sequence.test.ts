import { describe, expect, test } from "vitest";
import { tcpPacket } from "#packet/packet.fake.ts";
import { PacketView } from "#packet/packet-view.ts";
import { tcpFlags } from "#packet/tcp.ts";
import { SentSequence } from "./sent-sequence.ts";

const { syn, ack, rst, fin } = tcpFlags;

describe.each([
  ["IPv4", "10.0.0.1", "10.0.0.2"],
  ["IPv6", "fd00::1", "fd00::2"],
])("SentSequence over %s", (_, source, destination) => {
  function sent(): { readonly track: SentSequence; note(flags: number, sequence: number, bytes?: number): void } {
    const track = new SentSequence();
    const view = new PacketView();
    const ends = { source, destination, sourcePort: 1, destinationPort: 2 };
    const note = (flags: number, sequence: number, bytes = 0): void => {
      const payload = new Uint8Array(bytes);
      expect(view.load(tcpPacket({ ...ends, flags, sequence, acknowledgement: sequence, payload }))).toBeUndefined();
      track.note(view);
    };
    return { track, note };
  }

  test("knows nothing before the first segment", () => {
    const { track } = sent();
    expect([track.next, track.acknowledged]).toEqual([undefined, undefined]);
  });

  test("counts bytes, and a SYN and a FIN as one each", () => {
    const { track, note } = sent();
    note(syn, 100);
    expect([track.next, track.acknowledged]).toEqual([101, undefined]);
    note(ack, 101, 50);
    expect(track.next).toBe(151);
    note(fin | ack, 151, 9);
    expect(track.next).toBe(161);
  });

  test("goes on behind 2^32, and behind the 2^31 where signed numbers turn", () => {
    const { track, note } = sent();
    note(syn, 0xffff_ffff);
    expect(track.next).toBe(0);
    note(ack, 0, 7);
    expect(track.next).toBe(7);
    const half = sent();
    half.note(syn, 0x7fff_ffef);
    half.note(ack, 0x7fff_fff0, 32);
    expect([half.track.next, half.track.acknowledged]).toEqual([0x8000_0010, 0x7fff_fff0]);
    half.note(ack, 0x8000_0010, 1);
    expect([half.track.next, half.track.acknowledged]).toEqual([0x8000_0011, 0x8000_0010]);
  });

  test("a segment that is sent again, out of order or to ask for a window takes nothing back", () => {
    const { track, note } = sent();
    note(syn, 0xffff_ffef);
    note(ack, 0xffff_fff0, 10);
    note(ack, 10, 10);
    note(syn, 0xffff_ffef); // again
    note(ack, 0xffff_fff0, 10); // again
    note(ack, 0xffff_fffa, 16); // what was missing
    note(ack, 19); // a window probe or keep-alive: the number before the next
    expect([track.next, track.acknowledged]).toEqual([20, 19]);
  });

  test("a reset's numbers do not count", () => {
    const { track, note } = sent();
    note(syn, 4);
    note(ack, 5, 5);
    note(rst | ack, 900);
    expect([track.next, track.acknowledged]).toEqual([10, 5]);
  });

  // Story: an end in TIME_WAIT answers the SYN of the next connection by the number of the one before; where that was
  // "later" than the new one's, half of the time, it was kept, and a reset had it.
  test("begins with a SYN, and anew with another: numbers of an earlier connection do not count", () => {
    const { track, note } = sent();
    note(ack, 900);
    expect([track.next, track.acknowledged]).toEqual([undefined, undefined]);
    note(syn | ack, 100);
    expect([track.next, track.acknowledged]).toEqual([101, 100]);
    note(ack, 101, 5);
    note(syn | ack, 50);
    expect([track.next, track.acknowledged]).toEqual([51, 50]);
  });
});
