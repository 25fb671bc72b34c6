// Test tiers. unit: beside the code; flow: both ends in one process, no privilege; services: with outside servers that
// Debian has; netns: real TUN, resolver and routes in namespaces the tests make (root); browser: pages in a real
// browser; cluster: the one-node cluster of testbed/.
import { defineConfig } from "vitest/config";

/** Only what never comes takes so long: a busy machine needs more than the second that vitest waits for an event. */
const poll = { timeout: 10_000 };
/** Only what hangs takes so long: what computes for four seconds did so for 23 beside three others. */
const patience = { testTimeout: 60_000, hookTimeout: 60_000 };

const tier = (name: string, include: string[], extra: object = {}): object => ({
  test: { name, include, environment: "node", expect: { poll }, ...patience, ...extra },
});
const serial = { fileParallelism: false, maxWorkers: 1 };

/** Tests leave nothing behind, so files share modules, which are compiled once: half the time of the unit tests. */
const shared = { isolate: false };

/** With room from the beginning, for what dies young and for the modules of all files, collecting costs a fifth less. */
const roomyHeap = ["--min-semi-space-size=16", "--max-semi-space-size=16", "--initial-old-space-size=512"];
const ownImports = `--import=${new URL("test/own-imports.ts", import.meta.url).href}`;

/**
 * Node runs the sources as it does outside of tests: vitest's own way of loading modules puts a look-up before each use of
 * an import, which was a fifth of the processor time of all tests. It would be needed for mocked modules, and there are none.
 */
const asNodeDoes = { viteModuleRunner: false, nodeLoader: false };

const unit = ["src/**/*.test.ts", "testbed/**/*.test.ts", "scripts/**/*.test.ts"];
const architecture = ["test/architecture.test.ts"];
const flow = ["test/flow/**/*.test.ts"];
/** Built once, for the tests that start programs. */
const programs = { globalSetup: "test/flow/cli/programs.ts" };
const inSharedWorkers = { ...shared, execArgv: [...roomyHeap, ownImports] };

export default defineConfig({
  test: {
    experimental: asNodeDoes,
    projects: [
      tier("unit", unit, inSharedWorkers),
      tier("architecture", architecture),
      tier("flow", flow, { ...inSharedWorkers, ...programs }),
      // the three of `npm run check`: the same workers load all modules once, a tenth of the processor time
      tier("check", [...unit, ...flow, ...architecture], { ...inSharedWorkers, ...programs }),
      tier("services", ["test/services/**/*.test.ts"], serial),
      tier("netns", ["test/netns/**/*.test.ts"], serial),
      tier("browser", ["test/browser/**/*.test.ts"], serial),
      tier("cluster", ["test/cluster/**/*.test.ts"], { testTimeout: 180_000, hookTimeout: 300_000, ...serial }),
    ],
  },
});
