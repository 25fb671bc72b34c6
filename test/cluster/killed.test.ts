// TARGETS' row "helper, daemon, CLI each killed at random moments of connect, intercept, leave, quit": routes, resolver,
// nft, devices, sockets as before, without any command. Seeded: TELEPRESENCE_TEST_SEED repeats a run.
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { randomFrom } from "#base/random-inputs.fake.ts";
import { countOf, patience } from "#test/rounds.ts";
import { Lab, apply, rolledOut, until, webApp, report } from "./lab.ts";
import { seed } from "./random.ts";
import { stage } from "./stage.ts";

const namespace = "it-killed";
const lab = new Lab({ managerNamespace: "it-manager" });
const victims = ["helper", "daemon", "cli"] as const;
const commands = ["connect", "intercept", "leave", "quit"] as const;
type Victim = (typeof victims)[number];
type Command = (typeof commands)[number];
const rounds = countOf(5, 50);

stage([lab], namespace);
beforeAll(async () => {
  await apply(namespace, ...webApp({ name: "web" }));
  await rolledOut(namespace, "deployment/web");
  // the manager and the agent are there from here on, so that each round is about the laptop alone
  await lab.ok("intercept", "web", "--port", "18300", "-n", namespace);
  await lab.quit();
});

afterEach(async () => await lab.quit());

const connecting: readonly Command[] = ["connect", "intercept"];
const lines: Readonly<Record<Command, readonly string[]>> = {
  connect: ["connect", "-n", namespace],
  intercept: ["intercept", "web", "--port", "18300", "-n", namespace],
  leave: ["leave", "web"],
  quit: ["quit"],
};

/** What the command needs to have happened before. */
async function setUp(command: Command): Promise<void> {
  if (command === "connect") return;
  await lab.ok(...lines.connect);
  if (command === "leave" || command === "quit") await lab.ok(...lines.intercept);
}

async function killDuring(command: Command, victim: Victim, delayMs: number): Promise<void> {
  const usual = await lab.traces();
  await setUp(command);
  await using running = lab.start(lines[command]);
  await new Promise((resolve) => setTimeout(resolve, delayMs)); // the random moment itself
  // A victim that is not there yet is met as soon as it is.
  const pids = await until(
    `a ${victim}, or the end of the command`,
    () => {
      const found = lab.pids(victim);
      return (found.length > 0 || !running.running) && found;
    },
    { everyMs: 5 },
  );
  for (const pid of pids) process.kill(pid, "SIGKILL");
  const code = await running.ends();
  // A killed command leaves the daemon to its work, and that is as it should be: a person goes on with it. A command
  // that found its daemon or helper dead and got itself others has done what it was asked to.
  if (victim === "cli" || (code === 0 && connecting.includes(command))) await lab.quit();
  try {
    await until(
      "the laptop as before",
      async () => {
        expect(await lab.traces()).toEqual(usual);
        expect(lab.pids("helper")).toEqual([]);
        return true;
      },
      { limitMs: 20_000 },
    );
  } catch (error) {
    report("left", {
      ...(await lab.traces()),
      daemon: lab.pids("daemon"),
      helper: lab.pids("helper"),
      said: running.said,
    });
    throw error;
  }
  // and the next command works, without a cleaning one before
  await lab.ok(...lines.connect);
  expect((await lab.sh(`curl -sS --max-time 10 http://web.${namespace}/`)).stdout).toContain("Hello from the cluster");
  await lab.quit();
}

describe("killed with SIGKILL at a random moment, the laptop is as before", () => {
  const random = randomFrom(seed);
  for (const victim of victims) {
    const first = Math.floor(random() * commands.length);
    const plan = Array.from({ length: rounds }, (_, index) => {
      const command = commands[(first + index) % commands.length] ?? "connect";
      return { command, delayMs: Math.round(random() * 800) };
    });
    test(`${victim}, ${rounds} rounds`, { timeout: patience(180_000, 5, 50) }, async () => {
      for (const { command, delayMs } of plan) await killDuring(command, victim, delayMs);
      const said = plan.map(({ command, delayMs }) => `${command} after ${delayMs} ms`).join(", ");
      report(`kill -9 of the ${victim}, ${rounds} rounds as before, seed ${seed}`, said);
    });
  }
});
