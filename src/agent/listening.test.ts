// The agent used to open and reset a connection to the application every 200 ms while it drained.
import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { describe, expect, test } from "vitest";
import { isAnyListening } from "./listening.ts";

const rest = "00000000:00000000 00:00000000 00000000  1000        0 12345 1 0000000000000000 100 0 0 10 0";

describe("isAnyListening()", () => {
  test.each(["127.0.0.1", "::"])("sees a socket on %s come and go without connecting to it", async (host) => {
    let connections = 0;
    const server = createServer(() => (connections += 1));
    server.listen(0, host);
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    expect(await isAnyListening([1, port])).toBe(true);
    await new Promise((resolve) => server.close(resolve));
    // Another test of this process may be starting a program: until that has begun it has a copy of the socket.
    await expect.poll(() => isAnyListening([1, port])).toBe(false);
    expect(connections).toBe(0);
  });

  test("is content with one table, and takes what it cannot know for listening", async () => {
    const missing = Promise.reject.bind(Promise, new Error("ENOENT")) as () => Promise<never>;
    const line = `   0: 00000000:1F90 00000000:0000 0A ${rest}`;
    const onlyIpv4 = (path: string): Promise<string> => (path.endsWith("6") ? missing() : Promise.resolve(line));
    expect(await isAnyListening([8080], onlyIpv4)).toBe(true);
    expect(await isAnyListening([8081], onlyIpv4)).toBe(false);
    expect(await isAnyListening([8080], missing)).toBe(true);
    expect(await isAnyListening([], missing)).toBe(false);
  });
});
