import { once } from "node:events";
import { createServer } from "node:net";
import type { Server } from "node:net";
import { expect, test } from "vitest";
import { isListening } from "./listening.ts";

/** Below the range from which the kernel gives ports: none of the other tests can come by it. */
const firstPort = 20_000;

test.each(["127.0.0.1", "::1"])("isListening() sees a program on %s, and when it has gone", async (host) => {
  const { server, port } = await listenOnFreePort(host);
  expect(await isListening(port)).toBe(true);
  server.close();
  await once(server, "close");
  // A starting program of another test has a copy of the closed socket for a moment.
  await expect.poll(() => isListening(port)).toBe(false);
});

async function listenOnFreePort(host: string): Promise<{ readonly server: Server; readonly port: number }> {
  for (let port = firstPort + (process.pid % 10_000); ; port += 1) {
    if (await isListening(port)) continue;
    const server = createServer().listen(port, host);
    await once(server, "listening");
    return { server, port };
  }
}
