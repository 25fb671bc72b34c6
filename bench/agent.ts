// What the agent costs a request that it passes to the application, on loopback, beside a bare node:http proxy and a
// mere pipe in the same run: requests that one core can carry (from the processor time used, so that the load's own
// cost does not count), and the latency that is added at 200 requests a second.
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import type { Socket } from "node:net";
import { join } from "node:path";
import { systemClock } from "#base/clock.ts";
import type { Report } from "./tunnel.ts";

const program = join(import.meta.dirname, "agent-ends.mjs");
const ask = Buffer.from(
  "GET /some/path?with=query HTTP/1.1\r\nHost: app:8080\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n",
);
const connections = 64;
const loadMs = 4000;
const latencyRequests = 2000;
const pauseMs = 5;

interface End extends Disposable {
  readonly port: number;
  used(): Promise<{ readonly cpuMs: number; readonly heapBytes: number }>;
}

async function start(what: string, appPort = 0): Promise<End> {
  const child: ChildProcess = fork(program, [what, `${appPort}`]);
  const [{ port }] = (await once(child, "message")) as [{ port: number }];
  return {
    port,
    used: async () => {
      child.send("used");
      return ((await once(child, "message")) as [{ cpuMs: number; heapBytes: number }])[0];
    },
    [Symbol.dispose]: () => void child.kill(),
  };
}

/** One caller: a request when the answer to the last is complete. Answers have one length. */
class Caller {
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
      this.#socket.write(ask);
    });
  }
  end(): void {
    this.#socket.destroy();
  }
}

function lengthOf(answer: Buffer): number {
  const text = answer.toString("latin1");
  return text.indexOf("\r\n\r\n") + 4 + Number(/content-length: (\d+)/i.exec(text)?.[1] ?? 0);
}

interface Load {
  readonly perSecond: number;
  readonly perCpuSecond: number;
  readonly residentBytes: number;
}

async function load(end: End): Promise<Load> {
  const callers = Array.from({ length: connections }, () => new Caller(end.port));
  let count = 0;
  const run = async (ms: number): Promise<void> => {
    const until = systemClock.now() + ms;
    const loop = async (caller: Caller): Promise<void> => {
      while (systemClock.now() < until) {
        await caller.ask();
        count += 1;
      }
    };
    await Promise.all(callers.map(loop));
  };
  await run(loadMs / 4); // warm
  count = 0;
  const before = await end.used();
  const startMs = systemClock.now();
  await run(loadMs);
  const after = await end.used();
  for (const caller of callers) caller.end();
  return {
    perSecond: (count * 1000) / (systemClock.now() - startMs),
    perCpuSecond: (count * 1000) / (after.cpuMs - before.cpuMs),
    residentBytes: after.heapBytes,
  };
}

/** Both in turn, so that what else the machine does falls on both. */
async function latencies(ports: readonly number[]): Promise<readonly (readonly number[])[]> {
  const callers = ports.map((port) => new Caller(port));
  const times = ports.map((): number[] => []);
  const live = new AbortController().signal;
  for (let round = 0; round < latencyRequests; round += 1) {
    for (const [index, caller] of callers.entries()) {
      const startMs = systemClock.now();
      await caller.ask();
      times[index]?.push(systemClock.now() - startMs);
    }
    await systemClock.sleep(pauseMs, live);
  }
  for (const caller of callers) caller.end();
  return times.map((list) => list.slice(latencyRequests / 10).toSorted((a, b) => a - b));
}

export async function benchAgent(report: Report): Promise<void> {
  using app = await start("app");
  using agent = await start("agent", app.port);
  using proxy = await start("proxy", app.port);
  using pipe = await start("pipe", app.port);
  const rates: Record<string, Load[]> = { agent: [], "node:http proxy": [], "mere pipe": [] };
  for (let round = 0; round < 3; round += 1) {
    rates["agent"]?.push(await load(agent));
    rates["node:http proxy"]?.push(await load(proxy));
    rates["mere pipe"]?.push(await load(pipe));
  }
  for (const [name, list] of Object.entries(rates)) {
    const best = list.toSorted((a, b) => b.perCpuSecond - a.perCpuSecond)[1] ?? list[0];
    if (best === undefined) continue;
    const figure = `${Math.round(best.perCpuSecond)} a core's second (${Math.round(best.perSecond)} a second seen)`;
    report(`agent: requests passed, ${name}`, `${figure}, ${Math.round(best.residentBytes / 1e6)} MB resident`);
  }
  const [direct = [], through = []] = await latencies([app.port, agent.port]);
  const at = (list: readonly number[], share: number): number => list[Math.floor(list.length * share)] ?? 0;
  for (const share of [0.5, 0.99]) {
    const [with_, without] = [at(through, share), at(direct, share)];
    const figure = `${(with_ - without).toFixed(3)} ms (${with_.toFixed(3)} against ${without.toFixed(3)})`;
    report(`agent: added at 200 req/s, p${share * 100}`, figure);
  }
}
