// A session that outlives its transports (PROTOCOL §6.5). The trap: every stream of the original and of its rivals dies
// with the port-forward that carries it. Below a simulator moves bytes, cuts, duels and resumes at random, one step at a
// time; TELEPRESENCE_SIMULATION_STEPS and _SEED repeat a run that failed.
import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { AppError } from "#base/error.ts";
import { randomFrom } from "#base/random-inputs.fake.ts";
import { silentLogger } from "#base/log.ts";
import { encodeOpen } from "#wire/frame-body.ts";
import { FrameDecoder, encodeFrame, formatFrameType, frameTypes } from "#wire/frame.ts";
import { encodeHello } from "#wire/hello-codec.ts";
import { heartbeatMs, linkSilenceMs } from "#wire/limits.ts";
import type { OpenRequest } from "#wire/open.ts";
import { createResumablePair, handPair, resumableHello, turns } from "./resumable-pair.fake.ts";
import type { HandPair, ResumablePair } from "./resumable-pair.fake.ts";
import { openSession } from "./session.ts";
import type { TunnelStream } from "./tunnel.ts";

const tcp: OpenRequest = { kind: "tcp", target: { address: "10.0.0.1", port: 80 } };
const live = new AbortController().signal;

/** Delivers everything until nothing moves any more. */
async function settle(pair: HandPair): Promise<void> {
  do {
    pair.deliver();
    await turns();
  } while (pair.opener.waitingBytes + pair.accepter.waitingBytes > 0);
}

async function openStream(ends: ResumablePair): Promise<[TunnelStream, TunnelStream]> {
  const accepted = new Promise<TunnelStream>((resolve) => {
    ends.accepter.onIncoming((incoming) => resolve(incoming.accept()));
  });
  const opened = ends.opener.open(tcp, live);
  await settle(ends.first);
  return await Promise.all([opened, accepted]);
}

function collect(stream: TunnelStream): { readonly text: () => string; ended: boolean } {
  const chunks: Buffer[] = [];
  const seen = { text: () => Buffer.concat(chunks).toString(), ended: false };
  stream.on("data", (chunk: Buffer) => chunks.push(chunk)).on("end", () => (seen.ended = true));
  return seen;
}

function codeOf(attempt: Promise<unknown>): Promise<string> {
  return attempt.then(
    () => "none",
    (error: unknown) => (error as AppError).code,
  );
}

/** A new transport takes over, and everything on it arrives. */
async function goOn(ends: ResumablePair): Promise<HandPair> {
  const pair = handPair();
  const resuming = ends.resume(pair);
  await settle(pair);
  await resuming.opener;
  return pair;
}

