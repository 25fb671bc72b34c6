import { expect, test } from "vitest";
import { PacedSends } from "./paced-sends.ts";

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("datagrams leave in turns and in order; what has no room to wait leaves at once", async () => {
  const sent: number[] = [];
  const paced = new PacedSends((datagram) => sent.push(datagram.readUInt32BE()));
  const numbers = Array.from({ length: 200 }, (_, number) => number);
  for (const number of numbers) {
    const datagram = Buffer.alloc(60_000);
    datagram.writeUInt32BE(number);
    paced.send(datagram);
  }
  let waiting = 69; // 4 MiB of them
  for (; waiting > 0; waiting -= 32) {
    expect(sent).toEqual(numbers.slice(0, 200 - waiting));
    await turn();
  }
  expect(sent).toEqual(numbers);
});

test("what waits ends with its flow, and leaves its room to others", async () => {
  const sent: Buffer[] = [];
  for (const _ of Array.from({ length: 3 })) {
    const paced = new PacedSends((datagram) => sent.push(datagram));
    for (let number = 0; number < 32 + 60; number += 1) paced.send(Buffer.alloc(60_000));
    paced.clear();
    await turn();
    expect(sent.splice(0).length).toBe(32);
  }
});
