// Programs start with their code compiled: beside each bundle lies what V8 made of it while the build ran it once. The
// cache is made for one Node and one text; another Node passes over it, which costs time and nothing else. A bundle that
// is edited by hand needs its cache removed: V8 compares lengths. A warm-up that fails is told and never ends a build.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { constants, Script } from "node:vm";
import type { Program } from "./bundle.ts";

/** What the launcher and the image start: it gives the bundle to V8 together with its compiled code. */
export const startText = `"use strict";
const { readFileSync } = require("node:fs");
const { constants, Script } = require("node:vm");
const filename = __dirname + "/main.js";
let cachedData;
try {
  cachedData = readFileSync(__dirname + "/main.cache");
} catch {} // no cache: a slower start and nothing else
const importModuleDynamically = constants.USE_MAIN_CONTEXT_DEFAULT_LOADER;
const script = new Script(readFileSync(filename, "latin1"), { filename, cachedData, importModuleDynamically });
script.runInThisContext()(require, module, filename, __dirname);
`;

/** A bundle as `startText` reads it. It is plain ASCII, which V8 keeps as it is. */
export function readBundle(folder: string): { readonly filename: string; readonly script: Script } {
  const filename = join(folder, "main.js");
  const importModuleDynamically = constants.USE_MAIN_CONTEXT_DEFAULT_LOADER;
  return { filename, script: new Script(readFileSync(filename, "latin1"), { filename, importModuleDynamically }) };
}

/** chosen: warm-up.ts ends by itself before. */
const limitMs = 20_000;

/** The command line asks a daemon that runs meanwhile; both have a home that is gone afterwards. */
export async function layCodeCaches(dist: string, say: (line: string) => void): Promise<void> {
  const home = mkdtempSync(join(tmpdir(), "telepresence-build-"));
  const warmUp = async (program: Program, wish: Wish = {}): Promise<void> => {
    const trouble = await runWarmUp(join(dist, program), { HOME: home, XDG_RUNTIME_DIR: home }, wish);
    if (trouble !== undefined) say(`${program} will start slower: ${trouble}`);
  };
  try {
    const { promise: daemonStarted, resolve } = Promise.withResolvers<void>();
    const daemon = warmUp("daemon", { onText: (text) => text.includes("daemon started") && resolve() });
    await Promise.all([
      daemon,
      Promise.race([daemonStarted, daemon]).then(() => warmUp("cli", { rounds: commandLines })),
      warmUp("helper"), // finds no daemon at its standard input
      warmUp("manager", { env: podEnvironment, until: "manager started" }),
      warmUp("agent", { env: podEnvironment, until: "agent started" }),
      warmUp("cloud", { rounds: [["serve"]], until: "cloud server started" }),
    ]);
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
}

interface Wish {
  /** The arguments of each run. */
  readonly rounds?: readonly (readonly string[])[];
  /** What the program writes when it has started, and is to be told to end. */
  readonly until?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly onText?: (text: string) => void;
}

/** Resolves with what went wrong. */
function runWarmUp(
  folder: string,
  home: Readonly<Record<string, string>>,
  { rounds = [[]], until, env, onText }: Wish,
): Promise<string | undefined> {
  const words = [join(import.meta.dirname, "warm-up.ts"), folder, JSON.stringify(rounds)];
  const child = spawn(join(folder, "../node/bin/node"), until === undefined ? words : [...words, until], {
    env: { ...home, ...env },
    cwd: "/",
    stdio: ["ignore", "ignore", "pipe"],
    timeout: limitMs,
    killSignal: "SIGKILL",
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => onText?.(text));
  return new Promise((resolve) => {
    child.on("error", (error) => resolve(error.message));
    child.on("close", (code, signal) => resolve(code === 0 ? undefined : `its warm-up ended by ${signal ?? code}`));
  });
}

/** None of them connects; the last one ends the daemon. */
const commandLines = [
  ["version"],
  ["status"],
  ["status", "--output", "json"],
  ["intercept", "--help"],
  ["intercept", "x", "--http-header", "a=b", "--match", "request."],
  ["leave", "x"],
  ["quit"],
] as const;

const podEnvironment = {
  TELEPRESENCE_POD_IPS: "127.0.0.1",
  TELEPRESENCE_DRAIN_SECONDS: "0",
  TELEPRESENCE_AGENT_CONFIG: JSON.stringify({
    containerName: "app",
    workload: { kind: "Deployment", name: "app", namespace: "app" },
    ports: [
      { portName: "http", containerName: "app", containerPort: 1, agentPort: 1, takeover: "name", protocol: "tcp" },
    ],
  }),
};