describe("a session whose transport is lost", () => {
  test("goes on where each end had got to, half a frame included", async () => {
    using ends = await createResumablePair();
    const [a, b] = await openStream(ends);
    const [atA, atB] = [collect(a), collect(b)];
    a.write("from the laptop, ");
    b.write("from the cluster, ");
    await turns();
    ends.first.deliver(20); // a header and some bytes
    ends.first.cut();
    await turns();
    a.end("after the cut");
    b.end("after the cut");
    await goOn(ends);
    expect(atB.text()).toBe("from the laptop, after the cut");
    expect(atA.text()).toBe("from the cluster, after the cut");
    expect([atA.ended, atB.ended]).toEqual([true, true]);
  });

  test("tells its owners when, and keeps its streams", async () => {
    using ends = await createResumablePair();
    const [a] = await openStream(ends);
    const told: string[] = [];
    for (const [name, end] of [["opener", ends.opener] as const, ["accepter", ends.accepter] as const]) {
      end.onTransport({
        lost: ({ code }) => told.push(`${name} ${code}`),
        resumed: () => told.push(`${name} resumed`),
      });
    }
    ends.first.cut();
    await turns();
    expect(told.toSorted()).toEqual(["accepter link_lost", "opener link_lost"]);
    await goOn(ends);
    expect(told.slice(2).toSorted()).toEqual(["accepter resumed", "opener resumed"]);
    expect(a.destroyed).toBe(false);
  });

  test("counts silence as loss, also with another session's time to wait", async () => {
    using ends = await createResumablePair();
    let reason: AppError | undefined;
    ends.opener.onTransport({ lost: (error) => (reason = error), resumed: () => undefined });
    await ends.clock.advance(linkSilenceMs + 100);
    expect(reason?.message).toContain("silent");
    await goOn(ends);
  });

  test("brakes its writers at the bound of what it keeps", async () => {
    using ends = await createResumablePair();
    const [a, b] = await openStream(ends);
    b.resume();
    ends.first.cut();
    const chunk = Buffer.alloc(64 * 1024);
    let writtenBytes = 0;
    const write = (): void => {
      do writtenBytes += chunk.length;
      while (a.write(chunk));
    };
    a.on("drain", write);
    write();
    await turns(50);
    expect(writtenBytes).toBeLessThan(1024 * 1024);
    a.destroy();
  });

  test("is told what came last also when the link is quiet, so that nothing is kept for long", async () => {
    using ends = await createResumablePair();
    const [a, b] = await openStream(ends);
    b.resume();
    a.write("little");
    await settle(ends.first);
    const waiting: string[] = [];
    for (let beat = 0; beat < 3 && !waiting.includes("ACK"); beat += 1) {
      await ends.clock.advance(heartbeatMs);
      await turns();
      new FrameDecoder().push(ends.first.accepter.peek(), ({ type }) => waiting.push(formatFrameType(type)));
      await settle(ends.first);
    }
    expect(waiting).toContain("ACK");
  });

  test("is over for the opener when the accepter does not know it any more", async () => {
    using ends = await createResumablePair();
    using others = await createResumablePair();
    const [a] = await openStream(ends);
    a.on("error", () => undefined);
    ends.first.cut();
    await turns();
    // The manager's successor: other sessions, another memory.
    const pair = handPair();
    const accepting = others.sessions.accept({
      transport: pair.accepter,
      hello: resumableHello("manager"),
      clock: ends.clock,
      log: silentLogger,
      signal: live,
    });
    const [refused, resuming] = [codeOf(accepting), codeOf(ends.opener.resume(pair.opener, live))];
    await settle(pair);
    expect(await Promise.all([refused, resuming])).toEqual(["not_found", "not_found"]);
  });

  test("is nobody's who has a wrong token, or an old epoch", async () => {
    using ends = await createResumablePair();
    const [a, b] = await openStream(ends);
    const atB = collect(b);
    const forged = async (change: object): Promise<string> => {
      const pair = handPair();
      const resume = { sessionId: "x", token: "y", epoch: 9, receivedSeq: 0, ...change };
      const hello = { ...resumableHello("laptop"), resume };
      const options = { hello, clock: ends.clock, log: silentLogger, signal: live };
      const opening = codeOf(openSession({ ...options, transport: pair.opener, role: "opener" }));
      ends.sessions.accept({ ...options, hello: resumableHello("manager"), transport: pair.accepter }).catch(() => "");
      await settle(pair);
      return await opening;
    };
    const { sessionId = "" } = (ends.opener.peer.resume ?? {}) as { sessionId?: string };
    const { token = "" } = (ends.opener.peer.resume ?? {}) as { token?: string };
    expect(await forged({})).toBe("not_found");
    expect(await forged({ sessionId })).toBe("not_found");
    expect(await forged({ sessionId, token, epoch: 0 })).toBe("denied");
    a.write("still here");
    await settle(ends.first);
    expect(atB.text()).toBe("still here");
  });

  // A HELLO that names a session would make an end wait for ever that keeps none.
  test("is none at an accepter that keeps none, whatever the opener says", async () => {
    const [pair, clock] = [handPair(), new FakeClock()];
    const resume = { sessionId: "x", token: "y", epoch: 1, receivedSeq: 0 };
    const options = { clock, log: silentLogger, signal: live };
    const laptop = { ...resumableHello("laptop"), resume };
    const opening = openSession({ ...options, transport: pair.opener, role: "opener", hello: laptop });
    const agent = resumableHello("agent");
    const accepting = openSession({ ...options, transport: pair.accepter, role: "accepter", hello: agent });
    await settle(pair);
    const both = await Promise.all([opening, accepting]);
    expect(both.map(({ resumable }) => resumable)).toEqual([false, false]);
    pair.cut();
    for (const { closed } of both) expect(await closed).toMatchObject({ code: "link_lost" });
  });

  test("is not said to go on when it is over before the answer, or by it", async () => {
    using ends = await createResumablePair();
    const [first, second] = [handPair(), handPair()];
    const resuming = codeOf(ends.resume(first).opener);
    first.deliver();
    await turns();
    ends.opener.destroy();
    first.deliver();
    expect(await resuming).toBe("link_lost");
    let resumed = 0;
    ends.accepter.onTransport({ lost: () => undefined, resumed: () => (resumed += 1) });
    const resume = { sessionId: "", token: "", ...ends.opener.peer.resume, epoch: 2, receivedSeq: 1000 };
    second.opener.write(encodeHello({ ...resumableHello("laptop"), resume }));
    const options = { hello: resumableHello("manager"), clock: ends.clock, log: silentLogger, signal: live };
    const accepting = ends.sessions.accept({ ...options, transport: second.accepter });
    await settle(second);
    await accepting;
    expect(await ends.accepter.closed).toMatchObject({ code: "protocol" });
    expect(resumed).toBe(0);
  });

  // What is kept for the next transport, nobody who reads but never says so may fill this end's memory with.
  test("is lost to a far end that asks and asks and acknowledges nothing", async () => {
    const { sessions, clock } = await createResumablePair();
    const pair = handPair();
    const options = { hello: resumableHello("manager"), clock, log: silentLogger, signal: live };
    const accepting = sessions.accept({ ...options, transport: pair.accepter });
    pair.opener.resume().write(encodeHello(resumableHello("laptop")));
    await settle(pair);
    const session = await accepting;
    session?.onIncoming((incoming) => incoming.reject("denied", "no ".repeat(300)));
    let over: AppError | undefined;
    void session?.closed.then((error) => (over = error));
    const payload = encodeOpen(tcp);
    for (let asked = 0; asked < 60_000 && over === undefined; asked += 1000) {
      const frames = Array.from({ length: 1000 }, (_, index) => {
        const seq = asked + index + 1;
        return encodeFrame({ type: frameTypes.open, streamId: 2 * seq - 1, seq, payload });
      });
      pair.opener.write(Buffer.concat(frames));
      await settle(pair);
    }
    expect(over).toMatchObject({ code: "busy" });
    session?.destroy();
  });

  test("is told when the other end ends it on purpose", async () => {
    using ends = await createResumablePair();
    ends.opener.destroy();
    await settle(ends.first);
    expect(await ends.accepter.closed).toMatchObject({ code: "cancelled" });
    expect(ends.sessions.size).toBe(0);
  });

  // Otherwise it waits for 24 hours for a laptop that has ended.
  test("is told so too when the transport takes nothing at that moment", async () => {
    using ends = await createResumablePair();
    const [a, b] = await openStream(ends);
    for (const stream of [a, b]) stream.on("error", () => undefined);
    b.resume();
    a.write(Buffer.alloc(1024 * 1024));
    await turns();
    expect(ends.first.opener.writableNeedDrain).toBe(true);
    ends.opener.destroy();
    await settle(ends.first);
    expect(await ends.accepter.closed).toMatchObject({ code: "cancelled" });
  });

  test("is not lost while it changes from a transport that works to another", async () => {
    using ends = await createResumablePair();
    const told: string[] = [];
    const listen = { lost: () => void told.push("lost"), resumed: () => void told.push("resumed") };
    ends.opener.onTransport(listen);
    ends.accepter.onTransport(listen);
    const pair = handPair();
    const isLeft: boolean[] = [];
    const write = pair.opener._write.bind(pair.opener);
    pair.opener._write = (...written) => {
      isLeft.push(ends.first.opener.destroyed);
      write(...written);
    };
    const resuming = ends.resume(pair);
    await settle(ends.first); // whatever the first transport still says comes before the second's HELLO
    // As sockets do it: what is put off to the end of the tick comes before what waits for a promise.
    for (let round = 0; round < 4; round += 1) {
      await new Promise<void>((resolve) => setImmediate(() => resolve(pair.deliver())));
    }
    await resuming.opener;
    expect(told).toEqual([]);
    expect([ends.first.opener.destroyed, ends.first.accepter.destroyed]).toEqual([true, true]);
    const [atHello, ...later] = isLeft;
    expect([atHello, later.length > 0, later.includes(false)]).toEqual([false, true, false]);
  });

  test("is asked out of turn, and silence tells", async () => {
    using ends = await createResumablePair();
    await settle(ends.first);
    const well = ends.opener.probe(300);
    await settle(ends.first);
    expect(await well).toBe(true);
    const silent = ends.opener.probe(300);
    await ends.clock.advance(299);
    ends.first.accepter.write(encodeFrame({ type: frameTypes.ping, streamId: 0, seq: 0, payload: Buffer.alloc(8) }));
    ends.first.accepter.deliver(100); // it says something, if not the answer
    await turns();
    let answer: boolean | undefined;
    void silent.then((isThere) => (answer = isThere));
    await ends.clock.advance(299);
    expect(answer).toBeUndefined();
    await ends.clock.advance(10);
    expect(answer).toBe(false);
    const ended = ends.opener.probe(300);
    ends.first.cut();
    expect(await ended).toBe(true);
  });

  // Bytes pass one way only: who hears something, and is not heard, learns it by the other end's patience.
  test("is lost to both when nothing passes one way", async () => {
    using ends = await createResumablePair();
    let lost = 0;
    ends.opener.onTransport({ lost: () => (lost += 1), resumed: () => undefined });
    ends.accepter.onTransport({ lost: () => (lost += 1), resumed: () => undefined });
    await settle(ends.first);
    const lostAfterS: number[] = [];
    for (let second = 1; second <= 12; second += 1) {
      await ends.clock.advance(1000);
      ends.first.accepter.deliver(1_000_000);
      await turns();
      while (lostAfterS.length < lost) lostAfterS.push(second);
    }
    expect(lostAfterS).toEqual([5, expect.any(Number)]);
  });
});

