// Traps 36 (a refused connection hung), 38 (a second connection from the same port was taken for the first): what the
// program's kernel sees of each case, packet by packet. The listener's kernel is played by the test.
import { PassThrough, type Duplex } from "node:stream";
import { describe, expect, test } from "vitest";
import { AppError, type ErrorCode } from "#base/error.ts";
import { PacketView, protocols } from "#packet/packet-view.ts";
import { checksumsHold, tcpPacket, type TestEnds, type TestSegment } from "#packet/packet.fake.ts";
import { acknowledgementOf, flagsOf, sequenceOf, tcpFlags } from "#packet/tcp.ts";
import { formatAddress } from "#packet/address.ts";
import { parseFamily, type OutboundFamily } from "./addresses.ts";
import { DeviceWriter } from "./device-writer.ts";
import { createStats } from "./stats.ts";
import { maxTcpFlows, TcpRedirect } from "./tcp-redirect.ts";

const { syn, ack, rst, fin } = tcpFlags;
const listenPort = 5555;
const families: Record<"v4" | "v6", OutboundFamily & { readonly target: string }> = {
  v4: { address: "246.246.0.1", peer: "246.246.0.2", probe: "246.246.0.3", target: "10.96.0.10" },
  v6: { address: "fd00:246::1", peer: "fd00:246::2", probe: "fd00:246::3", target: "fd00:96::a" },
};

interface Seen {
  readonly from: string;
  readonly to: string;
  readonly flags: number;
  readonly sequence: number;
  readonly acknowledgement: number;
  readonly protocol: number;
}

function setUp(family: "v4" | "v6") {
  const own = families[family];
  const written: Uint8Array[] = [];
  const opens: {
    readonly target: string;
    readonly signal: AbortSignal;
    accept(): Duplex;
    reject(code: ErrorCode): void;
  }[] = [];
  const stats = createStats();
  const device = { taking: Infinity };
  const writer = new DeviceWriter(
    {
      onPacket: () => undefined,
      write: (packet) => written.length < device.taking && written.push(packet.slice()) > 0,
    },
    stats,
  );
  const redirect = new TcpRedirect({
    own: parseFamily(family === "v4" ? 4 : 6, own),
    writer,
    stats,
    report: () => undefined,
    open: (target, signal) =>
      new Promise<Duplex>((resolve, reject) => {
        opens.push({
          target: `${target.address}:${target.port}`,
          signal,
          accept: () => {
            const stream = new PassThrough();
            resolve(stream);
            return stream;
          },
          reject: (code) => reject(new AppError(code, "no")),
        });
        signal.addEventListener("abort", () => reject(signal.reason as Error));
      }),
  });
  redirect.setListenPort(listenPort);
  const view = new PacketView();
  const send = (
    segment: Omit<TestSegment, "source" | "destination" | "sourcePort" | "destinationPort"> & Partial<TestSegment>,
  ) => {
    const packet = tcpPacket({
      source: own.address,
      sourcePort: 40_000,
      destination: own.target,
      destinationPort: 80,
      ...segment,
    });
    if (view.load(packet) !== undefined) throw new Error("the test made a malformed packet");
    redirect.handle(view);
  };
  /** What went to the laptop's kernel since the last call. */
  const take = (): Seen[] => written.splice(0).map(describePacket);
  const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  const program = `${own.address}:40000`;
  const target = `${own.target}:80`;
  return { own, redirect, opens, device, stats, send, take, settle, program, target };
}

function describePacket(packet: Uint8Array): Seen {
  const view = new PacketView();
  expect(view.load(packet)).toBeUndefined();
  expect(checksumsHold(packet)).toBe(true);
  const isTcp = view.protocol === protocols.tcp;
  return {
    from: `${formatAddress(view.source())}:${view.sourcePort}`,
    to: `${formatAddress(view.destination())}:${view.destinationPort}`,
    flags: isTcp ? flagsOf(view) : -1,
    sequence: isTcp ? sequenceOf(view) : -1,
    acknowledgement: isTcp ? acknowledgementOf(view) : -1,
    protocol: view.protocol,
  };
}

const portOf = (end: string | undefined): number => Number(end?.slice(end.lastIndexOf(":") + 1));

