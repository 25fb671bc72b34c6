// The command line. `daemon` and `helper` are programs of their own behind the same name; the launcher in dist/bin
// starts those, so this file never loads them.
import { systemClock } from "#base/clock.ts";
import { readCliEnvironment } from "./config.ts";
import { handledSignals, Interrupts, signalExitCode } from "./interrupts.ts";
import { processSinks } from "./output.ts";
import { runCli } from "./run.ts";

const interrupts = new Interrupts();
for (const name of handledSignals) {
  process.on(name, () => {
    if (interrupts.raise(name)) process.exit(signalExitCode(name)); // the second one: the first did not help
  });
}
const { stdout, stderr, finish } = processSinks();

async function main(): Promise<void> {
  const code = await runCli({
    argv: process.argv.slice(2),
    environment: readCliEnvironment(),
    stdout,
    stderr,
    openMachine: async (environment) => (await import("./laptop.ts")).openLaptop(environment),
    interrupts,
    clock: systemClock,
  });
  const written = await finish();
  process.exit(written || code !== 0 ? code : 1);
}

void main();
