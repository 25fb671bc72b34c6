// The agent used to open and reset a connection to the application every 200 ms while it drained.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { describe, expect, test } from "vitest";
import { isAnyListening } from "./listening.ts";

const tcp = (...ports: readonly number[]) =>
  ports.map((containerPort) => ({ containerPort, protocol: "tcp" }) as const);

const rest = "00000000:00000000 00:00000000 00000000  1000        0 12345 1 0000000000000000 100 0 0 10 0";

describe("isAnyListening()", () => {
  test.each(["127.0.0.1", "::"])("sees a socket on %s come and go without connecting to it", async (host) => {
    let connections = 0;
    const server = createServer(() => (connections += 1));
    server.listen(0, host);
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    expect(await isAnyListening(tcp(1, port))).toBe(true);
    await new Promise((resolve) => server.close(resolve));
    // Another test of this process may be starting a program: until that has begun it has a copy of the socket.
    await expect.poll(() => isAnyListening(tcp(1, port))).toBe(false);
    expect(connections).toBe(0);
  });

  // A sidecar of an old kubelet ended at once beside an application of UDP alone, which went on for its grace period.
  test.each(["127.0.0.1", "::1"])("sees a UDP socket on %s, but none that has a peer", async (host) => {
    const type = host === "::1" ? "udp6" : "udp4";
    const [server, client] = [createSocket(type).bind(0, host), createSocket(type)];
    await once(server, "listening");
    const { port: containerPort } = server.address();
    const connected = once(client, "connect");
    client.connect(containerPort, host);
    await connected;
    const udp = (port: number) => [{ containerPort: port, protocol: "udp" }] as const;
    expect(await isAnyListening(udp(containerPort))).toBe(true);
    expect(await isAnyListening(tcp(containerPort))).toBe(false);
    expect(await isAnyListening(udp(client.address().port))).toBe(false);
    await Promise.all([server, client].map((socket) => new Promise<void>((resolve) => socket.close(() => resolve()))));
    await expect.poll(() => isAnyListening(udp(containerPort))).toBe(false);
  });

  test("is content with one table, and takes what it cannot know for listening", async () => {
    const missing = Promise.reject.bind(Promise, new Error("ENOENT")) as () => Promise<never>;
    const line = `   0: 00000000:1F90 00000000:0000 0A ${rest}`;
    const onlyIpv4 = (path: string): Promise<string> => (path.endsWith("6") ? missing() : Promise.resolve(line));
    expect(await isAnyListening(tcp(8080), onlyIpv4)).toBe(true);
    expect(await isAnyListening(tcp(8081), onlyIpv4)).toBe(false);
    expect(await isAnyListening(tcp(8080), missing)).toBe(true);
    expect(await isAnyListening([], missing)).toBe(false);
  });
});
