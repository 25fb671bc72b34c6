// What holds for every route: how large a body may be, and how long it may take.
import { expect, test } from "vitest";
import { FakeCloud } from "#cloud/visitors.fake.ts";

/** `first` and then nothing more. */
const endless = (first: string): RequestInit & { readonly duplex: "half" } => ({
  method: "POST",
  headers: { "content-type": "application/x-www-form-urlencoded" },
  body: new ReadableStream({ start: (controller) => controller.enqueue(Buffer.from(first)) }),
  duplex: "half",
});

test("a body that does not end is not waited for", async () => {
  await using cloud = await FakeCloud.open();
  const answer = cloud.ask("/oauth/revoke", endless("token=x"));
  await cloud.clock.advance(30_000);
  expect((await answer).status).toBe(408);
  expect(cloud.clock.pending).toBe(0);
});

test("a body that is too large is refused, however it is sent", async () => {
  await using cloud = await FakeCloud.open();
  expect((await cloud.post("/oauth/revoke", { token: "x".repeat(70_000) })).status).toBe(413);
  expect((await cloud.ask("/oauth/revoke", endless("x".repeat(70_000)))).status).toBe(413);
});
