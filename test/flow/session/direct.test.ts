// The way to the manager without the API server. What must never be: somebody gets in who has no session of a
// port-forward, or whose right to port-forward ended more than an hour ago.
import { once } from "node:events";
import { connect } from "node:net";
import { describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import type { ManagerLink } from "#daemon/link/manager-link.ts";
import type { Session } from "#daemon/session.ts";
import { connectPinned, createIdentity, listenPinned } from "#tunnel/identity.ts";
import { openSession as openTunnel } from "#tunnel/session.ts";
import type { TransportWish } from "#wire/connect-choices.ts";
import { encodeHello } from "#wire/hello-codec.ts";
import { helloOf } from "#wire/hello.ts";
import { anything, never, tcpServer, testManager } from "#test/flow/manager/harness.ts";
import { Cluster, noNetwork, openSession, stack, type OpenNetwork } from "./session-lab.ts";

interface Made {
  readonly cluster: Cluster;
  readonly session: Session;
  readonly link: ManagerLink;
}

async function connected(
  transport: TransportWish,
  prepare: (cluster: Cluster) => void = () => undefined,
): Promise<Made> {
  const manager = stack.use(await testManager({ guard: anything }));
  const cluster = new Cluster(manager);
  cluster.direct = { places: [{ host: "127.0.0.1", port: manager.directPort }] };
  prepare(cluster);
  let link: ManagerLink | undefined;
  const openNetwork: OpenNetwork = (opened, first, scope) => {
    link = opened;
    return noNetwork(opened, first, scope);
  };
  const session = stack.use(await openSession(cluster, "ada@laptop", openNetwork, { transport }));
  if (link === undefined) throw new Error("there is a link");
  return { cluster, session, link };
}

const nameOf = async ({ session }: Made): Promise<string | undefined> => (await session.status(never)).transport?.name;

/** An echo in the cluster, through the link. */
async function echo({ link }: Made): Promise<(text: string) => Promise<void>> {
  const server = stack.use(await tcpServer((socket) => void socket.pipe(socket)));
  const target = { address: "127.0.0.1", port: server.port };
  const stream = await link.require().session.open({ kind: "tcp", target }, never);
  let heard = "";
  let said = "";
  stream.on("data", (chunk: Buffer) => (heard += chunk.toString()));
  return async (text) => {
    said += text;
    stream.write(text);
    await expect.poll(() => heard).toBe(said);
  };
}

describe("the direct way", () => {
  test("is taken behind a connection's back, left when it dies, and nothing is lost", async () => {
    const made = await connected("direct");
    const say = await echo(made);
    expect(made.session.warnings).toEqual([]);
    expect(await nameOf(made)).toBe("direct");
    expect((await made.session.status(never)).transport?.protocol).toBe(
      `TLS to 127.0.0.1:${made.cluster.manager.directPort}`,
    );
    await say("by the direct way, ");
    made.cluster.direct = undefined;
    const { ups } = made.link;
    made.link.transport?.destroy();
    await expect.poll(() => made.link.ups).toBeGreaterThan(ups);
    await say("by port-forward");
    expect(await nameOf(made)).toBe("port-forward");
    expect(made.link.changes).toEqual({ lost: 1, replaced: 1, renewed: 0 });
  });
  test("is taken while bytes flow", async () => {
    const made = await connected("auto", (cluster) => {
      const { direct } = cluster;
      let asked = 0;
      cluster.findDirect = () => Promise.resolve(asked++ === 0 ? direct : undefined);
    });
    const say = await echo(made);
    for (let count = 0; count < 50; count += 1) await say(`${count} `);
    await expect.poll(() => nameOf(made)).toBe("direct");
    await say("end");
  });
  test("is not tried where only port-forwards are wanted, and missed where it is wanted", async () => {
    let asked = 0;
    const asking = (cluster: Cluster): void => {
      cluster.findDirect = () => {
        asked += 1;
        return Promise.resolve({ places: [{ host: "127.0.0.1", port: 1 }] });
      };
    };
    expect(await nameOf(await connected("port-forward", asking))).toBe("port-forward");
    expect(asked).toBe(0);
    const made = await connected("direct", asking);
    expect(made.session.warnings).toEqual([
      expect.stringMatching(/^the link goes by port-forward, not the direct way: .*127\.0\.0\.1 port 1\b/),
    ]);
    expect((await made.session.status(never)).transport).toMatchObject({
      name: "port-forward",
      note: expect.stringContaining("direct is not taken") as string,
    });
  });
  test("is not taken from somebody with another key, who hears nothing of the session", async () => {
    const heard: Buffer[] = [];
    const impostor = stack.use(
      await listenPinned({
        identity: createIdentity("traffic-manager"),
        port: 0,
        host: "127.0.0.1",
        isTrusted: () => true,
        onConnection: (socket) => socket.on("data", (chunk: Buffer) => heard.push(chunk)),
        onStranger: () => undefined,
      }),
    );
    const made = await connected("direct", (cluster) => {
      cluster.direct = { places: [{ host: "127.0.0.1", port: impostor.port }] };
    });
    expect(made.session.warnings.join()).toMatch(/showed key [0-9a-f]{64}, expected key/);
    expect([await nameOf(made), heard]).toEqual(["port-forward", []]);
  });
  test("does not take a link that works to what is dead by then, nor one that has ended anywhere", async () => {
    const made = await connected("port-forward");
    const server = stack.use(await tcpServer((socket) => void socket.resume()));
    const dead = connect(server.port, "127.0.0.1");
    dead.destroy();
    expect(await made.link.moveTo(dead)).toBe(false);
    expect(made.link.changes).toEqual({ lost: 0, replaced: 0, renewed: 0 });
    await made.session[Symbol.asyncDispose]();
    const late = connect(server.port, "127.0.0.1");
    expect(await made.link.moveTo(late)).toBe(false);
    expect(late.destroyed).toBe(true);
  });
  test("is not taken to where the tunnel itself leads", async () => {
    const manager = stack.use(await testManager({ guard: anything }));
    const cluster = new Cluster(manager);
    cluster.direct = { places: [{ host: "127.0.0.1", port: manager.directPort }] };
    const routing = { subnets: ["127.0.0.0/8"], alsoProxy: [], neverProxy: [] };
    const openNetwork: OpenNetwork = async (...opening) => ({
      ...(await noNetwork(...opening)),
      status: () => Promise.resolve({ routing }),
    });
    const session = stack.use(await openSession(cluster, "ada@laptop", openNetwork, { transport: "direct" }));
    expect(session.warnings.join()).toContain("its addresses lead into the cluster's own ranges");
  });
});

describe("the manager's direct port", () => {
  const mine = createIdentity("laptop");
  async function admitted() {
    let greeting = "";
    const made = await connected("port-forward", (cluster) => {
      const openManager = cluster.openManager.bind(cluster);
      cluster.openManager = async () => {
        const transport = await openManager();
        transport.once("data", (chunk: Buffer) => (greeting = chunk.toString("latin1")));
        return transport;
      };
    });
    const [, sessionId = ""] = /"sessionId":"([^"]+)"/.exec(greeting) ?? [];
    await made.link.require().rpc.call("direct.admit", { fingerprint: mine.fingerprint }, never);
    const { directPort: port, fingerprint: expectedFingerprint } = made.cluster.manager;
    const dial = (): ReturnType<typeof connectPinned> =>
      connectPinned({ identity: mine, host: "127.0.0.1", port, expectedFingerprint, signal: never });
    return { ...made, dial, sessionId };
  }
  /** What it says to a HELLO before it closes. */
  async function answer(made: Awaited<ReturnType<typeof admitted>>, resume?: object): Promise<string> {
    const socket = await made.dial();
    let heard = "";
    socket.on("data", (chunk: Buffer) => (heard += chunk.toString("latin1")));
    const hello = helloOf("laptop");
    socket.write(encodeHello({ ...hello, ...(resume === undefined ? {} : { resume }) } as typeof hello));
    await once(socket, "close");
    return heard;
  }

  test("gives strangers nothing: not one without TLS, nor one whose key no session has named", async () => {
    const { cluster } = await admitted();
    const { directPort: port, fingerprint: expectedFingerprint } = cluster.manager;
    const plain = connect(port, "127.0.0.1");
    let heard = 0;
    plain.on("data", (chunk: Buffer) => (heard += chunk.length)).on("error", () => undefined);
    plain.write(encodeHello(helloOf("laptop")));
    await once(plain, "close");
    const stranger = createIdentity("stranger");
    const socket = await connectPinned({
      identity: stranger,
      host: "127.0.0.1",
      port,
      expectedFingerprint,
      signal: never,
    });
    socket.on("data", (chunk: Buffer) => (heard += chunk.length));
    await once(socket, "close");
    expect(heard).toBeLessThan(10); // a TLS alert at most
  });
  test("lets an admitted key begin no session, and go on with no other", async () => {
    const made = await admitted();
    const resume = { sessionId: "another", token: "guessed", epoch: 1, receivedSeq: 0 };
    for (const said of [await answer(made), await answer(made, resume)]) expect(said).toContain('"code":"denied"');
    expect(made.link.current).toBeDefined();
  });
  test("wants the session's own token", async () => {
    const made = await admitted();
    const { sessionId } = made;
    const said = await answer(made, { sessionId, token: "guessed", epoch: 9, receivedSeq: 0 });
    expect(said).toContain('"code":"not_found"');
    expect(made.link.current).toBeDefined();
  });
  test("knows a key no more when its session has ended", async () => {
    const made = await admitted();
    const standing = await made.dial();
    const cut = once(standing, "close");
    await made.session[Symbol.asyncDispose]();
    await cut;
    const late = await made.dial();
    await once(late, "close");
    await expect(
      openTunnel({
        transport: late,
        role: "opener",
        hello: helloOf("laptop"),
        clock: systemClock,
        log: silentLogger,
        signal: never,
      }),
    ).rejects.toMatchObject({ code: "link_lost" });
  });
  test("takes no proof by itself: a session is proved through a port-forward", async () => {
    const made = await connected("direct");
    const asking = made.link.require().rpc.call("direct.admit", { fingerprint: mine.fingerprint }, never);
    await expect(asking).rejects.toMatchObject({ code: "denied", message: /through a port-forward only/ });
  });
});
