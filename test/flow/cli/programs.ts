// The programs that tests start as processes, bundled once per run as they are shipped: from the source each of seventy
// starts would cost four times the processor time. A global setup of vitest; tests find them with `inject("programs")`.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";
import { bundle, bundleFile, projectRoot } from "#scripts/bundle.ts";
import { startText } from "#scripts/code-cache.ts";
import { runCaptured } from "#scripts/process.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** The folder of `cli` and `daemon`, each with its start.js. */
    programs: string;
  }
}

const folder = mkdtempSync(join(tmpdir(), "telepresence-programs-"));

export async function setup(project: TestProject): Promise<void> {
  const [cli, daemon] = [join(folder, "cli"), join(folder, "daemon")];
  await Promise.all([
    bundle("cli", { outDir: cli }),
    bundleFile("test/flow/cli/daemon-program.ts", { outDir: daemon }),
  ]);
  writeFileSync(join(folder, "package.json"), '{ "type": "commonjs" }\n');
  for (const program of [cli, daemon]) writeFileSync(join(program, "start.js"), startText);
  await layCodeCache(cli);
  project.provide("programs", folder);
}

export function teardown(): void {
  rmSync(folder, { recursive: true, force: true });
}

/** With a home of its own, where no daemon runs. */
async function layCodeCache(program: string): Promise<void> {
  const warmUp = join(projectRoot, "scripts", "warm-up.ts");
  const rounds = JSON.stringify([["status"], ["connect", "--", "no-such-command"], ["intercept", "--help"]]);
  await runCaptured(process.execPath, [warmUp, program, rounds], { HOME: folder, XDG_RUNTIME_DIR: folder });
}
