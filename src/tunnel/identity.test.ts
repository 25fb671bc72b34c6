import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { connect as connectPlain } from "node:net";
import type { Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { TLSSocket } from "node:tls";
import { describe, expect, test } from "vitest";
import { isAppError } from "#base/error.ts";
import { connectPinned, createIdentity, listenPinned } from "./identity.ts";
import type { Identity, ListenPinnedOptions, PinnedListener, Stranger } from "./identity.ts";

const live = new AbortController().signal;
const host = "127.0.0.1";
const manager = createIdentity("manager");
const agent = createIdentity("agent");

interface Door extends AsyncDisposable {
  readonly listener: PinnedListener;
  readonly connected: Promise<TLSSocket>;
  readonly stranger: Promise<Stranger>;
}

async function openDoor(options: Partial<ListenPinnedOptions> = {}): Promise<Door> {
  const connected = Promise.withResolvers<TLSSocket>();
  const stranger = Promise.withResolvers<Stranger>();
  const listener = await listenPinned({
    identity: manager,
    port: 0,
    host,
    isTrusted: (fingerprint) => fingerprint === agent.fingerprint,
    onConnection: connected.resolve,
    onStranger: stranger.resolve,
    ...options,
  });
  return {
    listener,
    connected: connected.promise,
    stranger: stranger.promise,
    [Symbol.asyncDispose]: () => listener.close(),
  };
}

function dial(listener: PinnedListener, identity: Identity, expected: Identity): Promise<TLSSocket> {
  const { port } = listener;
  return connectPinned({ identity, host, port, expectedFingerprint: expected.fingerprint, signal: live });
}

/** Not `once`, which an 'error' before it rejects. */
function closed(socket: Socket): Promise<void> {
  socket.on("error", () => undefined);
  return new Promise((resolve) => (socket.closed ? resolve() : socket.once("close", () => resolve())));
}

describe("createIdentity()", () => {
  test("makes a certificate that Node reads, signed by its own key and valid for ever", () => {
    const certificate = new X509Certificate(manager.certificatePem);
    expect(certificate.subject).toBe("CN=manager");
    expect(certificate.verify(certificate.publicKey)).toBe(true);
    expect(new Date(certificate.validFrom).getTime()).toBe(0);
    expect(new Date(certificate.validTo).getUTCFullYear()).toBe(9999);
    expect(manager.fingerprint).toMatch(/^[0-9a-f]{64}$/);
    expect(agent.fingerprint).not.toBe(manager.fingerprint);
  });
});

describe("pinned TLS", () => {
  test("connects two ends that know each other's key", async () => {
    await using door = await openDoor();
    const socket = await dial(door.listener, agent, manager);
    const far = await door.connected;
    expect(socket.getProtocol()).toBe("TLSv1.3");
    socket.write("hello");
    expect(String((await once(far, "data"))[0])).toBe("hello");
    far.end();
    socket.resume().end();
    await once(socket, "close");
  });

  test("turns away a key that is not trusted, naming it", async () => {
    await using door = await openDoor();
    const other = createIdentity("agent"); // same name: the key alone counts
    const socket = await dial(door.listener, other, manager);
    socket.on("data", () => expect.unreachable("a stranger got bytes"));
    expect(await door.stranger).toMatchObject({ fingerprint: other.fingerprint, reason: "its key is not trusted" });
    await closed(socket);
  });

  test("refuses to talk to another key than the expected one", async () => {
    await using door = await openDoor();
    await expect(dial(door.listener, agent, agent)).rejects.toMatchObject({ code: "denied" });
  });

  test("turns away an end without a key", async () => {
    await using door = await openDoor();
    const socket = connectTls({ host, port: door.listener.port, rejectUnauthorized: false });
    socket.on("error", () => undefined);
    expect(await door.stranger).toMatchObject({ fingerprint: undefined, reason: "it showed no key" });
    await closed(socket);
  });

  test("turns away TLS 1.2", async () => {
    await using door = await openDoor();
    const socket = connectTls({ host, port: door.listener.port, rejectUnauthorized: false, maxVersion: "TLSv1.2" });
    socket.on("error", () => undefined);
    expect((await door.stranger).reason).toMatch(/protocol/i);
    await closed(socket);
  });

  test("closes on plain HTTP without an HTTP answer", async () => {
    await using door = await openDoor();
    const socket = connectPlain({ host, port: door.listener.port });
    const got: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => got.push(chunk)).on("error", () => undefined);
    socket.write("GET / HTTP/1.1\r\nHost: manager\r\n\r\n");
    await door.stranger;
    await closed(socket);
    expect(Buffer.concat(got).toString("latin1")).not.toContain("HTTP");
  });

  test("ends the oldest unfinished handshake when there are too many, and still takes a friend", async () => {
    await using door = await openDoor({ maxHandshakes: 2 });
    const idle = [1, 2, 3].map(() => connectPlain({ host, port: door.listener.port }));
    const ended = Promise.race(idle.map(closed));
    const socket = await dial(door.listener, agent, manager);
    expect(await ended).toBeUndefined();
    (await door.connected).destroy();
    socket.destroy();
    for (const one of idle) one.destroy();
  });

  test("says refused when nobody listens, and gives up with its signal", async () => {
    const door = await openDoor();
    await door.listener.close();
    const { port } = door.listener;
    const refused = dial(door.listener, agent, manager);
    await expect(refused).rejects.toSatisfy((error: unknown) => isAppError(error, "refused"));
    const controller = new AbortController();
    const options = { identity: agent, host, port, expectedFingerprint: manager.fingerprint };
    const given = connectPinned({ ...options, signal: controller.signal });
    controller.abort(new Error("enough"));
    await expect(given).rejects.toThrow("enough");
  });
});
