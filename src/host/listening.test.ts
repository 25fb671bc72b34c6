import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { isListening, parseListeningPorts } from "./listening.ts";

test.each(["127.0.0.1", "::1"])("isListening() sees a program on %s, and when it has gone", async (host) => {
  const server = createServer().listen(0, host);
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  expect(await isListening(port)).toBe(true);
  server.close();
  await once(server, "close");
  expect(await isListening(port)).toBe(false);
});

test("parseListeningPorts() takes no connection for a listener", () => {
  const text = `  sl  local_address rem_address   st tx_queue rx_queue
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000
   1: 0100007F:1F41 0100007F:C350 01 00000000:00000000 00:00000000
   2: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000
`;
  expect([...parseListeningPorts(text)]).toEqual([8000, 80]);
  expect(parseListeningPorts("").size).toBe(0);
});
