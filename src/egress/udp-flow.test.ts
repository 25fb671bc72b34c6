import { createSocket } from "node:dgram";
import type { Socket } from "node:dgram";
import { once } from "node:events";
import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import type { TunnelStream } from "#tunnel/tunnel.ts";
import { connectUdp, joinUdp } from "./udp-flow.ts";

/** A flow to a target that echoes; `deliver` is the transport's side. */
async function flow() {
  const target: Socket = createSocket({ type: "udp4", recvBufferSize: 128 * 1024 }).bind(0, "127.0.0.1");
  await once(target, "listening");
  target.on("message", (datagram, from) => target.send(datagram, from.port, from.address));
  const endpoint = { address: "127.0.0.1", port: target.address().port };
  const back: string[] = [];
  let deliver: (datagram: Uint8Array) => void = () => undefined;
  const stream = Object.assign(new PassThrough(), {
    sendDatagram: (datagram: Uint8Array) => back.push(Buffer.from(datagram).toString()) > 0,
    onDatagram: (handler: typeof deliver) => (deliver = handler),
  }) as unknown as TunnelStream;
  const socket = await connectUdp(endpoint);
  joinUdp(stream, socket, { target: endpoint, clock: new FakeClock() });
  const dispose = async (): Promise<void> => {
    stream.destroy();
    await Promise.all([once(socket, "close"), new Promise<void>((resolve) => target.close(() => resolve()))]);
  };
  return { deliver: (datagram: Buffer) => deliver(datagram), back, [Symbol.asyncDispose]: dispose };
}

// A transport that was held up for half a second brings thousands at once; two of three were lost, or their answers.
test("datagrams that come all at once are all answered, in order", async () => {
  await using one = await flow();
  const texts = Array.from({ length: 3000 }, (_, number) => `${number}`);
  for (const text of texts) one.deliver(Buffer.from(text));
  await expect.poll(() => one.back.length).toBe(texts.length);
  expect(one.back).toEqual(texts);
  for (const text of texts) one.deliver(Buffer.from(text)); // most of them wait when the flow ends
});
