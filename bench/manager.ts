// A manager with a large team: 500 laptops, 2,000 agents, 1,000 intercepts. The shipped program on loopback; laptops (in
// this process) and agents (in another) are simulated ends that speak the real wire. How soon a created intercept is
// active, while all others are there; what the manager holds, and what it uses when nothing happens.
import { fork, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { systemClock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import { build } from "#scripts/build.ts";
import { introduce, never, TestLaptop } from "#test/flow/manager/harness.ts";
import { checkoutRoot } from "#testbed/layout.ts";
import type { Agent } from "#agent/agent.ts";
import type { Manager } from "#manager/manager.ts";
import { managerAgentPort, managerLaptopPort } from "#wire/manager-api.ts";
import { memoryOf } from "./agent-load.ts";
import { agents, agentsOfOne, containerPort, intercepts, laptops, workloadOf } from "./manager-shape.ts";
import { Results } from "./results.ts";
import type { Report } from "./results.ts";
import { cpuSeconds } from "./stage.ts";

/** As the image starts it. */
const nodeFlags = ["--max-semi-space-size=1"];
const settleMs = 5000;
const quietMs = 20_000;
const atOnce = 4;

type AgentEnd = Pick<Agent, "introductionPort" | "fingerprint">;

export async function benchManager(report: Report): Promise<void> {
  await build((line) => report(line, ""));
  const results = new Results("manager", report);
  using manager = await startShipped();
  const { pid } = manager;
  const idle = memoryOf(pid).anonymous;
  using ends = await startAgents();
  const team = await inTurns(laptops, (number) => TestLaptop.connect(manager.end, `user${number}@laptop${number}`));
  await inTurns(agents, async (number) => {
    const laptop = laptopOf(team, Math.floor(number / agentsOfOne));
    await introduceAgent(laptop, manager.end, ends.told[number] as Agent, number);
  });
  await systemClock.sleep(settleMs, never);
  await results.begin();
  const before = cpuSeconds(pid);
  const attachMs = await inTurns(intercepts, (number) => attach(laptopOf(team, number), number));
  const attachSeconds = cpuSeconds(pid) - before;
  await systemClock.sleep(settleMs, never);
  const usedBefore = cpuSeconds(pid);
  await systemClock.sleep(quietMs, never);
  const cores = (cpuSeconds(pid) - usedBefore) / (quietMs / 1000);
  const sorted = attachMs.toSorted((a, b) => a - b);
  const at = (share: number): number => sorted[Math.floor(sorted.length * share)] ?? Number.NaN;
  const { add } = results;
  const who = `manager with ${laptops} laptops, ${agents} agents, ${intercepts} intercepts`;
  add({ what: `${who}: an intercept is active, p50`, ours: at(0.5), unit: "ms" });
  add({ what: `${who}: an intercept is active, p99`, ours: at(0.99), unit: "ms" });
  add({ what: `${who}: processor time for each`, ours: (attachSeconds * 1000) / intercepts, unit: "ms" });
  const { anonymous, resident } = memoryOf(pid);
  add({ what: `${who}: anonymous memory`, ours: anonymous, base: idle, baseName: "without anybody", unit: "MB" });
  add({ what: `${who}: resident memory`, ours: resident, unit: "MB" });
  add({ what: `${who}: processors used while nothing happens`, ours: cores, unit: "cores" });
  for (const laptop of team) laptop.session.destroy();
  results.write();
}

function laptopOf(team: readonly TestLaptop[], intercept: number): TestLaptop {
  const laptop = team[intercept % team.length];
  if (laptop === undefined) throw new AppError("internal", `no laptop for intercept ${intercept}`);
  return laptop;
}

async function introduceAgent(laptop: TestLaptop, manager: Manager, agent: Agent, number: number): Promise<void> {
  const workload = workloadOf(Math.floor(number / agentsOfOne));
  const known = { fingerprint: agent.fingerprint, podUid: `uid-${number}`, podName: `pod-${number}`, workload };
  await laptop.rpc.call("agents.trust", { agents: [known] }, never);
  await introduce(agent, manager, { sessionId: laptop.sessionId });
}

/** Until both agents have confirmed it, ms. */
async function attach(laptop: TestLaptop, number: number): Promise<number> {
  const name = `app-${number}`;
  const startMs = performance.now();
  await laptop.intercept(name, containerPort, "tcp", { workload: workloadOf(number) });
  await laptop.until((all) => all.some(({ spec, state }) => spec.name === name && state === "active"));
  return performance.now() - startMs;
}

async function inTurns<T>(count: number, run: (number: number) => Promise<T>): Promise<readonly T[]> {
  const results: T[] = [];
  let next = 0;
  const one = async (): Promise<void> => {
    while (next < count) {
      const number = next++;
      results[number] = await run(number);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, one));
  return results;
}

/** The bundle as the image has it; its ports are fixed, so there is one at a time. */
async function startShipped(): Promise<Disposable & { readonly pid: number; readonly end: Manager }> {
  const dist = join(checkoutRoot, "dist");
  const env = { TELEPRESENCE_POD_IPS: "127.0.0.1", TELEPRESENCE_POD_NAME: "bench" };
  const child = spawn(join(dist, "node", "bin", "node"), [...nodeFlags, join(dist, "manager", "start.js")], {
    env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  let fingerprint = "";
  for await (const text of child.stdout) {
    fingerprint = /"fingerprint":"(\w+)"/.exec(String(text))?.[1] ?? "";
    if (fingerprint !== "") break;
  }
  child.stdout.resume();
  if (fingerprint === "") throw new AppError("internal", "the manager did not start; are its ports in use?");
  const ports = { laptopPort: managerLaptopPort, agentPort: managerAgentPort };
  return { pid: child.pid ?? 0, end: { ...ports, fingerprint } as Manager, [Symbol.dispose]: () => void child.kill() };
}

async function startAgents(): Promise<Disposable & { readonly told: readonly AgentEnd[] }> {
  const child = fork(join(import.meta.dirname, "manager-agents.ts"), [String(agents)]);
  const [told] = (await once(child, "message")) as [readonly AgentEnd[]];
  return { told, [Symbol.dispose]: () => void child.kill() };
}
