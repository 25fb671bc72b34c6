import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { isListening } from "./listening.ts";

test.each(["127.0.0.1", "::1"])("isListening() sees a program on %s, and when it has gone", async (host) => {
  const server = createServer().listen(0, host);
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  expect(await isListening(port)).toBe(true);
  server.close();
  await once(server, "close");
  expect(await isListening(port)).toBe(false);
});
