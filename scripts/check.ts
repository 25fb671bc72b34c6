// `npm run check`: everything that can be known without root, in about a minute, with one verdict at the end. What
// passes is one line; what fails shows what it said.
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { projectRoot } from "./bundle.ts";
import { runCaptured } from "./process.ts";

interface Task {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
}

/** Twice the cores, because many flow tests wait for processes and clocks most of their time. */
const maxWorkers = 2 * availableParallelism();
const tests = ["run", "--reporter=minimal", `--maxWorkers=${maxWorkers}`, "--project", "check"];

/** Only what changed since the last time is looked at again: 1 s instead of 7. */
const incremental = ["--incremental", "--tsBuildInfoFile", "node_modules/.cache/check.tsbuildinfo"];

/** Longest first, so that the cores end together. */
const tasks: readonly Task[] = [
  { name: "tests: unit, flow, architecture", command: "vitest", args: tests },
  { name: "types", command: "tsc", args: ["-p", ".", ...incremental] },
  { name: "types of the page", command: "tsc", args: ["-p", "src/dashboard"] },
  { name: "lint", command: process.execPath, args: ["scripts/lint.ts"] },
  { name: "dead code", command: "knip", args: ["--no-config-hints"] },
  { name: "format", command: "oxfmt", args: ["--check"] },
];

/** `npm test` gives tests of random inputs up to seventy times as many, and those under load ten times as many rounds. */
const fewer = {
  TELEPRESENCE_CHECK: "1", // base/rounds.fake.ts
  FUZZ_INPUTS: "300",
  TELEPRESENCE_SIMULATION_STEPS: "3000",
  ATTACH_CYCLES: "2",
  LINK_CUTS: "2",
  // each worker compiles what it loads, and so does each program that a test starts
  NODE_COMPILE_CACHE: join(projectRoot, "node_modules", ".cache", "compiled"),
};
/** Types and lint are programs of Go that end soon: not collecting before there is a need takes a fifth off them. */
const collectingLate = { GOGC: "off", GOMEMLIMIT: "1500MiB" };

const startedMs = performance.now();
const waiting = [...tasks];
const failed: string[] = [];
await Promise.all(Array.from({ length: Math.min(availableParallelism(), tasks.length) }, work));
const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
if (failed.length === 0) {
  process.stdout.write(`check passed in ${seconds} s\n`);
} else {
  process.stdout.write(
    `check failed in ${seconds} s: ${failed.join(", ")} ("npm run fix" mends format and some lint)\n`,
  );
  process.exitCode = 1;
}

async function work(): Promise<void> {
  for (let task = waiting.shift(); task !== undefined; task = waiting.shift()) {
    const run = await runCaptured(task.command, task.args, { ...fewer, ...collectingLate });
    const verdict = run.code === 0 ? "ok    " : "FAILED";
    process.stdout.write(`${verdict} ${task.name} (${(run.ms / 1000).toFixed(1)} s)\n`);
    if (run.code === 0) continue;
    failed.push(task.name);
    process.stdout.write(`${run.output.trimEnd()}\n`);
  }
}
