// Echo requests over the tunnel: what the program's kernel sees of answers, refusals and silence. A stand-in that answers
// by itself would make a pod look alive that is not there.
import { expect, test, vi } from "vitest";
import { AppError, type ErrorCode } from "#base/error.ts";
import { formatAddress, parseAddress } from "#packet/address.ts";
import { buildEcho, readEcho } from "#packet/icmp-echo.ts";
import { PacketView } from "#packet/packet-view.ts";
import { checksumsHold } from "#packet/packet.fake.ts";
import { createSessionPair } from "#tunnel/session-pair.fake.ts";
import type { IncomingStream, TunnelStream } from "#tunnel/tunnel.ts";
import { DeviceWriter } from "./device-writer.ts";
import { EchoFlows, maxEchoFlows, type EchoFlowsOptions } from "./echo-flow.ts";
import { createStats } from "./stats.ts";

const families = {
  v4: { version: 4, program: "246.246.0.1", target: "10.96.0.10", host: [3, 1], prohibited: [3, 13] },
  v6: { version: 6, program: "fd00:246::1", target: "fd00:96::a", host: [1, 3], prohibited: [1, 1] },
} as const;

function load(bytes: Uint8Array): PacketView {
  const view = new PacketView();
  if (view.load(bytes) !== undefined) throw new Error("the packet is malformed");
  return view;
}

async function setUp(family: "v4" | "v6") {
  const { version, program, target } = families[family];
  const pair = await createSessionPair();
  const incoming: IncomingStream[] = [];
  pair.accepter.onIncoming((stream) => incoming.push(stream));
  const written: PacketView[] = [];
  const stats = createStats();
  const write = (packet: Uint8Array): boolean => checksumsHold(packet) && written.push(load(packet.slice())) > 0;
  const writer = new DeviceWriter({ onPacket: () => undefined, write }, stats);
  const open = vi.fn<EchoFlowsOptions["open"]>((to, signal) => pair.opener.open({ kind: "echo", target: to }, signal));
  const flows = new EchoFlows({ writer, stats, open });
  const ends = { version, source: parseAddress(program)!, destination: parseAddress(target)! };
  const send = (sequence: number, identifier = 7, payload = "payload"): void =>
    flows.handle(load(buildEcho("request", { ...ends, identifier, sequence, payload: Buffer.from(payload) })));
  const settle = async (): Promise<void> => {
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
  };
  const typeOf = (view: PacketView | undefined): readonly (number | undefined)[] =>
    [0, 1].map((at) => view?.bytes[view.transportOffset + at]);
  return { pair, flows, incoming, written, stats, open, send, settle, typeOf, program, target };
}

test.each(["v4", "v6"] as const)(
  "over IP%s a reply is the far end's, to whoever asked, and no sooner",
  async (family) => {
    const { pair, incoming, written, stats, send, settle, typeOf, program, target } = await setUp(family);
    await using _ = pair;
    send(1);
    send(2);
    await settle();
    expect(incoming.map(({ request }) => request)).toEqual([{ kind: "echo", target: { address: target, port: 0 } }]);
    const far = incoming[0]!.accept();
    const asked: Buffer[] = [];
    far.onDatagram((datagram) => asked.push(Buffer.from(datagram)));
    await settle();
    expect(asked.map((datagram) => [datagram.readUInt16BE(), datagram.subarray(2).toString()])).toEqual([
      [1, "payload"],
      [2, "payload"],
    ]);
    expect(written).toEqual([]);
    far.sendDatagram(asked[1]!);
    await settle();
    const [reply] = written;
    expect(typeOf(reply)).toEqual([family === "v4" ? 0 : 129, 0]);
    expect([formatAddress(reply!.source()), formatAddress(reply!.destination())]).toEqual([target, program]);
    const { identifier, sequence, payload } = readEcho(reply!);
    expect([identifier, sequence, Buffer.from(payload).toString()]).toEqual([7, 2, "payload"]);
    expect(stats).toMatchObject({ echoRequests: 2, echoReplies: 1, echoDropped: 0, echoFlows: 1 });
  },
);

const refusals: readonly [ErrorCode, "host" | "prohibited" | undefined][] = [
  ["unreachable", "host"],
  ["denied", "prohibited"],
  ["unsupported", "prohibited"],
  ["timeout", undefined],
];
test.each(["v4", "v6"] as const)(
  "over IP%s the reason why nobody could be asked is told, once for each request",
  async (family) => {
    for (const [code, reason] of refusals) {
      const { pair, flows, open, written, send, settle, typeOf } = await setUp(family);
      await using _ = pair;
      open.mockRejectedValue(new AppError(code, "no"));
      send(1);
      await settle();
      send(2);
      const expected = reason === undefined ? [] : [families[family][reason], families[family][reason]];
      expect({ code, told: written.map(typeOf) }).toEqual({ code, told: expected });
      expect(open).toHaveBeenCalledTimes(1);
      for (let second = 0; second < 3; second++) flows.tick();
      send(3);
      expect(open).toHaveBeenCalledTimes(2); // things may have changed
    }
  },
);

test("a target that becomes unreachable is told, and flows end when they are idle or closed", async () => {
  const { pair, flows, incoming, written, stats, send, settle, typeOf } = await setUp("v4");
  await using _ = pair;
  send(1);
  await settle();
  incoming[0]!.accept().destroy(new AppError("unreachable", "no route"));
  await settle();
  expect(written.map(typeOf)).toEqual([families.v4.host]);
  for (let second = 0; second < 3; second++) flows.tick();
  expect(stats.echoFlows).toBe(0);
  send(2, 8);
  await settle();
  incoming[1]!.accept();
  for (let second = 0; second < 30; second++) flows.tick();
  expect(stats.echoFlows).toBe(1);
  flows.tick();
  await settle();
  expect(stats.echoFlows).toBe(0);
  send(3, 9);
  flows.close();
  send(4, 9);
  expect(stats.echoFlows).toBe(0);
});

test("a stream that comes when its flow is over takes nothing from the flow that came after", async () => {
  const { pair, flows, incoming, stats, open, send, settle, target } = await setUp("v4");
  await using _ = pair;
  const late = Promise.withResolvers<TunnelStream>();
  open.mockImplementationOnce(() => late.promise);
  send(1);
  for (let second = 0; second <= 30; second++) flows.tick();
  expect(stats.echoFlows).toBe(0);
  send(2);
  await settle();
  incoming[0]!.accept();
  const opened = pair.opener.open({ kind: "echo", target: { address: target, port: 0 } }, new AbortController().signal);
  await settle();
  incoming[1]!.accept();
  late.resolve(await opened);
  await settle();
  expect((await opened).destroyed).toBe(true);
  expect(stats.echoFlows).toBe(1);
});

test("flows, and what waits for one, are bounded", async () => {
  const { pair, open, stats, send } = await setUp("v6");
  await using _ = pair;
  open.mockImplementation(() => new Promise(() => undefined));
  for (let identifier = 0; identifier <= maxEchoFlows; identifier++) send(1, identifier);
  expect(stats).toMatchObject({ echoFlows: maxEchoFlows, echoDropped: 1 });
  for (let sequence = 2; sequence <= 6; sequence++) send(sequence, 0);
  expect(stats.echoDropped).toBe(3);
});
