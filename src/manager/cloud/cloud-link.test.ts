// Several laptops that have joined one cloud server: each one's token goes its own way only.
import { duplexPair } from "node:stream";
import { setImmediate } from "node:timers/promises";
import { expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { silentLogger } from "#base/log.ts";
import type { SessionRecord } from "#manager/registry/sessions.ts";
import { CloudLink } from "./cloud-link.ts";
import type { Member } from "./cloud-link.ts";

test("a token is sent through no other laptop, and a laptop in the way does not keep the others from the server", async () => {
  const clock = new FakeClock();
  const member = (token: string): Member => ({
    session: {} as SessionRecord,
    token,
    caCertificates: [],
    tell: () => undefined,
  });
  const sent = new Map<string, Set<string>>();
  const link = new CloudLink(
    {
      url: new URL("http://localhost:8443"),
      instance: "one",
      clock,
      log: silentLogger,
      dial: ({ token }) => {
        const [near, far] = duplexPair();
        far.on("error", () => undefined);
        far.once("data", (head: Buffer) => {
          const [, bearer = ""] = /authorization: Bearer (\S+)/i.exec(String(head)) ?? [];
          sent.set(token, (sent.get(token) ?? new Set()).add(bearer));
          far.end("HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n");
        });
        return Promise.resolve(near);
      },
      report: () => ({ intercepts: [], more: 0 }),
      onIncoming: (incoming) => incoming.reject("refused", ""),
      endIntercept: () => Promise.resolve(),
    },
    member("tpm_ann"),
  );
  link.join(member("tpm_mallory"));
  while (sent.size < 2) {
    await clock.advance(500);
    await setImmediate();
  }
  for (const [by, tokens] of sent) expect([...tokens]).toEqual([by]);
  await link.close();
});
