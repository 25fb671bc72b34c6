import { once } from "node:events";
import { describe, expect, test } from "vitest";
import type { OpenRequest } from "#wire/open.ts";
import { createSessionPair } from "./session-pair.fake.ts";
import type { TunnelSession, TunnelStream } from "./tunnel.ts";

const tcp: OpenRequest = { kind: "tcp", target: { address: "10.0.0.1", port: 80 } };
const live = new AbortController().signal;

async function openPair(opener: TunnelSession, accepter: TunnelSession): Promise<[TunnelStream, TunnelStream]> {
  const accepted = new Promise<TunnelStream>((resolve) =>
    accepter.onIncoming((incoming) => resolve(incoming.accept())),
  );
  return [await opener.open(tcp, live), await accepted];
}

/** To the end of the reading half; `for await` would destroy the writing half with it. */
async function readAll(stream: TunnelStream): Promise<Buffer> {
  const chunks: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  await once(stream, "end");
  return Buffer.concat(chunks);
}

describe("a session", () => {
  test("carries bytes both ways and half-closes", async () => {
    await using pair = await createSessionPair();
    const [a, b] = await openPair(pair.opener, pair.accepter);
    a.end("question");
    expect((await readAll(b)).toString()).toBe("question");
    b.end("answer");
    expect((await readAll(a)).toString()).toBe("answer");
    if (!a.closed) await once(a, "close");
    expect(pair.opener.streamCount).toBe(0);
    expect(pair.accepter.streamCount).toBe(0);
  });

  test("carries more than the window", async () => {
    await using pair = await createSessionPair();
    const [a, b] = await openPair(pair.opener, pair.accepter);
    const sent = Buffer.alloc(5_000_000, "abcdefg");
    a.end(sent);
    const got = await readAll(b);
    expect(got.equals(sent)).toBe(true);
  });
});
