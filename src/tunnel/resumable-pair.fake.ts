// Two ends of a resumable session, and transports between them that a test moves by hand: each byte is delivered, or
// lost with its transport, when the test says so.
import { Duplex } from "node:stream";
import { FakeClock } from "#base/clock.fake.ts";
import { silentLogger } from "#base/log.ts";
import { softwareVersion } from "#base/version.ts";
import { protocolVersions } from "#wire/hello.ts";
import type { Hello } from "#wire/hello.ts";
import { ResumableSessions } from "./resumable-sessions.ts";
import { openSession } from "./session.ts";
import type { TunnelSession } from "./tunnel.ts";

type Done = (error?: Error | null) => void;

/** One end; what is written waits in `queue` until `deliver` moves it to the other. */
export class HandTransport extends Duplex {
  other: HandTransport | undefined;
  readonly #queue: { bytes: Uint8Array; readonly done: Done }[] = [];
  #ending: Done | undefined;

  constructor() {
    super({ allowHalfOpen: true, readableHighWaterMark: 1 << 16, writableHighWaterMark: 1 << 14 });
    this.on("error", () => undefined);
  }

  get waitingBytes(): number {
    return this.#queue.reduce((sum, { bytes }) => sum + bytes.length, 0);
  }

  peek(): Uint8Array {
    return Buffer.concat(this.#queue.map(({ bytes }) => bytes));
  }

  /** Moves up to so many bytes. */
  deliver(count: number): void {
    let left = count;
    while (left > 0 && this.other !== undefined && !this.other.destroyed) {
      const first = this.#queue[0];
      if (first === undefined) break;
      const part = first.bytes.subarray(0, left);
      left -= part.length;
      first.bytes = first.bytes.subarray(part.length);
      this.other.push(Buffer.from(part));
      if (first.bytes.length > 0) break;
      this.#queue.shift();
      first.done();
    }
    if (this.#queue.length > 0 || this.#ending === undefined) return;
    this.other?.push(null);
    this.#ending();
    this.#ending = undefined;
  }

  override _write(bytes: Uint8Array, _encoding: BufferEncoding, done: Done): void {
    this.#queue.push({ bytes, done });
  }
  override _final(done: Done): void {
    this.#ending = done;
  }
  override _read(): void {
    // what was delivered waits in the Readable's own buffer
  }
  override _destroy(error: Error | null, done: Done): void {
    for (const waiting of this.#queue.splice(0)) waiting.done(new Error("the transport is gone"));
    done(error);
  }
}

export interface HandPair {
  readonly opener: HandTransport;
  readonly accepter: HandTransport;
  /** Each way up to so many bytes. */
  deliver(count?: number): void;
  /** Both ends are closed; what was under way is lost. */
  cut(): void;
}

export function handPair(): HandPair {
  const [opener, accepter] = [new HandTransport(), new HandTransport()];
  opener.other = accepter;
  accepter.other = opener;
  return {
    opener,
    accepter,
    deliver: (count = Number.POSITIVE_INFINITY) => {
      opener.deliver(count);
      accepter.deliver(count);
    },
    cut: () => {
      opener.destroy();
      accepter.destroy();
    },
  };
}

export function resumableHello(role: Hello["role"]): Hello {
  return { protocol: protocolVersions, software: softwareVersion, role, features: ["resume"] };
}

export interface ResumablePair extends Disposable {
  readonly clock: FakeClock;
  readonly opener: TunnelSession;
  readonly accepter: TunnelSession;
  readonly sessions: ResumableSessions;
  readonly first: HandPair;
  /** The opener tries to go on over this pair. */
  resume(pair: HandPair, signal?: AbortSignal): { readonly opener: Promise<void>; readonly accepter: Promise<unknown> };
}

const live = new AbortController().signal;

/** Lets whatever has arrived be worked on. */
export async function turns(count = 4): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

export async function createResumablePair(clock = new FakeClock()): Promise<ResumablePair> {
  const sessions = new ResumableSessions();
  const first = handPair();
  const common = { clock, log: silentLogger, signal: live };
  const accept = (transport: Duplex): Promise<TunnelSession | undefined> =>
    sessions.accept({ ...common, transport, hello: resumableHello("manager") });
  const opening = openSession({ ...common, transport: first.opener, role: "opener", hello: resumableHello("laptop") });
  const accepting = accept(first.accepter);
  first.deliver();
  await turns();
  first.deliver();
  const [opener, accepter] = await Promise.all([opening, accepting]);
  if (accepter === undefined) throw new Error("the first transport opens a session");
  return {
    clock,
    opener,
    accepter,
    sessions,
    first,
    resume: (pair, signal = live) => ({
      opener: opener.resume(pair.opener, signal),
      accepter: accept(pair.accepter).catch((error: unknown) => error),
    }),
    [Symbol.dispose]: () => {
      opener.destroy();
      accepter.destroy();
    },
  };
}