test("an end that cannot resume has sessions that end with their transports", async () => {
  const pair = handPair();
  const { sessions, ...ends } = await createResumablePair();
  const options = { clock: ends.clock, log: silentLogger, signal: live };
  const plain = { ...resumableHello("laptop"), features: [] };
  const opening = openSession({ ...options, transport: pair.opener, role: "opener", hello: plain });
  const accepting = sessions.accept({ ...options, transport: pair.accepter, hello: resumableHello("manager") });
  await settle(pair);
  const [opener, accepter] = await Promise.all([opening, accepting]);
  expect([opener.resumable, accepter?.resumable]).toEqual([false, false]);
  pair.cut();
  expect(await opener.closed).toMatchObject({ code: "link_lost" });
  expect(await accepter?.closed).toMatchObject({ code: "link_lost" });
});

const seed = Number(process.env["TELEPRESENCE_SIMULATION_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const steps = Number(process.env["TELEPRESENCE_SIMULATION_STEPS"] ?? 20_000);

/** One way of a stream: what was written and what has arrived, as positions in one endless text. */
interface Way {
  readonly from: TunnelStream;
  readonly to: TunnelStream;
  written: number;
  arrived: number;
  ended: boolean;
  heardEnd: boolean;
}

const byteAt = (position: number): number => (position * 31 + (position >>> 8)) & 0xff;

class Simulation {
  readonly ends: ResumablePair;
  readonly #random: () => number;
  #current: HandPair;
  /** Transports that were left, and may still say something. */
  readonly #ghosts: HandPair[] = [];
  readonly ways: Way[] = [];
  readonly #accepted: TunnelStream[] = [];
  /** The opener has no transport, or has asked in vain. */
  #isLost = false;
  #isSilent = false;
  counts = { cuts: 0, silences: 0, moves: 0, resumes: 0, duels: 0, probes: 0, lost: 0, bytes: 0, streams: 0 };

  constructor(ends: ResumablePair, random: () => number) {
    this.ends = ends;
    this.#random = random;
    this.#current = ends.first;
    ends.accepter.onIncoming((incoming) => this.#accepted.push(incoming.accept()));
    ends.opener.onTransport({ lost: () => (this.#isLost = true), resumed: () => undefined });
    ends.accepter.onTransport({ lost: () => (this.counts.lost += 1), resumed: () => undefined });
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }

  /** What a step does, each with the share of steps below it. */
  readonly #actions: readonly (readonly [share: number, act: () => unknown])[] = [
    [0.55, () => this.#current.deliver(1 + this.#below(this.#random() < 0.5 ? 40 : 20_000))],
    [0.85, () => this.#write()],
    [0.9, () => this.#open()],
    [0.93, () => this.#end()],
    [0.95, () => this.#ghosts.forEach((ghost) => ghost.deliver(1 + this.#below(1000)))],
    [0.97, () => this.#pauseOrGoOn()],
    [0.98, () => this.#cut()],
    [0.985, () => this.#move()],
    [0.989, () => this.#probe()],
    [0.995, () => this.ends.clock.advance(this.#below(400))],
    [0.996, () => this.#fallSilent()],
    [1, () => this.#duel()],
  ];

  async step(): Promise<void> {
    const dice = this.#random();
    await this.#actions.find(([share]) => dice < share)?.[1]();
    await turns(1);
    if (this.#isLost) await this.#resumeOn(handPair());
    else if (this.#isSilent) await this.#move();
  }

  #write(): void {
    const way = this.ways[this.#below(this.ways.length)];
    if (way === undefined || way.ended || way.from.writableNeedDrain) return;
    const count = 1 + this.#below(this.#random() < 0.7 ? 100 : 30_000);
    way.from.write(Buffer.from(Array.from({ length: count }, (_, index) => byteAt(way.written + index))));
    way.written += count;
    this.counts.bytes += count;
  }

  #end(): void {
    const way = this.ways[this.#below(this.ways.length)];
    if (way === undefined || way.ended) return;
    way.ended = true;
    way.from.end();
  }

  #pauseOrGoOn(): void {
    const way = this.ways[this.#below(this.ways.length)];
    if (way === undefined) return;
    if (way.to.isPaused()) way.to.resume();
    else way.to.pause();
  }

  async #open(): Promise<void> {
    if (this.ways.length > 24) this.#forgetFinished();
    if (this.ways.length > 24) return;
    const known = this.#accepted.length;
    let isOpen = false;
    const opening = this.ends.opener.open(tcp, live).finally(() => (isOpen = true));
    await this.settle(() => isOpen);
    const [a, b] = [await opening, this.#accepted[known]];
    if (b === undefined) throw new Error("the far end has not accepted");
    this.counts.streams += 1;
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      const way: Way = { from, to, written: 0, arrived: 0, ended: false, heardEnd: false };
      to.on("data", (chunk: Buffer) => {
        for (const byte of chunk) {
          if (byte !== byteAt(way.arrived)) throw new Error(`byte ${way.arrived} of a stream is wrong`);
          way.arrived += 1;
        }
      });
      to.on("end", () => (way.heardEnd = true));
      this.ways.push(way);
    }
  }

  #forgetFinished(): void {
    const isOver = (way: Way): boolean => way.heardEnd && way.arrived === way.written;
    for (let first = this.ways.length - 2; first >= 0; first -= 2) {
      if (this.ways.slice(first, first + 2).every(isOver)) this.ways.splice(first, 2);
    }
  }

  /** The transport is lost, at both ends or first at one of them only; then there is another. */
  async #cut(): Promise<void> {
    this.counts.cuts += 1;
    const { opener, accepter } = this.#current;
    const [first, second] = this.#random() < 0.5 ? [opener, accepter] : [accepter, opener];
    first.destroy();
    if (this.#random() < 0.5) second.destroy();
    else this.#ghosts.push(this.#current);
    await turns(1);
    await this.#resumeOn(handPair());
  }

  /** The opener leaves a transport that works, or does not say anything for too long. */
  async #move(): Promise<void> {
    this.counts.moves += 1;
    this.#ghosts.push(this.#current);
    await this.#resumeOn(handPair());
  }

  #probe(): void {
    this.counts.probes += 1;
    const probed = this.#current;
    void this.ends.opener.probe(300).then((isThere) => {
      if (!isThere && this.#current === probed) this.#isSilent = true;
    });
  }

  /** The transport swallows everything for longer than anybody waits. */
  async #fallSilent(): Promise<void> {
    this.counts.silences += 1;
    await this.ends.clock.advance(linkSilenceMs + heartbeatMs);
  }

  /** The first of two is late: its HELLO arrives when the second has the session already. */
  async #duel(): Promise<void> {
    this.counts.duels += 1;
    const late = handPair();
    const controller = new AbortController();
    const { opener } = this.ends.resume(late, controller.signal);
    const lost = opener.catch((error: unknown) => error);
    late.opener.deliver(this.#below(200));
    await turns(1);
    controller.abort(new AppError("timeout", "no answer"));
    await lost;
    this.#ghosts.push(late);
    await this.#resumeOn(handPair());
    late.deliver();
  }

  async #resumeOn(pair: HandPair): Promise<void> {
    this.#current = pair;
    this.#ghosts.splice(0, this.#ghosts.length - 3).forEach((ghost) => ghost.cut());
    const resuming = this.ends.resume(pair);
    let isUp = false;
    const up = resuming.opener.then(() => (isUp = true));
    for (let count = 0; count < 200 && !isUp; count += 1) {
      // Nobody knows which of two transports is quicker.
      if (this.#random() < 0.3) for (const ghost of this.#ghosts) ghost.deliver(1 + this.#below(1000));
      pair.deliver(1 + this.#below(200));
      await turns(1);
    }
    await up;
    this.#isLost = false;
    this.#isSilent = false;
    this.counts.resumes += 1;
  }

  async settle(isDone: () => boolean): Promise<void> {
    for (let count = 0; count < 20_000 && !isDone(); count += 1) {
      this.#current.deliver();
      await turns(1);
    }
    if (!isDone()) throw new Error("nothing moves any more");
  }
}

test(
  `a simulated session of ${steps} steps (seed ${seed}) loses no byte and repeats none`,
  { timeout: 600_000 },
  async () => {
    using ends = await createResumablePair();
    const simulation = new Simulation(ends, randomFrom(seed));
    let over: AppError | undefined;
    void ends.opener.closed.then((error) => (over = error));
    for (let step = 0; step < steps; step += 1) {
      await simulation.step();
      if (over !== undefined) throw new Error(`the session ended at step ${step}`, { cause: over });
    }
    for (const way of simulation.ways) {
      way.to.resume();
      if (!way.ended) way.from.end();
    }
    await simulation.settle(() => simulation.ways.every((way) => way.heardEnd));
    expect(simulation.ways.map(({ arrived }) => arrived)).toEqual(simulation.ways.map(({ written }) => written));
    const { counts } = simulation;
    expect(counts.resumes).toBeGreaterThan(steps / 1000);
    // A move is no loss: only whoever was cut off, or heard nothing, says that there is no transport.
    expect(counts.lost).toBeLessThanOrEqual(counts.cuts + counts.silences);
    if (process.env["TELEPRESENCE_SIMULATION_STEPS"] !== undefined) process.stdout.write(`${JSON.stringify(counts)}\n`);
  },
);
