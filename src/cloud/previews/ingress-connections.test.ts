// An ingress that takes a connection and then says nothing of TLS.
import { once } from "node:events";
import { duplexPair } from "node:stream";
import { expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { IngressConnections } from "./ingress-connections.ts";
import type { Preview } from "./previews.ts";

test("an ingress that does not answer TLS is given up in time", async () => {
  const clock = new FakeClock();
  const [near, far] = duplexPair();
  far.on("error", () => undefined);
  const preview = { clusterId: "c", id: "p", ingress: { host: "ingress.shop", port: 443, tls: true } } as Preview;
  const connections = new IngressConnections(preview, { openPreview: () => Promise.resolve(near) }, clock);
  const opening = connections.open();
  opening.catch(() => undefined);
  await once(far, "data");
  await clock.advance(25_000);
  await expect(opening).rejects.toMatchObject({ code: "timeout" });
  expect(near.destroyed).toBe(true);
});
