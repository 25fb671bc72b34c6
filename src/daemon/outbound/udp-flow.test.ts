// UDP over the tunnel, packet by packet: what the program's kernel sees of answers, refusals and silence.
import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { AppError } from "#base/error.ts";
import { formatAddress } from "#packet/address.ts";
import { buildIcmpError, quotedPacket, readQuotedUdp } from "#packet/icmp.ts";
import { PacketView, protocols } from "#packet/packet-view.ts";
import { checksumsHold, udpPacket } from "#packet/packet.fake.ts";
import { createSessionPair } from "#tunnel/session-pair.fake.ts";
import type { IncomingStream, TunnelStream } from "#tunnel/tunnel.ts";
import { maxDatagramBytes } from "#wire/limits.ts";
import { DeviceWriter, maxErrorsPerTick } from "./device-writer.ts";
import { createStats } from "./stats.ts";
import { maxUdpFlows, UdpFlows } from "./udp-flow.ts";

const families = {
  v4: { program: "246.246.0.1", target: "10.96.0.10" },
  v6: { program: "fd00:246::1", target: "fd00:96::a" },
} as const;

function load(bytes: Uint8Array): PacketView {
  const view = new PacketView();
  if (view.load(bytes) !== undefined) throw new Error("the packet is malformed");
  return view;
}

async function setUp(family: "v4" | "v6") {
  const { program, target } = families[family];
  const pair = await createSessionPair(new FakeClock());
  const incoming: IncomingStream[] = [];
  pair.accepter.onIncoming((stream) => incoming.push(stream));
  const written: PacketView[] = [];
  const stats = createStats();
  const writer = new DeviceWriter(
    { onPacket: () => undefined, write: (packet) => checksumsHold(packet) && written.push(load(packet.slice())) > 0 },
    stats,
  );
  const flows = new UdpFlows({
    writer,
    stats,
    open: (to, signal) => pair.opener.open({ kind: "udp", target: to }, signal),
    report: () => undefined,
  });
  const send = (payload: Uint8Array | string, port = 40_000, destinationPort = 5000): void =>
    flows.handle(
      load(
        udpPacket(
          { source: program, sourcePort: port, destination: target, destinationPort },
          typeof payload === "string" ? Buffer.from(payload) : payload,
        ),
      ),
    );
  const settle = async (): Promise<void> => {
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
  };
  const accept = (index: number): { stream: TunnelStream; received: string[] } => {
    const stream = incoming[index]!.accept();
    const received: string[] = [];
    stream.onDatagram((datagram) => received.push(Buffer.from(datagram).toString()));
    return { stream, received };
  };
  const tick = (seconds: number): void => {
    for (let count = 0; count < seconds; count++) {
      flows.tick();
      writer.tick();
    }
  };
  return { pair, flows, incoming, written, stats, send, settle, accept, tick, program, target };
}

const textOf = (view: PacketView): string => Buffer.from(view.bytes.subarray(view.payloadOffset, view.end)).toString();

