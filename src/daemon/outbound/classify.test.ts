// Whatever a program or the kernel puts on the device: counted, or handed to the hop that knows it; never thrown over.
import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { AppError } from "#base/error.ts";
import { randomInputs } from "#base/random-inputs.fake.ts";
import { fragmentsOf, tcpPacket, udpPacket } from "#packet/packet.fake.ts";
import { tcpFlags } from "#packet/tcp.ts";
import { parseFamily } from "./addresses.ts";
import { Classify } from "./classify.ts";
import { DeviceWriter } from "./device-writer.ts";
import { EchoFlows } from "./echo-flow.ts";
import { IcmpHop } from "./icmp.ts";
import { createStats } from "./stats.ts";
import { maxTcpFlows, TcpRedirect } from "./tcp-redirect.ts";
import { UdpFlows } from "./udp-flow.ts";

const own = { address: "246.246.0.1", peer: "246.246.0.2", probe: "246.246.0.3" };
const ends = { source: own.address, sourcePort: 40_000, destination: "10.96.0.10", destinationPort: 80 };

function setUp() {
  const stats = createStats();
  const writer = new DeviceWriter({ onPacket: () => undefined, write: () => true }, stats);
  const report = (): void => undefined;
  let opens = 0;
  const tcp = new TcpRedirect({
    own: parseFamily(4, own),
    writer,
    stats,
    report,
    open: () => {
      opens++;
      return opens % 2 === 0 ? Promise.resolve(new PassThrough()) : Promise.reject(new AppError("refused", "no"));
    },
  });
  tcp.setListenPort(5555);
  const open = (): Promise<never> => Promise.reject(new AppError("refused", "no"));
  const udp = new UdpFlows({ writer, stats, report, open });
  const v4 = { own: parseFamily(4, own), tcp };
  const echo = new EchoFlows({ writer, stats, open });
  const icmp = new IcmpHop({ stats, udp, echo });
  return { stats, tcp, udp, classify: new Classify({ v4, v6: undefined, udp, icmp, writer, stats, now: () => 0 }) };
}

test("broadcast, multicast, another family and the device's own network go no further, another protocol is refused", () => {
  const { classify, stats } = setUp();
  const toAddress = (destination: string): void =>
    classify.handle(udpPacket({ ...ends, destination }, Buffer.from("x")));
  for (const destination of ["224.0.0.251", "255.255.255.255", "0.0.0.0", own.peer, own.probe, own.address])
    toAddress(destination);
  classify.handle(udpPacket({ ...ends, source: "fd00::1", destination: "fd00::2" }, Buffer.from("x")));
  expect(stats.ignored).toBe(7);
  const sctp = udpPacket(ends, new Uint8Array(20));
  sctp[9] = 132;
  classify.handle(sctp);
  const echo = udpPacket(ends, new Uint8Array(20));
  echo[9] = 1;
  echo[20] = 8;
  classify.handle(echo);
  classify.handle(new Uint8Array(3));
  expect(stats).toMatchObject({ otherProtocol: 1, echoRequests: 1, malformed: 1, packetsIn: 10, packetsOut: 1 });
  expect(stats.icmpErrors).toBe(1);
});

test("a fragmented datagram becomes one flow", () => {
  const { classify, stats } = setUp();
  for (const part of fragmentsOf(udpPacket(ends, new Uint8Array(4000)), 1500, 9)) classify.handle(part);
  expect(stats).toMatchObject({ fragments: 3, udpFlows: 1 });
});

const inputs = randomInputs();

test(`${inputs} hostile packets leave the tables bounded and consistent`, { timeout: 60_000 }, async () => {
  const { classify, stats, tcp, udp } = setUp();
  let seed = 11;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return (seed >>> 8) % below;
  };
  const flags = [tcpFlags.syn, tcpFlags.ack, tcpFlags.rst, tcpFlags.fin | tcpFlags.ack, 0x3f, 0];
  for (let round = 0; round < inputs; round++) {
    const isTcp = random(3) !== 0;
    const some = { ...ends, sourcePort: 1 + random(300), destinationPort: 1 + random(3) };
    const fromListener = {
      source: own.address,
      sourcePort: 5555,
      destination: own.peer,
      destinationPort: 1024 + random(300),
    };
    const chosen = random(4) === 0 ? fromListener : some;
    const packet = isTcp
      ? tcpPacket({ ...chosen, flags: flags[random(flags.length)] ?? 0, sequence: random(2) })
      : udpPacket(chosen, new Uint8Array(random(40)));
    for (let change = random(6) - 3; change > 0; change--) packet[random(packet.length)] = random(256);
    classify.handle(packet.subarray(0, random(10) === 0 ? random(packet.length) : packet.length));
    if (random(200) === 0) {
      tcp.tick();
      udp.tick();
      tcp.claim(own.peer, 1024 + random(300));
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  expect(stats.packetsIn).toBe(inputs);
  expect(stats.tcpFlows).toBe(tcp.flowCount);
  tcp.cut(maxTcpFlows);
  for (let second = 0; second < 400; second++) tcp.tick();
  udp.close();
  expect(stats.udpFlows).toBe(0);
});
