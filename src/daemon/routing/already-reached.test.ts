// A laptop that is in the cluster's network already: only what proves to be the cluster counts, and nobody waits long.
import { createServer, type Server } from "node:net";
import type { AddressInfo } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { createIdentity, listenPinned, type PinnedListener } from "#tunnel/identity.ts";
import { findReached, keepsOwnWay, reachMs, type Reached, type ReachedQuestion } from "./already-reached.ts";

const { signal } = new AbortController();
const manager = createIdentity("traffic-manager");
let listener: PinnedListener;
let servers: Server[];
let clock: FakeClock;

beforeEach(async () => {
  servers = [];
  clock = new FakeClock();
  listener = await listenPinned({
    identity: manager,
    port: 0,
    host: "127.0.0.1",
    isTrusted: () => false,
    onConnection: () => undefined,
    onStranger: () => undefined,
  });
});
afterEach(async () => {
  await listener.close();
  for (const server of servers) server.close();
});

async function listen(server: Server): Promise<number> {
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}
function find(change: Partial<ReachedQuestion> = {}): Promise<Reached> {
  const api = { host: undefined, port: 443, ca: undefined };
  const who = { podIps: ["127.0.0.1"], fingerprint: manager.fingerprint };
  return findReached({ manager: who, managerPort: listener.port, api, clock, ...change }, signal);
}

describe("the pods", () => {
  test("are reached when the manager's pod proves its key", async () => {
    expect(await find()).toEqual({ pods: true, services: false });
  });
  test("are not reached when somebody else answers there", async () => {
    const stranger = { podIps: ["127.0.0.1"], fingerprint: "0".repeat(64) };
    expect((await find({ manager: stranger })).pods).toBe(false);
    const plain = await listen(createServer((socket) => socket.end("HTTP/1.1 200 OK\r\n\r\n")));
    expect((await find({ managerPort: plain })).pods).toBe(false);
  });
  test("are not reached when nobody answers, which is known soon", async () => {
    const silent = await listen(createServer(() => undefined));
    const finding = find({ managerPort: silent });
    await clock.advance(reachMs);
    expect((await finding).pods).toBe(false);
    expect(clock.pending).toBe(0);
  });
});

describe("the services", () => {
  test("are reached when the API server's own address shows its certificate, and not without an authority", async () => {
    const name = "kubernetes.default.svc";
    const identity = createIdentity(name);
    const port = await listen(createTlsServer({ key: identity.privateKeyPem, cert: identity.certificatePem }));
    const api = { host: "127.0.0.1", port, ca: undefined };
    expect((await find({ api })).services).toBe(false);
    const other = createIdentity(name).certificatePem;
    expect((await find({ api: { ...api, ca: { pem: other } } })).services).toBe(false);
    expect((await find({ api: { ...api, ca: { file: "/nonexistent/ca.crt" } } })).services).toBe(false);
  });
});

// On a node or in a pod --via was said to hold, and connections went this machine's own way.
test("counts for a device alone, and never where connections are to leave from a workload's pod", () => {
  expect(keepsOwnWay({})).toBe(true);
  expect(keepsOwnWay({ via: { name: "web" } })).toBe(false);
  expect(keepsOwnWay({ rootless: {} })).toBe(false);
});
