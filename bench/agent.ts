// What the shipped agent costs requests that it passes to the application while an intercept's filter takes others, on
// loopback: requests that one core carries and the latency that is added at 200 requests a second, beside bare proxies of
// node:http and node:http2 in the same run; memory; and what the record for `why` costs, switched on and off in turn.
import { fork, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { systemClock } from "#base/clock.ts";
import { build } from "#scripts/build.ts";
import { askAgent, introduce, testManager, TestLaptop, workload } from "#test/flow/manager/harness.ts";
import { checkoutRoot } from "#testbed/layout.ts";
import type { Agent } from "#agent/agent.ts";
import { Decisions } from "#agent/decisions.ts";
import { readAsked } from "#agent/inbound/http/http-decision.ts";
import type { Manager } from "#manager/manager.ts";
import { agentIntroductionPort } from "#wire/agent-api.ts";
import { KeptLoad, measureLatencies, measureLoad, memoryOf } from "./agent-load.ts";
import type { End, Memory, Version } from "./agent-load.ts";
import { median, Results } from "./results.ts";
import type { Figure, Report } from "./results.ts";

const program = join(import.meta.dirname, "agent-ends.mjs");
const dist = join(checkoutRoot, "dist");
/** As the image starts it. */
const nodeFlags = ["--max-semi-space-size=1"];
const rounds = 5;
const recordRounds = 60;
const recordMs = 400;
const loadWarmMs = 3000;
const latencyRequests = 2000;
const entries = 300_000;
const settleMs = 3000;
const live = new AbortController().signal;
/** Looks at what many filters look at, and takes nothing of the load. */
const filter = 'request.headers["x-telepresence-intercept-id"] == "somebody"';

interface Ends extends Disposable {
  readonly app: Record<Version, number>;
  readonly proxy: Record<Version, End>;
  readonly pipe: End;
}

export async function benchAgent(report: Report): Promise<void> {
  await build((line) => report(line, ""));
  const results = new Results("agent", report);
  using ends = await startEnds();
  await using manager = await testManager();
  await using laptop = await TestLaptop.connect(manager);
  await results.begin();
  await benchShipped(results.add, ends, { manager, laptop });
  await benchRecord(results.add, ends, { manager, laptop });
  results.write();
}

type Add = (figure: Figure) => void;
interface Cluster {
  readonly manager: Manager;
  readonly laptop: TestLaptop;
}

async function benchShipped(add: Add, ends: Ends, cluster: Cluster): Promise<void> {
  const versions: readonly Version[] = ["HTTP/1.1", "HTTP/2"];
  using agent = await startShipped(versions.map((version) => ends.app[version]));
  await enlist(cluster, agentIntroductionPort, "uid-shipped", Object.values(ends.app));
  await systemClock.sleep(settleMs, live);
  const idle = memoryOf(agent.pid);
  for (const [index, version] of versions.entries()) {
    const end: End = { pid: agent.pid, port: agent.ports[index] ?? 0 };
    await benchRate(add, version, end, ends);
    await benchLatency(add, version, [ends.app[version], end.port, ends.proxy[version].port]);
  }
  await systemClock.sleep(settleMs, live);
  addMemory(add, "idle", idle);
  addMemory(add, "after the load", memoryOf(agent.pid));
}

async function benchRate(add: Add, version: Version, end: End, { proxy, pipe }: Ends): Promise<void> {
  const rates: { ours: number; base: number; pipe: number }[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const ours = await measureLoad(end, version);
    const base = await measureLoad(proxy[version], version);
    rates.push({ ours, base, pipe: version === "HTTP/1.1" ? await measureLoad(pipe, version) : Number.NaN });
  }
  const unit = "requests/s of one core";
  const what = `agent: unmatched requests passed, ${version}`;
  const baseName = `bare ${version === "HTTP/2" ? "node:http2" : "node:http"} proxy`;
  const middle = (key: "ours" | "base" | "pipe"): number => median(rates.map((rate) => rate[key]));
  add({ what, ours: middle("ours"), base: middle("base"), baseName, unit });
  add({ what: `${what}, ratio`, ours: median(rates.map(({ ours, base }) => ours / base)), unit: "×" });
  if (version === "HTTP/1.1") add({ what: "mere pipe, HTTP/1.1", ours: middle("pipe"), unit });
}

async function benchLatency(add: Add, version: Version, ports: readonly number[]): Promise<void> {
  const [direct, through, proxy] = await measureLatencies(ports, version, latencyRequests);
  if (direct === undefined || through === undefined || proxy === undefined) return;
  for (const key of ["p50", "p99"] as const) {
    const what = `an unmatched request at 200/s, ${version}, ${key}`;
    const base = direct[key];
    const unit = "ms";
    add({ what: `agent: added to ${what}`, ours: through[key] - base, base, baseName: "without agent", unit });
    add({ what: `bare proxy: added to ${what}`, ours: proxy[key] - base, base, baseName: "without", unit });
  }
}

function addMemory(add: Add, when: string, { anonymous, resident }: Memory): void {
  add({ what: `agent: anonymous memory, ${when}`, ours: anonymous, unit: "MB" });
  add({ what: `agent: resident memory, ${when}`, ours: resident, unit: "MB" });
}

/** The same process and the same connections with the record and without, in turn. */
async function benchRecord(add: Add, ends: Ends, cluster: Cluster): Promise<void> {
  const child = fork(program, ["agent", `${ends.app["HTTP/1.1"]}`], { execArgv: nodeFlags });
  try {
    const [{ port, introductionPort }] = (await once(child, "message")) as [{ port: number; introductionPort: number }];
    await enlist(cluster, introductionPort, "uid-recording", [ends.app["HTTP/1.1"]]);
    using load = new KeptLoad(port);
    const used = async (record: boolean): Promise<number> => {
      child.send({ record });
      const [{ usedMicroseconds }] = (await once(child, "message")) as [{ usedMicroseconds: number }];
      return usedMicroseconds;
    };
    const costOf = async (record: boolean): Promise<number> => {
      const before = await used(record);
      const count = await load.askFor(recordMs);
      return ((await used(record)) - before) / count;
    };
    await load.askFor(loadWarmMs);
    const costs: { with: number; without: number }[] = [];
    for (let round = 0; round < recordRounds; round += 1) {
      const first = await costOf(round % 2 === 0);
      const second = await costOf(round % 2 !== 0);
      costs.push(round % 2 === 0 ? { with: first, without: second } : { with: second, without: first });
    }
    const share = 100 * median(costs.map((cost) => cost.with / cost.without - 1));
    add({ what: "agent: processor time that the record for why adds", ours: share, unit: "%" });
    add({ what: "agent: one entry of that record", ours: timeEntry(), unit: "µs" });
  } finally {
    child.kill();
  }
}

/** By itself, in this process: what is left of the comparison where the machine is too busy for it. */
function timeEntry(): number {
  const decisions = new Decisions(systemClock);
  const head = `GET /some/path HTTP/1.1\r\nhost: app\r\nuser-agent: some value\r\naccept: some value\r\n\r\n`;
  const heads = Array.from({ length: 1000 }, () => Buffer.from(head));
  const measure = (): number => {
    const before = process.cpuUsage();
    for (let index = 0; index < entries; index += 1) {
      const bytes = heads[index % heads.length] ?? Buffer.alloc(0);
      const received = { bytes, headBytes: bytes.length, read: readAsked };
      decisions.add({ containerPort: 8080, head: received, asked: [], taken: undefined }).answered(200);
    }
    const { user, system } = process.cpuUsage(before);
    return (user + system) / entries;
  };
  return median(Array.from({ length: rounds }, measure));
}

async function startEnds(): Promise<Ends> {
  const children: { readonly kill: () => void }[] = [];
  const start = async (what: string, appPort = 0): Promise<End> => {
    const child = fork(program, [what, `${appPort}`]);
    children.push({ kill: () => void child.kill() });
    const [{ port }] = (await once(child, "message")) as [{ port: number }];
    return { pid: child.pid ?? 0, port };
  };
  const [app, app2] = [await start("app"), await start("app2")];
  return {
    app: { "HTTP/1.1": app.port, "HTTP/2": app2.port },
    proxy: { "HTTP/1.1": await start("proxy", app.port), "HTTP/2": await start("proxy2", app2.port) },
    pipe: await start("pipe", app.port),
    [Symbol.dispose]: () => {
      for (const child of children) child.kill();
    },
  };
}

interface Shipped extends Disposable {
  readonly pid: number;
  readonly ports: readonly number[];
}

/** The bundle as the image has it. Its introduction port is one, so there is one such agent at a time. */
async function startShipped(appPorts: readonly number[]): Promise<Shipped> {
  const ports = appPorts.map((_, index) => 19_980 + index);
  const config = {
    containerName: "app",
    workload,
    ports: appPorts.map((containerPort, index) => ({
      containerName: "app",
      containerPort,
      agentPort: ports[index],
      takeover: "name",
      protocol: "tcp",
      http: true,
    })),
  };
  const env = {
    TELEPRESENCE_AGENT_CONFIG: JSON.stringify(config),
    TELEPRESENCE_POD_IPS: "127.0.0.1",
    TELEPRESENCE_POD_NAME: "bench",
    TELEPRESENCE_POD_UID: "uid-shipped",
    TELEPRESENCE_DRAIN_SECONDS: "0",
  };
  const node = join(dist, "node", "bin", "node");
  const child = spawn(node, [...nodeFlags, join(dist, "agent", "start.js")], {
    env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  for await (const text of child.stdout) if (String(text).includes("agent started")) break;
  return { pid: child.pid ?? 0, ports, [Symbol.dispose]: () => void child.kill() };
}

/** As a laptop does that may port-forward to the agent's pod: an intercept of these ports whose filter takes nothing. */
async function enlist(
  { manager, laptop }: Cluster,
  introductionPort: number,
  podUid: string,
  containerPorts: readonly number[],
): Promise<void> {
  const agent = { introductionPort } as Agent;
  const { fingerprint } = await askAgent(agent, (rpc) => rpc.call("identify", {}, live));
  const agents = [{ fingerprint, podUid, podName: podUid, workload }];
  await laptop.rpc.call("agents.trust", { agents }, live);
  await introduce(agent, manager, { sessionId: laptop.sessionId });
  const ports = containerPorts.map((containerPort) => ({
    containerPort,
    protocol: "tcp" as const,
    targetHost: "127.0.0.1",
    targetPort: 1,
  }));
  await laptop.intercept(podUid, containerPorts[0] ?? 0, "tcp", { ports, filter, allowOverlap: true });
  await laptop.until((intercepts) => intercepts.some(({ spec, state }) => spec.name === podUid && state === "active"));
}
