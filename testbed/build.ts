// Builds the cluster's programs from their published modules into the cache, keyed by what they are built from, so
// that a second checkout of the same sources does not build again.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, statSync, utimesSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { AppError } from "#base/error.ts";
import { lastLines, run } from "./exec.ts";
import { cacheDir, checkoutRoot } from "./layout.ts";
import { requireGo } from "./prerequisites.ts";
import type { Say } from "./progress.ts";

export const kubernetesVersion = "v1.34.4";

interface Program {
  readonly name: "kube" | "coredns" | "pause";
  readonly title: string;
  readonly usually: string;
  readonly linkFlags: string;
}

const versionPackage = "k8s.io/component-base/version";
const [, minor] = kubernetesVersion.split(".");

const programs: readonly Program[] = [
  { name: "pause", title: "the pause program", usually: "a second", linkFlags: "-s -w" },
  { name: "coredns", title: "CoreDNS", usually: "1 to 2 minutes, once", linkFlags: "-s -w" },
  {
    name: "kube",
    title: `Kubernetes ${kubernetesVersion} and etcd`,
    usually: "5 to 8 minutes on two cores, once",
    // Without these the API server reports no version, and clients guess.
    linkFlags: [
      "-s -w",
      `-X ${versionPackage}.gitVersion=${kubernetesVersion}`,
      `-X ${versionPackage}.gitMajor=1`,
      `-X ${versionPackage}.gitMinor=${minor}`,
    ].join(" "),
  },
];

export type ProgramName = Program["name"];
export type Programs = Readonly<Record<ProgramName, string>>;

const buildTimeoutMs = 45 * 60_000;
const heartbeatMs = 15_000;

/** The programs' paths, built first where they are missing. */
export async function buildPrograms(say: Say): Promise<Programs> {
  const paths: Partial<Record<ProgramName, string>> = {};
  for (const program of programs) paths[program.name] = await buildProgram(program, say);
  return paths as Programs;
}

/** Content hash of a Go module's sources and of how they are linked. */
export function moduleKey(sources: ReadonlyMap<string, string>, linkFlags: string, architecture: string): string {
  const hash = createHash("sha256").update(`${architecture}\n${linkFlags}\n`);
  for (const name of [...sources.keys()].sort()) {
    const text = sources.get(name) ?? "";
    hash.update(`${name} ${Buffer.byteLength(text)}\n${text}`);
  }
  return hash.digest("hex").slice(0, 16);
}

async function buildProgram(program: Program, say: Say): Promise<string> {
  const sourceDir = join(checkoutRoot, "testbed/go", program.name);
  const sources = new Map(
    readdirSync(sourceDir)
      .filter((name) => /\.go$|^go\.(mod|sum)$/.test(name))
      .map((name) => [name, readFileSync(join(sourceDir, name), "utf8")]),
  );
  const outDir = join(cacheDir, `${program.name}-${moduleKey(sources, program.linkFlags, process.arch)}`);
  const file = join(outDir, program.name);
  if (existsSync(file)) {
    const now = new Date();
    utimesSync(outDir, now, now); // in use: see removeOldBuilds()
    return file;
  }

  const wanted = /^go (\S+)$/m.exec(sources.get("go.mod") ?? "")?.[1] ?? "1.24.0";
  const go = await requireGo(wanted);
  say(`building ${program.title} (usually ${program.usually})`);
  mkdirSync(outDir, { recursive: true });
  const draft = join(outDir, `.draft-${process.pid}`); // an orphan of a killed run may still write its own
  const arguments_ = ["build", "-v", `-ldflags=${program.linkFlags}`, "-o", draft, "."];
  await withHeartbeat(say, program.title, async (count) => {
    const result = await run(go, arguments_, {
      cwd: sourceDir,
      env: goEnv(),
      timeoutMs: buildTimeoutMs,
      allowFailure: true,
      onLine: count,
    });
    if (result.code !== 0) throw buildFailure(program, result.stderr);
  });
  renameSync(draft, file);
  removeOldBuilds(program);
  return file;
}

function goEnv(): Record<string, string> {
  return {
    CGO_ENABLED: "0",
    GOFLAGS: "-mod=readonly",
    GOWORK: "off",
    GOTOOLCHAIN: "local",
    HOME: process.env["HOME"] ?? homedir(), // go refuses to work without one
  };
}

async function withHeartbeat(say: Say, title: string, work: (line: (text: string) => void) => Promise<void>) {
  let [compiled, downloaded] = [0, 0];
  const timer = setInterval(() => {
    say(`  ${title}: ${downloaded} modules downloaded, ${compiled} packages compiled so far`);
  }, heartbeatMs);
  try {
    await work((line) => {
      if (line.startsWith("go: downloading")) downloaded += 1;
      else compiled += 1;
    });
  } finally {
    clearInterval(timer);
  }
}

function buildFailure(program: Program, said: string): AppError {
  const network = /dial tcp|no such host|i\/o timeout|connection refused|network is unreachable|proxyconnect/.test(
    said,
  );
  if (!network) {
    return new AppError("command_failed", `building ${program.title} failed: ${lastLines(said, 8)}`);
  }
  return new AppError(
    "environment_incomplete",
    `the Go modules of ${program.title} could not be downloaded: ${lastLines(said, 1)}`,
    { hint: "check the network, or set GOPROXY to a module proxy that this machine reaches, and run it again" },
  );
}

/** Another checkout, or a cluster that is up, may still use the build before. */
const keepUnusedMs = 14 * 24 * 3_600_000;

function removeOldBuilds(program: Program): void {
  for (const name of readdirSync(cacheDir).filter((entry) => entry.startsWith(`${program.name}-`))) {
    const path = join(cacheDir, name);
    if (Date.now() - statSync(path).mtimeMs > keepUnusedMs) rmSync(path, { recursive: true, force: true });
  }
}
