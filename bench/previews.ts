// What a preview adds to a request at 500 a second: the cookie's check, the headers, the tunnel and the manager, all in
// one process, over TLS on both sides of the server, beside the ingress alone in the same seconds. An upload of 1 GB shows what is held of it.
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { Agent, request } from "node:http";
import type { ClientRequest, IncomingMessage } from "node:http";
import { Agent as SecureAgent, request as requestSecurely } from "node:https";
import { join } from "node:path";
import { systemClock } from "#base/clock.ts";
import { Results, median } from "./results.ts";
import type { Report } from "./results.ts";

const [perSecond, seconds, rounds, warmSeconds] = [500, 3, 3, 3];
const uploadBytes = 1024 ** 3;
const never = new AbortController().signal;

interface Ends {
  readonly direct: number;
  readonly preview: number;
  readonly host: string;
  readonly cookie: string;
}

interface Way {
  readonly port: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly agent: Agent;
}

export async function benchPreviews(report: Report): Promise<void> {
  const results = new Results("previews", report);
  const child = fork(join(import.meta.dirname, "preview-ends.ts"));
  try {
    const [ends] = (await once(child, "message")) as [Ends];
    await results.begin();
    const ways = [
      { port: ends.direct, headers: {}, agent: new Agent({ keepAlive: true, maxSockets: 64 }) },
      {
        port: ends.preview,
        headers: { host: ends.host, cookie: ends.cookie },
        agent: new SecureAgent({ keepAlive: true, maxSockets: 64, rejectUnauthorized: false }),
      },
    ] as const;
    for (const way of ways) await measure(way, warmSeconds);
    const used = [await usedBy(child, ways[0]), await usedBy(child, ways[1])] as const;
    results.add({
      what: "preview: processor time of all ends, a request",
      ours: used[1],
      base: used[0],
      baseName: "the ingress alone",
      unit: "ms",
    });
    const added: { p50: number; p99: number; base50: number; base99: number }[] = [];
    for (let round = 0; round < rounds; round += 1) {
      const [base, ours] = [await measure(ways[0], seconds), await measure(ways[1], seconds)];
      const at = (times: readonly number[], part: number): number => times[Math.floor(times.length * part)] ?? NaN;
      const [base50, base99] = [at(base, 0.5), at(base, 0.99)];
      added.push({ p50: at(ours, 0.5) - base50, p99: at(ours, 0.99) - base99, base50, base99 });
    }
    const of = (key: "p50" | "p99" | "base50" | "base99"): number => median(added.map((one) => one[key]));
    const base = { baseName: "the ingress alone", unit: "ms" } as const;
    results.add({
      what: `preview, ${perSecond} requests/s: added, median`,
      ours: of("p50"),
      base: of("base50"),
      ...base,
    });
    results.add({
      what: `preview, ${perSecond} requests/s: added, 99 %`,
      ours: of("p99"),
      base: of("base99"),
      ...base,
    });
    await benchUpload(results, ways[1], child);
    for (const { agent } of ways) agent.destroy();
    results.write();
  } finally {
    child.disconnect();
  }
}

interface Usage {
  readonly usedMs: number;
  readonly rss: number;
}

async function usageOf(child: ChildProcess): Promise<Usage> {
  child.send("usage");
  return ((await once(child, "message")) as [Usage])[0];
}

/** Processor time of a request, in milliseconds: good on a busy machine, too. */
async function usedBy(child: ChildProcess, way: Way): Promise<number> {
  const before = await usageOf(child);
  const count = (await measure(way, seconds)).length;
  return ((await usageOf(child)).usedMs - before.usedMs) / count;
}

/** Requests are sent when their time has come, whether or not others have been answered. */
async function measure(way: Way, forSeconds: number): Promise<readonly number[]> {
  const times: Promise<number>[] = [];
  const startMs = performance.now();
  for (let sent = 0; sent < perSecond * forSeconds;) {
    const due = Math.floor(((performance.now() - startMs) / 1000) * perSecond);
    for (; sent < Math.min(due, perSecond * forSeconds); sent += 1) times.push(ask(way));
    await systemClock.sleep(1, never);
  }
  return (await Promise.all(times)).toSorted((left, right) => left - right);
}

function send(
  { port, headers, agent }: Way,
  method: string,
  more: Readonly<Record<string, string>> = {},
): ClientRequest {
  const options = { host: "127.0.0.1", port, path: "/some/path", method, headers: { ...headers, ...more }, agent };
  return agent instanceof SecureAgent ? requestSecurely(options) : request(options);
}

async function ask(way: Way): Promise<number> {
  const startMs = performance.now();
  const sent = send(way, "GET").end();
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  if (response.statusCode !== 200) throw new Error(`answered with ${response.statusCode}`);
  response.resume();
  await once(response, "end");
  return performance.now() - startMs;
}

async function benchUpload(results: Results, way: Way, child: ChildProcess): Promise<void> {
  const memory = async (): Promise<number> => (await usageOf(child)).rss / 1024 ** 2;
  const before = await memory();
  const block = Buffer.alloc(256 * 1024);
  const sent = send(way, "POST", { "content-length": String(uploadBytes) });
  const startMs = performance.now();
  let most = before;
  for (let bytes = 0; bytes < uploadBytes; bytes += block.length) {
    if (!sent.write(block)) await once(sent, "drain");
    if (bytes % (64 * 1024 ** 2) === 0) most = Math.max(most, await memory());
  }
  sent.end();
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  response.resume();
  const tookSeconds = (performance.now() - startMs) / 1000;
  results.add({ what: "preview, upload of 1 GB", ours: uploadBytes / 1024 ** 2 / tookSeconds, unit: "MB/s" });
  results.add({
    what: "preview, upload of 1 GB: most memory of all ends",
    ours: most,
    base: before,
    baseName: "before it",
    unit: "MB",
  });
}