describe.each(["v4", "v6"] as const)("UDP over IP%s", (family) => {
  test("early datagrams wait for the far end, later ones follow, answers come from the target", async () => {
    const { pair, incoming, written, send, settle, accept, program, target } = await setUp(family);
    await using _ = pair;
    send("one");
    send("two");
    await settle();
    expect(incoming.map((stream) => stream.request)).toEqual([
      { kind: "udp", target: { address: target, port: 5000 } },
    ]);
    const far = accept(0);
    await settle();
    send("three");
    await settle();
    expect(far.received).toEqual(["one", "two", "three"]);
    far.stream.sendDatagram(Buffer.from("answer"));
    await settle();
    expect(written.map(textOf)).toEqual(["answer"]);
    const [answer] = written;
    expect([answer?.sourcePort, answer?.destinationPort]).toEqual([5000, 40_000]);
    expect([formatAddress(answer!.source()), formatAddress(answer!.destination())]).toEqual([target, program]);
  });

  test("the queue before acceptance has a bound", async () => {
    const { pair, stats, send, settle, accept } = await setUp(family);
    await using _ = pair;
    for (let count = 0; count < 40; count++) send(`${count}`);
    await settle();
    const far = accept(0);
    await settle();
    expect([far.received.length, stats.udpDropped]).toEqual([16, 24]);
  });

  test("a refusal is a port unreachable that finds the program's socket, and is not asked again for a second", async () => {
    const { pair, incoming, written, send, settle, tick, program, target } = await setUp(family);
    await using _ = pair;
    send("hello");
    await settle();
    incoming[0]!.reject("refused", "no");
    await settle();
    expect(written.map((view) => view.protocol)).toEqual([family === "v4" ? protocols.icmp : protocols.icmpv6]);
    const quote = readQuotedUdp(quotedPacket(written[0]!)!)!;
    expect([quote.sourcePort, quote.destinationPort]).toEqual([40_000, 5000]);
    expect([formatAddress(quote.source), formatAddress(quote.destination)]).toEqual([program, target]);
    send("again");
    expect([written.length, incoming.length]).toEqual([2, 1]);
    tick(2);
    send("later");
    await settle();
    expect(incoming).toHaveLength(2);
  });

  test("a reset of an open flow that says refused is told as well; other ends are not", async () => {
    const { pair, written, send, settle, accept, flows, stats } = await setUp(family);
    await using _ = pair;
    send("a");
    send("b", 40_001);
    await settle();
    accept(0).stream.destroy(new AppError("refused", "no"));
    accept(1).stream.end();
    await settle();
    expect(written).toHaveLength(1);
    expect(stats.udpFlows).toBe(1);
    flows.close();
    expect(stats.udpFlows).toBe(0);
  });

  test("a flow ends after a minute without datagrams, one of a DNS look-up soon after its answer", async () => {
    const { pair, send, settle, accept, tick, stats } = await setUp(family);
    await using _ = pair;
    send("query", 40_000, 53);
    send("x", 40_001, 5000);
    await settle();
    const dns = accept(0);
    const other = accept(1);
    await settle();
    dns.stream.sendDatagram(Buffer.from("answer"));
    await settle();
    tick(6);
    expect(stats.udpFlows).toBe(1);
    tick(54);
    other.stream.sendDatagram(Buffer.from("still there"));
    await settle();
    tick(60);
    expect(stats.udpFlows).toBe(1);
    tick(1);
    await settle();
    expect([stats.udpFlows, other.stream.destroyed]).toEqual([0, true]);
  });

  test("a flow ends when the program's kernel says that its port is closed", async () => {
    const { pair, flows, written, send, settle, accept, stats } = await setUp(family);
    await using _ = pair;
    send("query");
    await settle();
    const far = accept(0);
    await settle();
    far.stream.sendDatagram(Buffer.from("too late"));
    await settle();
    const error = load(buildIcmpError(written[0]!, "port"));
    flows.programGone(readQuotedUdp(quotedPacket(error)!)!);
    await settle();
    expect([stats.udpFlows, far.stream.destroyed]).toEqual([0, true]);
  });

  test("a target that does not answer delays no other", async () => {
    const { pair, incoming, send, settle, accept } = await setUp(family);
    await using _ = pair;
    for (let port = 0; port < 20; port++) send("silence", 41_000 + port, 81);
    send("hello");
    await settle();
    const far = accept(incoming.length - 1);
    await settle();
    expect(far.received).toEqual(["hello"]);
  });

  test("a datagram that is too long for the tunnel is told so, the longest of IPv4 passes", async () => {
    const { pair, written, stats, send, settle, accept } = await setUp(family);
    await using _ = pair;
    send(new Uint8Array(maxDatagramBytes));
    await settle();
    const far = accept(0);
    await settle();
    expect(far.received.map(({ length }) => length)).toEqual([maxDatagramBytes]);
    if (family === "v4") return; // has no longer one
    send(new Uint8Array(maxDatagramBytes + 1));
    const [error] = written;
    expect([error?.protocol, error?.bytes[error.transportOffset]]).toEqual([protocols.icmpv6, 2]);
    expect(stats).toMatchObject({ udpDropped: 1, icmpErrors: 1 });
  });

  test("errors are bounded in number", async () => {
    const { pair, written, stats, send, settle, tick, incoming } = await setUp(family);
    await using _ = pair;
    send("a");
    await settle();
    incoming[0]!.reject("refused", "no");
    await settle();
    for (let count = 0; count < maxErrorsPerTick + 10; count++) send("again");
    expect([written.length, stats.icmpErrors, stats.icmpErrorsHeldBack]).toEqual([
      maxErrorsPerTick,
      maxErrorsPerTick,
      11,
    ]);
    tick(1);
    send("again");
    expect(written).toHaveLength(maxErrorsPerTick + 1);
  });
});

test(`${maxUdpFlows} flows have room; beyond them one makes room that was silent for long`, () => {
  const stats = createStats();
  const flows = new UdpFlows({
    writer: new DeviceWriter({ onPacket: () => undefined, write: () => true }, stats),
    stats,
    open: (to, signal) => {
      signal.addEventListener("abort", () => ended.push(to.port));
      return new Promise(() => undefined);
    },
    report: () => undefined,
  });
  const ended: number[] = [];
  const ends = { source: "246.246.0.1", sourcePort: 40_000, destination: "10.96.0.10", destinationPort: 1 };
  const packet = udpPacket(ends, Buffer.from("x"));
  const send = (port: number): void => {
    new DataView(packet.buffer).setUint16(22, port);
    flows.handle(load(packet));
  };
  for (let port = 1; port <= maxUdpFlows; port++) send(port);
  expect([stats.udpFlows, ended]).toEqual([maxUdpFlows, []]);
  flows.tick();
  for (let port = 1; port <= 60; port++) send(port); // still in use
  for (let port = 1; port <= 100; port++) send(20_000 + port);
  expect([stats.udpFlows, ended.length]).toEqual([maxUdpFlows, 100]);
  expect(ended.filter((port) => port <= 60 || port > maxUdpFlows)).toEqual([]);
  flows.close();
  expect(stats.udpFlows).toBe(0);
});
