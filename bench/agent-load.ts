// Load for the agent's benchmark: callers that send a request when the answer to the last is complete, over kept
// connections of HTTP/1.1 or streams of HTTP/2, and what the process under load has used meanwhile.
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import type { ClientHttp2Session } from "node:http2";
import { connect } from "node:net";
import type { Socket } from "node:net";
import { systemClock } from "#base/clock.ts";
import { median } from "./results.ts";

export interface End {
  readonly pid: number;
  readonly port: number;
}

interface Caller extends Disposable {
  ask(): Promise<void>;
}

export type Version = "HTTP/1.1" | "HTTP/2";

const requestHead = Buffer.from(
  "GET /some/path?with=query HTTP/1.1\r\nHost: app:8080\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n",
);
/** Callers at once; of HTTP/2 so many streams on each of the connections. */
const callersAtOnce = 64;
const streamsOnOne = 16;
const loadMs = 4000;
const pauseMs = 5;

/** Answers have one length. */
class Http1Caller implements Caller {
  readonly #socket: Socket;
  #waiting: ((error?: Error) => void) | undefined;
  #answerBytes = 0;
  #left = 0;

  constructor(port: number) {
    this.#socket = connect({ port, host: "127.0.0.1", noDelay: true });
    this.#socket.on("error", (error) => this.#waiting?.(error));
    this.#socket.on("data", (chunk: Buffer) => {
      if (this.#answerBytes === 0) this.#answerBytes = this.#left = lengthOf(chunk);
      this.#left -= chunk.length;
      if (this.#left > 0) return;
      this.#left = this.#answerBytes;
      this.#waiting?.();
    });
  }
  ask(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting = (error) => (error === undefined ? resolve() : reject(error));
      this.#socket.write(requestHead);
    });
  }
  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}

function lengthOf(answer: Buffer): number {
  const text = answer.toString("latin1");
  return text.indexOf("\r\n\r\n") + 4 + Number(/content-length: (\d+)/i.exec(text)?.[1] ?? 0);
}

class Http2Caller implements Caller {
  readonly #session: ClientHttp2Session;

  constructor(session: ClientHttp2Session) {
    this.#session = session;
  }
  async ask(): Promise<void> {
    const stream = this.#session.request({ ":path": "/some/path?with=query", "user-agent": "bench", accept: "*/*" });
    stream.resume();
    await once(stream, "end");
  }
  [Symbol.dispose](): void {
    this.#session.destroy();
  }
}

function callersOf(port: number, version: Version, count: number): readonly Caller[] {
  if (version === "HTTP/1.1") return Array.from({ length: count }, () => new Http1Caller(port));
  const sessions = Array.from({ length: Math.ceil(count / streamsOnOne) }, () => {
    const session = connectHttp2(`http://127.0.0.1:${port}`);
    session.on("error", () => undefined); // the requests' errors say it
    return session;
  });
  return Array.from({ length: count }, (_, index) => {
    const session = sessions[index % sessions.length];
    if (session === undefined) throw new RangeError("expected a session for each caller");
    return new Http2Caller(session);
  });
}

/** How many requests they make, one after the other, in this time. */
async function askFor(callers: readonly Caller[], ms: number): Promise<number> {
  const until = systemClock.now() + ms;
  let count = 0;
  const loop = async (caller: Caller): Promise<void> => {
    while (systemClock.now() < until) {
      await caller.ask();
      count += 1;
    }
  };
  await Promise.all(callers.map(loop));
  return count;
}

/** Requests that one core carries: by the processor time used, so that the load's own cost does not count. */
export async function measureLoad(end: End, version: Version): Promise<number> {
  const callers = callersOf(end.port, version, callersAtOnce);
  await askFor(callers, loadMs / 4); // warm
  const beforeMs = cpuMs(end.pid);
  const count = await askFor(callers, loadMs);
  const usedMs = cpuMs(end.pid) - beforeMs;
  for (const caller of callers) caller[Symbol.dispose]();
  return (count * 1000) / usedMs;
}

/** Kept connections of HTTP/1.1, for comparisons that go back and forth. */
export class KeptLoad implements Disposable {
  readonly #callers: readonly Caller[];

  constructor(port: number) {
    this.#callers = callersOf(port, "HTTP/1.1", callersAtOnce);
  }
  async askFor(ms: number): Promise<number> {
    return await askFor(this.#callers, ms);
  }
  [Symbol.dispose](): void {
    for (const caller of this.#callers) caller[Symbol.dispose]();
  }
}

interface Latencies {
  readonly p50: number;
  readonly p99: number;
}

/** Each end in turn, so that what else the machine does falls on all. */
export async function measureLatencies(
  ports: readonly number[],
  version: Version,
  rounds: number,
): Promise<readonly Latencies[]> {
  const callers = ports.flatMap((port) => callersOf(port, version, 1));
  const times = ports.map((): number[] => []);
  const live = new AbortController().signal;
  for (let round = 0; round < rounds; round += 1) {
    for (const [index, caller] of callers.entries()) {
      const startMs = systemClock.now();
      await caller.ask();
      if (round >= rounds / 10) times[index]?.push(systemClock.now() - startMs);
    }
    await systemClock.sleep(pauseMs, live);
  }
  for (const caller of callers) caller[Symbol.dispose]();
  return times.map((list) => ({
    p50: median(list),
    p99: list.toSorted((left, right) => left - right)[Math.floor(list.length * 0.99)] ?? Number.NaN,
  }));
}

/** protocol: proc(5); user and system time of all threads in hundredths of a second. */
function cpuMs(pid: number): number {
  const words = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ").at(-1)?.split(" ") ?? [];
  return (Number(words[11]) + Number(words[12])) * 10;
}

export interface Memory {
  readonly anonymous: number;
  readonly resident: number;
}

/** In MB. */
export function memoryOf(pid: number): Memory {
  const status = readFileSync(`/proc/${pid}/status`, "latin1");
  const megabytes = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1]) / 1000;
  return { anonymous: megabytes("RssAnon"), resident: megabytes("VmRSS") };
}