describe.each(["v4", "v6"] as const)("TcpRedirect on %s", (family) => {
  /** A connection that the listener has taken. */
  async function connected() {
    const setup = setUp(family);
    setup.send({ flags: syn, sequence: 100 });
    const stream = setup.opens[0]!.accept();
    await setup.settle();
    const natPort = portOf(setup.take()[0]?.from);
    const flow = setup.redirect.claim(setup.own.peer, natPort)!;
    const listen = (segment: Omit<TestSegment, keyof TestEnds>): void =>
      setup.send({
        source: setup.own.address,
        sourcePort: listenPort,
        destination: setup.own.peer,
        destinationPort: natPort,
        ...segment,
      });
    const close = (): Seen[] => {
      setup.take();
      expect(setup.redirect.resetPrograms(maxTcpFlows)).toBe(0);
      return setup.take();
    };
    return { ...setup, stream, natPort, flow, listen, close };
  }

  test("holds the SYN until the far end accepted, then hands it to the listener and swaps addresses both ways", async () => {
    const { own, redirect, opens, send, take, settle, program, target } = setUp(family);
    send({ flags: syn, sequence: 100 });
    send({ flags: syn, sequence: 100 });
    expect(take()).toEqual([]);
    expect(opens.map((open) => open.target)).toEqual([target]);
    opens[0]!.accept();
    await settle();
    const [released, ...more] = take();
    expect(more).toEqual([]);
    expect(released).toMatchObject({ to: `${own.address}:${listenPort}`, flags: syn, sequence: 100 });
    const natPort = portOf(released?.from);
    expect(released?.from).toBe(`${own.peer}:${natPort}`);
    send({
      source: own.address,
      sourcePort: listenPort,
      destination: own.peer,
      destinationPort: natPort,
      flags: syn | ack,
      sequence: 7,
    });
    expect(take()).toMatchObject([{ from: target, to: program, flags: syn | ack, sequence: 7 }]);
    send({ flags: ack, sequence: 101, payload: Uint8Array.of(1, 2, 3) });
    expect(take()).toMatchObject([
      { from: `${own.peer}:${natPort}`, to: `${own.address}:${listenPort}`, sequence: 101 },
    ]);
    expect(redirect.claim(own.peer, natPort)?.stream).toBeDefined();
    expect(redirect.claim(own.peer, natPort)).toBeUndefined();
  });

  test.each([
    ["refused", "reset"],
    ["peer_reset", "reset"],
    ["unreachable", "icmp"],
    ["denied", "icmp"],
    ["link_lost", "icmp"],
    ["timeout", "silence"],
    ["busy", "silence"],
  ] as const)("answers %s with %s", async (code, answer) => {
    const { opens, send, take, settle, program, target, redirect } = setUp(family);
    send({ flags: syn, sequence: 100 });
    opens[0]!.reject(code);
    await settle();
    const seen = take();
    const icmp = family === "v4" ? protocols.icmp : protocols.icmpv6;
    const expected = {
      reset: [{ from: target, to: program, flags: rst | ack, protocol: protocols.tcp }],
      icmp: [{ protocol: icmp }],
      silence: [],
    }[answer];
    expect(seen).toMatchObject(expected);
    expect(redirect.flowCount).toBe(0);
  });

  test("after a silent end the next SYN asks again", async () => {
    const { opens, send, settle } = setUp(family);
    send({ flags: syn, sequence: 100 });
    opens[0]!.reject("timeout");
    await settle();
    send({ flags: syn, sequence: 100 });
    expect(opens).toHaveLength(2);
  });

  test("a new SYN from the same port while held takes the place of the first", async () => {
    const { opens, send, take, settle } = setUp(family);
    send({ flags: syn, sequence: 100 });
    send({ flags: syn, sequence: 900 });
    expect(opens).toHaveLength(1);
    opens[0]!.accept();
    await settle();
    expect(take()).toMatchObject([{ flags: syn, sequence: 900 }]);
  });

  test("a new SYN from the same port on a connection cuts that and starts anew", async () => {
    const { opens, send, take, settle, stream, natPort } = await connected();
    send({ flags: syn, sequence: 5_000_000 });
    expect(stream.destroyed).toBe(true);
    expect(opens).toHaveLength(2);
    opens[1]!.accept();
    await settle();
    const [released] = take();
    expect(released).toMatchObject({ flags: syn, sequence: 5_000_000 });
    expect(portOf(released?.from)).not.toBe(natPort);
  });

  test("a segment of a connection that nobody knows is reset, a reset of one is not answered", () => {
    const { own, send, take, program, target } = setUp(family);
    send({ flags: ack, acknowledgement: 77 });
    expect(take()).toMatchObject([{ from: target, to: program, flags: rst, sequence: 77 }]);
    send({ flags: rst });
    send({ source: own.address, sourcePort: listenPort, destination: own.peer, destinationPort: 2000, flags: ack });
    expect(take()).toMatchObject([{ from: `${own.peer}:2000`, to: `${own.address}:${listenPort}`, flags: rst }]);
  });

  test("claims only what it released, from the peer's address", async () => {
    const { own, redirect, opens, send, take, settle } = setUp(family);
    send({ flags: syn });
    expect(redirect.claim(own.peer, 1024)).toBeUndefined();
    opens[0]!.accept();
    await settle();
    const natPort = portOf(take()[0]?.from);
    expect(redirect.claim(own.address, natPort)).toBeUndefined();
    expect(redirect.claim(own.peer, natPort + 1)).toBeUndefined();
    expect(redirect.claim(undefined, undefined)).toBeUndefined();
    expect(redirect.claim(own.peer, natPort)).toBeDefined();
  });

  test("keeps the mapping while bytes may be under way, and forgets it after both FINs or a reset", async () => {
    const { own, redirect, send, flow, natPort } = await connected();
    const fromListener = {
      source: own.address,
      sourcePort: listenPort,
      destination: own.peer,
      destinationPort: natPort,
    };
    const pass = (seconds: number): void => {
      for (let count = 0; count < seconds; count++) redirect.tick();
    };
    pass(7200);
    expect(redirect.flowCount).toBe(1);
    redirect.ended(flow, true);
    send({ flags: fin | ack });
    pass(200);
    expect(redirect.flowCount).toBe(1);
    send({ ...fromListener, flags: fin | ack });
    pass(10);
    expect(redirect.flowCount).toBe(1);
    pass(1);
    expect(redirect.flowCount).toBe(0);
  });

  test("a released SYN that the listener never sees is given up and counted", async () => {
    const { redirect, opens, send, settle, stats } = setUp(family);
    send({ flags: syn });
    const stream = opens[0]!.accept();
    await settle();
    for (let second = 0; second <= 10; second++) redirect.tick();
    expect([redirect.flowCount, stats.tcpNotAccepted, stream.destroyed]).toEqual([0, 1, true]);
  });

  test("a far end that answers after the program's connection is gone is told so", async () => {
    const { redirect, opens, send, settle, take } = setUp(family);
    send({ flags: syn });
    expect([redirect.resetPrograms(maxTcpFlows), redirect.cut(maxTcpFlows)]).toEqual([0, 0]);
    expect(opens[0]!.signal.aborted).toBe(true);
    const stream = opens[0]!.accept();
    await settle();
    expect(take()).toMatchObject([{ flags: rst | ack }]);
    expect(stream.destroyed || redirect.flowCount === 0).toBe(true);
    send({ flags: syn });
    expect(take()).toMatchObject([{ flags: rst | ack }]);
  });

  test("the table has a bound, and connections that are over make room", { timeout: 60_000 }, async () => {
    const { redirect, send, stats, flow, own, natPort } = await connected();
    for (let port = 1; port < maxTcpFlows; port++) send({ flags: syn, sourcePort: 1024 + port, destinationPort: 443 });
    expect(redirect.flowCount).toBe(maxTcpFlows);
    send({ flags: syn, sourcePort: 30_000, destinationPort: 444 });
    expect([redirect.flowCount, stats.tcpTableFull]).toEqual([maxTcpFlows, 1]);
    send({ source: own.address, sourcePort: listenPort, destination: own.peer, destinationPort: natPort, flags: rst });
    redirect.ended(flow, true);
    send({ flags: syn, sourcePort: 30_000, destinationPort: 444 });
    expect([redirect.flowCount, stats.tcpTableFull, stats.tcpHeld]).toEqual([maxTcpFlows, 1, maxTcpFlows + 1]);
  });

  test("programs of a lost session that were told have room at once in a full table, and all after 2 s", async () => {
    const { redirect, opens, own, send, stats, take, settle } = setUp(family);
    const program = (index: number) => ({ sourcePort: 10_000 + index });
    for (let index = 0; index < maxTcpFlows; index++) send({ flags: syn, sequence: 100, ...program(index) });
    for (const { accept } of opens) accept();
    await settle();
    const flows = take().map(({ from }) => redirect.claim(own.peer, portOf(from))!);
    const toPeer = { source: own.address, sourcePort: listenPort, destination: own.peer };
    for (const flow of flows) {
      redirect.ended(flow, false);
      // the kernel's own reset: every other one finds room in the device's queue
      if (flow.natPort % 2 === 0) send({ ...toPeer, destinationPort: flow.natPort, flags: rst | ack });
    }
    for (const flow of flows.filter(({ wasReset }) => wasReset)) send({ flags: syn, sourcePort: flow.program.port });
    expect([stats.tcpHeld, stats.tcpTableFull]).toEqual([maxTcpFlows * 1.5, 0]);
    take();
    redirect.tick();
    redirect.tick();
    expect(take().filter(({ flags }) => flags === (rst | ack))).toHaveLength(maxTcpFlows / 2);
    for (const flow of flows.filter(({ wasReset }) => !wasReset)) send({ flags: syn, sourcePort: flow.program.port });
    expect([stats.tcpHeld, stats.tcpTableFull]).toEqual([maxTcpFlows * 2, 0]);
  });

  describe("a local connection that has ended", () => {
    async function ended(inOrder: boolean) {
      const setup = await connected();
      setup.listen({ flags: syn | ack, sequence: 7, acknowledgement: 101 });
      setup.redirect.ended(setup.flow, inOrder);
      setup.take();
      const pass = (seconds: number): Seen[] => {
        for (let count = 0; count < seconds; count++) setup.redirect.tick();
        return setup.take();
      };
      return { ...setup, pass };
    }

    test("in order is let be", async () => {
      const { pass, redirect } = await ended(true);
      expect([pass(200), redirect.flowCount]).toEqual([[], 1]);
    });

    // Story: a reset that was written at once overtook the answer before it, of 50 connections in all 50.
    test("otherwise is reset behind the bytes that were on their way, once", async () => {
      const { listen, pass, take, program, redirect } = await ended(false);
      expect(take()).toEqual([]);
      listen({ flags: ack, sequence: 8, acknowledgement: 101, payload: new Uint8Array(10) });
      expect(take()).toMatchObject([{ to: program, flags: ack, sequence: 8 }]);
      expect(pass(1)).toEqual([]);
      expect(pass(1)).toMatchObject([{ to: program, flags: rst | ack, sequence: 18 }]);
      expect([pass(300), redirect.flowCount]).toEqual([[], 0]);
    });

    test("otherwise has no second reset where the kernel's arrived", async () => {
      const { listen, pass, take, program, redirect } = await ended(false);
      listen({ flags: rst | ack, sequence: 8, acknowledgement: 101 });
      expect(take()).toMatchObject([{ to: program, flags: rst | ack, sequence: 8 }]);
      expect([pass(3), redirect.flowCount]).toEqual([[], 0]);
    });

    test("otherwise is reset later when the device takes nothing", async () => {
      const { device, pass, program, redirect } = await ended(false);
      device.taking = 0;
      expect([pass(5), redirect.flowCount]).toEqual([[], 1]);
      device.taking = 1;
      expect(pass(1)).toMatchObject([{ to: program, flags: rst | ack, sequence: 8 }]);
      expect(redirect.flowCount).toBe(0);
    });
  });

  // Story: the redirect's port was another connection's a minute ago. The listener's kernel, in TIME_WAIT there, answered
  // the SYN with the number of that one; the program reset it. The connection was given up for that, and at the end of
  // all it was reset at the wrong number, or not at all.
  test("a port that comes back while the listener's kernel is in TIME_WAIT there carries the next connection", async () => {
    const { redirect, opens, own, send, take, settle, program } = setUp(family);
    send({ flags: syn, sequence: 100 });
    opens[0]!.accept();
    await settle();
    const natPort = portOf(take()[0]?.from);
    const toPeer = { source: own.address, sourcePort: listenPort, destination: own.peer, destinationPort: natPort };
    send({ ...toPeer, flags: ack, sequence: 5000, acknowledgement: 4000 });
    expect(take()).toMatchObject([{ to: program, flags: ack, sequence: 5000 }]);
    send({ flags: rst, sequence: 4000 });
    expect(take()).toMatchObject([{ to: `${own.address}:${listenPort}`, flags: rst, sequence: 4000 }]);
    redirect.tick();
    send({ flags: syn, sequence: 100 });
    expect(take()).toMatchObject([{ from: `${own.peer}:${natPort}`, flags: syn, sequence: 100 }]);
    expect(opens).toHaveLength(1);
    send({ ...toPeer, flags: syn | ack, sequence: 7, acknowledgement: 101 });
    send({ flags: ack, sequence: 101, acknowledgement: 8 });
    expect(redirect.claim(own.peer, natPort)).toBeDefined();
    take();
    expect(redirect.resetPrograms(maxTcpFlows)).toBe(0);
    expect(take()).toMatchObject([{ to: program, flags: rst | ack, sequence: 8, acknowledgement: 101 }]);
  });

  test("a far end that is lost before the listener took the connection resets the program", async () => {
    const { redirect, opens, own, send, take, settle, program } = setUp(family);
    send({ flags: syn, sequence: 100 });
    const stream = opens[0]!.accept();
    await settle();
    const natPort = portOf(take()[0]?.from);
    stream.destroy(new AppError("link_lost", "cut by the test"));
    await settle();
    expect(take()).toMatchObject([{ to: program, flags: rst | ack, acknowledgement: 101 }]);
    expect(redirect.claim(own.peer, natPort)).toBeUndefined();
  });

  test("the program's own reset is not answered, and its mapping stays for what follows", async () => {
    const { redirect, flow, send, take } = await connected();
    send({ flags: rst, sequence: 101 });
    take();
    redirect.ended(flow, false);
    expect([take(), redirect.flowCount]).toEqual([[], 1]);
  });

  describe("when all ends", () => {
    test("the program is reset behind the last byte that it was sent, whatever it has acknowledged", async () => {
      const { listen, close, send, program, target } = await connected();
      listen({ flags: syn | ack, sequence: 0xffff_fffe, acknowledgement: 101 });
      send({ flags: ack, sequence: 101, acknowledgement: 0xffff_ffff });
      listen({ flags: ack, sequence: 0xffff_ffff, acknowledgement: 151, payload: new Uint8Array(10) });
      expect(close()).toMatchObject([
        { from: target, to: program, flags: rst | ack, sequence: 9, acknowledgement: 151 },
        { from: target, to: program, flags: rst | ack, sequence: 0xffff_ffff, acknowledgement: 151 },
      ]);
    });

    test("one reset is enough where the program has taken all", async () => {
      const { listen, close, send } = await connected();
      listen({ flags: syn | ack, sequence: 7, acknowledgement: 101 });
      send({ flags: ack, sequence: 101, acknowledgement: 8 });
      expect(close()).toMatchObject([{ flags: rst | ack, sequence: 8 }]);
    });

    test("a SYN whose answer the program has not seen is refused", async () => {
      const { close } = await connected();
      expect(close()).toMatchObject([{ flags: rst | ack, acknowledgement: 101 }]);
    });

    test("a program that has ended its half is reset, one that knows of both ends is not", async () => {
      const { listen, close, send } = await connected();
      listen({ flags: syn | ack, sequence: 7, acknowledgement: 101 });
      send({ flags: fin | ack, sequence: 101, acknowledgement: 8 });
      expect(close()).toMatchObject([{ flags: rst | ack, sequence: 8 }]);
      const other = await connected();
      other.listen({ flags: syn | ack, sequence: 7, acknowledgement: 101 });
      other.send({ flags: fin | ack, sequence: 101, acknowledgement: 8 });
      other.listen({ flags: fin | ack, sequence: 8, acknowledgement: 102 });
      other.send({ flags: ack, sequence: 102, acknowledgement: 9 });
      expect(other.close()).toEqual([]);
    });

    test("one that asks whether the reset is meant, or sends on, is reset where it says", async () => {
      const { close, send, take } = await connected();
      close();
      send({ flags: ack, sequence: 101, acknowledgement: 5000 });
      expect(take()).toMatchObject([{ flags: rst, sequence: 5000 }]);
    });

    test("the kernel's own reset, and what the listener still sends, reach no program", async () => {
      const { listen, close, own, take } = await connected();
      close();
      listen({ flags: rst | ack, sequence: 7 });
      expect(take()).toEqual([]);
      listen({ flags: ack, sequence: 7, acknowledgement: 101 });
      expect(take()).toMatchObject([{ to: `${own.address}:${listenPort}`, flags: rst }]);
    });

    test("what the device does not take is written later, and no stream ends before", async () => {
      const { redirect, send, take, device, opens } = setUp(family);
      for (let port = 1; port <= 5; port++) send({ flags: syn, sourcePort: 2000 + port, sequence: port });
      device.taking = 2;
      expect(redirect.resetPrograms(3)).toBe(3);
      expect(redirect.resetPrograms(3)).toBe(3);
      expect(opens.some(({ signal }) => signal.aborted)).toBe(false);
      const first = take();
      expect(redirect.resetPrograms(2)).toBe(1);
      const second = take();
      expect(redirect.resetPrograms(2)).toBe(0);
      const seen = [...first, ...second, ...take()];
      expect(seen.map(({ acknowledgement }) => acknowledgement)).toEqual([2, 3, 4, 5, 6]);
      expect(redirect.cut(3)).toBe(2);
      expect(redirect.cut(3)).toBe(0);
      expect(opens.every(({ signal }) => signal.aborted)).toBe(true);
    });
  });
});
