// Filters on a port whose callers speak TLS. Stories of the original: a filter on such a port took nothing and said
// nothing; a certificate that was renewed was not read again ("bad certificate", trap 47).
import { connect as connectTcp } from "node:net";
import type { AddressInfo } from "node:net";
import { connect as connectTls, createServer as createTlsServer } from "node:tls";
import { once } from "node:events";
import { renameSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { Duplex } from "node:stream";
import { afterEach, describe, expect, test } from "vitest";
import { createIdentity } from "#tunnel/identity.ts";
import type { InterceptInfo, InterceptSpec } from "#wire/manager-api.ts";
import type { TlsOptions } from "node:tls";
import { roundsOf } from "#base/rounds.fake.ts";
import { TestLaptop, ask, namedServer, testAgent, testManager } from "./harness.ts";
import { httpServer } from "./http-ends.ts";
import { http2Server } from "./http2-ends.ts";
import { SecretVolume, TlsCaller, secureServer } from "./tls-ends.ts";
import type { TlsAsked, Version } from "./tls-ends.ts";

const stack: AsyncDisposableStack[] = [];
afterEach(async () => {
  for (const disposables of stack.splice(0)) await disposables.disposeAsync();
});

const filter = 'request.headers["x-user"] == "ann"';
const matched: TlsAsked = { headers: { "x-user": "ann" } };
const unmatched: TlsAsked = {};
const own = createIdentity("app");
const ofLaptop = createIdentity("laptop");

interface Setup {
  readonly app?: TlsOptions;
  /** What the pod mounts; its application's certificate when left out. */
  readonly mounted?: typeof own | "nothing";
  readonly tls?: boolean;
  readonly version?: Version;
}

/** A pod whose application speaks TLS, and Ann's laptop, which has not intercepted yet. */
async function shop({ app: options, mounted = own, tls, version = "http1" }: Setup = {}) {
  const disposables = new AsyncDisposableStack();
  stack.push(disposables);
  const manager = disposables.use(await testManager());
  const app = disposables.use(await secureServer("app", own, options));
  const process = disposables.use(await secureServer("laptop", ofLaptop));
  const volume = mounted === "nothing" ? undefined : disposables.use(new SecretVolume("web-tls", mounted));
  const certificateVolumes = volume === undefined ? [] : [volume];
  const laptop = disposables.use(await TestLaptop.connect(manager));
  const agent = disposables.use(await testAgent({ containerPort: app.port, certificateVolumes, tls }));
  await laptop.introduce(manager, agent);
  laptop.serveWith(process.port);
  const port = agent.agentPorts[0]!;
  const caller = disposables.use(new TlsCaller(version, port));
  const intercept = (more: Partial<InterceptSpec> = {}): Promise<InterceptInfo> =>
    laptop.intercept("hello", app.port, "tcp", { filter, ...more });
  const unread = async (): Promise<InterceptInfo["unreadConnections"]> => {
    await laptop.until(([info]) => info?.unreadConnections !== undefined);
    return laptop.intercepts[0]?.unreadConnections;
  };
  return { disposables, manager, app, process, volume, laptop, agent, port, caller, intercept, unread };
}

async function whoAnswers(caller: TlsCaller, asked: TlsAsked): Promise<string> {
  const { status, body } = await caller.ask(asked);
  expect(status).toBe(200);
  return body.split(" ")[0]!;
}

describe.each(["http1", "http2"] as const)("a filter on TLS with %s inside", (version) => {
  const alpn = version === "http1" ? "http/1.1" : "h2";

  test("takes what matches, leaves the rest, and everything once its laptop is gone", async () => {
    const { caller, intercept, app, process, laptop } = await shop({ version });
    expect((await intercept()).state).toBe("active");
    for (let round = 0; round < 5; round += 1) {
      expect(await whoAnswers(caller, unmatched)).toBe("app");
      expect(await whoAnswers(caller, matched)).toBe("laptop");
    }
    // As without us: the application's key, the name and the protocol that the caller wanted, at both.
    expect(caller.shown).toBe(own.fingerprint);
    expect(caller.connections).toBe(1);
    expect(new Set([...app.seen, ...process.seen])).toEqual(new Set([`shop.example ${alpn} GET /`]));
    expect(process.seen).toHaveLength(5);
    laptop.transport.destroy();
    await laptop.session.closed;
    expect(await whoAnswers(caller, matched)).toBe("app");
    expect(caller.connections).toBe(1);
  });

  test("gives a process that wants it plain HTTP", async () => {
    const { caller, intercept, laptop, disposables } = await shop({ version });
    const plain = disposables.use(await (version === "http1" ? httpServer("plain") : http2Server("plain")));
    laptop.serveWith(plain.port);
    await intercept({ tls: { plaintext: true } });
    expect(await whoAnswers(caller, matched)).toBe("plain");
    expect(await whoAnswers(caller, unmatched)).toBe("app");
    expect(plain.seen).toEqual(["GET /"]);
  });

  test("leaves to the application what a process without TLS does not take", async () => {
    const { caller, intercept, laptop, unread, disposables } = await shop({ version });
    const plain = disposables.use(await httpServer("plain"));
    laptop.serveWith(plain.port);
    await intercept();
    expect(await whoAnswers(caller, matched)).toBe("app");
    expect(await unread()).toMatchObject({
      tls: 1,
      reason: expect.stringContaining("--plaintext sends it plain HTTP"),
    });
  });

  test("loses no request when it comes and goes, nor when the certificate is renewed meanwhile", async () => {
    const { intercept, laptop, volume, app, port, disposables } = await shop({ version });
    const renewed = createIdentity("renewed");
    const over = new AbortController();
    const answered = { app: 0, laptop: 0 };
    const shown = new Set<string | undefined>();
    const load = Array.from({ length: 4 }, async (_, index) => {
      for (let count = 0; !over.signal.aborted; count += 1) {
        using caller = new TlsCaller(version, port);
        for (let request = 0; request < 5; request += 1) {
          const who = await whoAnswers(caller, { ...matched, path: `/${index}/${count}` });
          answered[who as "app" | "laptop"] += 1;
        }
        shown.add(caller.shown);
      }
    });
    disposables.defer(() => over.abort());
    for (let cycle = 0; cycle < 3; cycle += 1) {
      const { id } = await intercept();
      const before = answered.laptop;
      while (answered.laptop < before + roundsOf(10, 40)) await new Promise((resolve) => setTimeout(resolve, 5));
      if (cycle === 1) {
        volume!.swap(renewed);
        app.server.setSecureContext({ cert: renewed.certificatePem, key: renewed.privateKeyPem });
        while (!shown.has(renewed.fingerprint)) await new Promise((resolve) => setTimeout(resolve, 5));
      }
      await laptop.remove(id);
    }
    over.abort();
    await Promise.all(load); // rejects with the first request that failed
    expect(shown).toEqual(new Set([own.fingerprint, renewed.fingerprint]));
  }, 30_000);
});

describe("what a filter cannot read goes to the application as it is, and is told", () => {
  test("a caller of whom the application asks a certificate", async () => {
    const ann = createIdentity("ann");
    const { port, intercept, unread, app, laptop } = await shop({
      app: { requestCert: true, rejectUnauthorized: false },
    });
    await intercept();
    const sockets = await Promise.all(
      [1, 2].map(async () => {
        const options = { port, host: "127.0.0.1", servername: "shop.example", rejectUnauthorized: false };
        const socket = connectTls({ ...options, cert: ann.certificatePem, key: ann.privateKeyPem });
        await once(socket, "secureConnect");
        return socket;
      }),
    );
    const [socket] = sockets;
    socket!.write("GET /who HTTP/1.1\r\nHost: a\r\nX-User: ann\r\nConnection: close\r\n\r\n");
    expect(String(await once(socket!, "data"))).toContain("200 OK");
    for (const each of sockets) each.destroy();
    expect(app.seen).toEqual(["shop.example false GET /who"]);
    expect(laptop.arrived).toBe(0);
    expect(await unread()).toMatchObject({
      tls: 2,
      other: 0,
      reason: expect.stringMatching(/asks its callers for a certificate/),
    });
  });

  test("an application whose key is in none of the pod's volumes", async () => {
    const { caller, intercept, unread } = await shop({ mounted: createIdentity("another") });
    await intercept();
    expect(await whoAnswers(caller, matched)).toBe("app");
    expect(caller.shown).toBe(own.fingerprint);
    expect(await unread()).toMatchObject({
      tls: 1,
      reason: expect.stringMatching(/key .* in none of the pod's volumes/),
    });
  });

  test("a pod that mounts no certificate", async () => {
    const { caller, intercept, unread, app } = await shop({ mounted: "nothing" });
    await intercept();
    expect(await whoAnswers(caller, matched)).toBe("app");
    expect(app.sockets.size).toBe(1);
    expect(await unread()).toMatchObject({ tls: 1, reason: expect.stringMatching(/mounts no Secret .*--tls-cert/) });
  });

  test("protocols that hold no requests, by ALPN", async () => {
    const { manager, laptop, disposables } = await shop();
    const app = createTlsServer({ cert: own.certificatePem, key: own.privateKeyPem, ALPNProtocols: ["custom/1"] });
    app.listen(0, "127.0.0.1");
    await once(app, "listening");
    disposables.defer(() => void app.close());
    const { port: containerPort } = app.address() as AddressInfo;
    const agent = disposables.use(await testAgent({ containerPort, number: 2 }));
    await laptop.introduce(manager, agent, 2);
    await laptop.intercept("hello", containerPort, "tcp", { filter });
    const target = { port: agent.agentPorts[0]!, host: "127.0.0.1" };
    const socket = connectTls({ ...target, rejectUnauthorized: false, ALPNProtocols: ["custom/1"] });
    await once(socket, "secureConnect");
    expect(socket.alpnProtocol).toBe("custom/1");
    socket.destroy();
    await laptop.until(([info]) => info?.unreadConnections !== undefined);
    const { unreadConnections } = laptop.intercepts[0]!;
    expect(unreadConnections).toMatchObject({ tls: 1, reason: expect.stringContaining("speaks custom/1") });
  });

  test("callers that speak no HTTP at all; one that says nothing does not count", async () => {
    const disposables = new AsyncDisposableStack();
    stack.push(disposables);
    const manager = disposables.use(await testManager());
    const app = disposables.use(await namedServer("app"));
    const agent = disposables.use(await testAgent({ containerPort: app.port }));
    const laptop = disposables.use(await TestLaptop.connect(manager));
    await laptop.introduce(manager, agent);
    await laptop.intercept("hello", app.port, "tcp", { filter });
    expect(await ask(agent.agentPorts[0]!, "")).toBe("app:");
    expect(await ask(agent.agentPorts[0]!, "anything")).toBe("app:anything");
    await laptop.until(([info]) => info?.unreadConnections !== undefined);
    expect(laptop.intercepts[0]?.unreadConnections).toEqual({ tls: 0, other: 1 });
  });
});

describe("an intercept", () => {
  test("without a filter takes TLS as it is, end to end", async () => {
    const { caller, intercept, process, laptop, app } = await shop({ version: "http2" });
    await laptop.intercept("hello", app.port);
    expect(await whoAnswers(caller, matched)).toBe("laptop");
    expect(caller.shown).toBe(ofLaptop.fingerprint);
    expect(process.seen).toEqual(["shop.example h2 GET /"]);
    expect(intercept).toBeDefined();
  });

  test("with a filter is refused on a port that speaks TLS by its service's word where nothing can read it", async () => {
    const { intercept, app } = await shop({ mounted: "nothing", tls: true });
    const info = await intercept();
    expect(info).toMatchObject({
      state: "error",
      message: expect.stringMatching(
        new RegExp(`^port ${app.port} speaks TLS, which a filter cannot read: the pod mounts no Secret .*--tls-cert`),
      ),
    });
  });

  test("that names a certificate is refused with what is wrong with it, and the application keeps its traffic", async () => {
    const { intercept, caller } = await shop();
    const info = await intercept({ tls: { certificate: { volume: "web-tls-secret", keyFile: "other.key" } } });
    expect(info).toMatchObject({ state: "error", message: expect.stringContaining("other.key of volume web-tls") });
    expect(await whoAnswers(caller, matched)).toBe("app");
  });

  test("that named a certificate may end: a connection that it began to read goes on with the application", async () => {
    const { intercept, caller, app, laptop, volume } = await shop();
    renameSync(join(volume!.path, "tls.key"), join(volume!.path, "web.key"));
    symlinkSync("..data/tls.key", join(volume!.path, "tls-web.key"));
    const certificate = { volume: "web-tls", keyFile: "tls-web.key" };
    const { id } = await intercept({ tls: { certificate } });
    expect(await whoAnswers(caller, matched)).toBe("laptop");
    for (const socket of app.sockets) socket.destroy();
    await laptop.remove(id);
    expect(await whoAnswers(caller, matched)).toBe("app");
    expect([caller.connections, caller.shown]).toEqual([1, own.fingerprint]);
  });

  test("answers what matches although the application is down", async () => {
    const { intercept, caller, app } = await shop({ tls: true });
    await intercept();
    await app[Symbol.asyncDispose]();
    expect(await whoAnswers(caller, matched)).toBe("laptop");
    expect(caller.shown).toBe(own.fingerprint);
  });
});

describe("handshakes that are never finished", () => {
  const open = async (port: number, count: number, bytes: Buffer): Promise<Disposable> => {
    const sockets = Array.from({ length: count }, () => connectTcp({ port, host: "127.0.0.1" }));
    for (const socket of sockets) socket.on("error", () => undefined).write(bytes);
    await Promise.all(sockets.map((socket) => once(socket, "connect")));
    return { [Symbol.dispose]: () => sockets.forEach((socket) => socket.destroy()) };
  };

  test("hold nobody up while their first message is not whole", async () => {
    const { port, intercept, caller } = await shop();
    await intercept();
    using _halves = await open(port, 300, Buffer.from([22, 3, 1, 1, 0, 1, 0, 0]));
    expect(await whoAnswers(caller, matched)).toBe("laptop");
  });

  test("are bounded: others are left to the application as they are, and that is told", async () => {
    const { port, intercept, caller, unread } = await shop();
    await intercept();
    const hello = Promise.withResolvers<Buffer>();
    const wire = new Duplex({ read: () => undefined, write: (chunk: Buffer) => hello.resolve(chunk) });
    const speaker = connectTls({ socket: wire, servername: "shop.example", ALPNProtocols: ["http/1.1"] });
    speaker.on("error", () => undefined);
    using _handshakes = await open(port, 300, await hello.promise);
    speaker.destroy();
    expect(await unread()).toMatchObject({ reason: expect.stringContaining("amid their TLS handshakes") });
    expect(await whoAnswers(caller, matched)).toBe("app");
    expect(caller.shown).toBe(own.fingerprint);
  });
});
