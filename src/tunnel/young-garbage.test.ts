import { once } from "node:events";
import { setImmediate as turn } from "node:timers/promises";
import { expect, test } from "vitest";
import type { OpenRequest } from "#wire/open.ts";
import { createSessionPair } from "./session-pair.fake.ts";

const echo: OpenRequest = { kind: "tcp", target: { address: "10.0.0.1", port: 80 } };
const blockBytes = 64 * 1024;
const mebibyte = 1024 * 1024;

// Story: of connections with TLS and without, each small read of TLS had a block of 64 KiB to itself. A quiet daemon had
// everything collected five times a second by a thousand requests a second, and one request in thirty waited 4 ms.
test("blocks that hold little of what arrives are collected as the whole blocks that they are", async () => {
  await using pair = await createSessionPair();
  pair.accepter.onIncoming((incoming) => {
    const accepted = incoming.accept();
    accepted.pipe(accepted);
  });
  const stream = await pair.opener.open(echo, new AbortController().signal);
  const { opener } = pair.transport;
  const push = opener.push.bind(opener);
  opener.push = (chunk: Uint8Array | null) => {
    if (chunk === null) return push(null);
    const block = Buffer.from(new ArrayBuffer(blockBytes), 0, chunk.length);
    block.set(chunk);
    return push(block);
  };
  const before = process.memoryUsage().arrayBuffers;
  let most = 0;
  for (let sent = 0; sent < 1000; sent += 1) {
    stream.write("a request");
    await once(stream, "data");
    most = Math.max(most, process.memoryUsage().arrayBuffers - before);
  }
  await turn();
  expect(most).toBeGreaterThan(mebibyte); // they are counted, and garbage for a while
  expect(most).toBeLessThan(12 * mebibyte); // of 62
});
