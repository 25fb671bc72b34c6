// `npm test [TIER…] [-- vitest filters]`: the tiers in order, each slower and closer to the real thing than the one
// before; at the end stands what failed, and the last line is the sum over all of them. What a tier needs is installed or
// built first. Where that cannot be done the reason is one sentence and the tier's tests count as failed: a green sum
// means that everything ran. Ctrl-C ends the tier that runs, takes its cluster away, and runs no other.
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { formatError, toAppError } from "#base/error.ts";
import { down, importImage, status, up } from "#testbed/cluster.ts";
import { installPackages, requireRoot, requireTun } from "#testbed/prerequisites.ts";
import { build } from "./build.ts";
import { projectRoot } from "./bundle.ts";
import { imageFile } from "./image.ts";
import { Interruption } from "./interruption.ts";
import { runCaptured, runInherited } from "./process.ts";
import { addCounts, countReport, formatCounts, listFailures, noTests } from "./report.ts";
import type { Counts, VitestReport } from "./report.ts";

interface Tier {
  readonly name: string;
  /** For whoever waits. */
  readonly what: string;
  /** Throws an AppError that says what is missing. */
  readonly prepare: () => Promise<void>;
  readonly cleanUp?: () => Promise<void>;
}

/** Debian packages that only one tier needs, each with files that show that it is there. */
const servicePackages = { postgresql: ["/usr/lib/postgresql/*/bin/initdb"], pgbouncer: ["/usr/sbin/pgbouncer"] };
const browserPackages = {
  chromium: ["chromium"],
  "fonts-dejavu-core": ["/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"],
};

const say = (line: string): void => void process.stdout.write(`${line}\n`);
const nothing = async (): Promise<void> => {};

const tiers: readonly Tier[] = [
  { name: "unit", what: "each file by itself (usually 45 s)", prepare: nothing },
  { name: "architecture", what: "the import ladder and the style budgets (usually 3 s)", prepare: nothing },
  { name: "flow", what: "both ends in one process (usually 2 to 4 min)", prepare: nothing },
  {
    name: "services",
    what: "servers that Debian has: PostgreSQL, PgBouncer (usually 30 s)",
    prepare: () => installPackages(say, servicePackages),
  },
  { name: "netns", what: "real devices, routes and resolvers (usually 2 min)", prepare: prepareMachine },
  {
    name: "browser",
    what: "pages in a real browser (usually 40 s)",
    prepare: () => installPackages(say, browserPackages),
  },
  {
    name: "cluster",
    what: "a real Kubernetes node (usually 45 min; the first time on a machine 6 min more, to build it)",
    prepare: prepareCluster,
    cleanUp: removeCluster,
  },
];

async function prepareMachine(): Promise<void> {
  requireRoot();
  requireTun();
  await installPackages(say);
}

/** Up to date programs, and a cluster that has their image. */
async function prepareCluster(): Promise<void> {
  await prepareMachine();
  await installPackages(say, { ...browserPackages, ...servicePackages }); // previews are looked at, and a server has a database
  foundUp = (await status())[0]?.startsWith("the cluster is up") === true;
  await build(say);
  await up({ say });
  if (existsSync(imageFile())) await importImage(imageFile());
}

/** A cluster that somebody works with stays. */
async function removeCluster(): Promise<void> {
  if (!foundUp && process.getuid?.() === 0) await down({ say });
}

let foundUp = false;
const failures: string[] = [];
const interruption = new Interruption();
process.stdout.on("error", () => undefined); // a terminal that was closed takes no line, and the cluster is to go
const { chosen, filters } = readArguments(process.argv.slice(2));
const scratch = mkdtempSync(join(tmpdir(), "telepresence-test-"));
let total = noTests;
for (const tier of chosen) if (!interruption.came) total = addCounts(total, await runTier(tier));
rmSync(scratch, { recursive: true, force: true });
if (total.failed > 0 || total.passed === 0) process.exitCode = 1;
if (interruption.came) {
  say("\nInterrupted.");
  process.exitCode = 130;
}
if (failures.length > 0) say(`\nWhat failed:\n${failures.map((line) => `- ${line}`).join("\n")}\n`);
say(formatCounts(total));

/** Names of tiers choose them; everything else goes to vitest. */
function readArguments(args: readonly string[]): {
  readonly chosen: readonly Tier[];
  readonly filters: readonly string[];
} {
  const named = tiers.filter((tier) => args.includes(tier.name));
  const filters = args.filter((arg) => !tiers.some((tier) => tier.name === arg));
  return { chosen: named.length === 0 ? tiers : named, filters };
}

async function runTier(tier: Tier): Promise<Counts> {
  say(`\n== ${tier.name}: ${tier.what}`);
  let counts: Counts;
  try {
    await tier.prepare();
    interruption.check();
    counts = await runVitest(tier);
  } catch (error) {
    fail(`The ${tier.name} tier cannot run: ${formatError(toAppError(error))}`);
    counts = { ...noTests, failed: interruption.came ? 1 : await countTests(tier) };
  }
  try {
    await tier.cleanUp?.();
  } catch (error) {
    fail(`Cleaning up after the ${tier.name} tier failed: ${formatError(toAppError(error))}`);
    counts = addCounts(counts, { ...noTests, failed: 1 });
  }
  say(`== ${tier.name}: ${formatCounts(counts)}`);
  return counts;
}

/** Said at once, and again at the end. */
function fail(sentence: string): void {
  say(sentence);
  failures.push(sentence);
}

async function runVitest(tier: Tier): Promise<Counts> {
  const reportFile = join(scratch, `${tier.name}.json`);
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${reportFile}`];
  const args = ["run", "--project", tier.name, "--passWithNoTests", ...reporters, ...filters];
  const exitCode = await runInherited("vitest", args);
  const report = readReport(reportFile);
  const listed = listFailures(report, projectRoot);
  failures.push(...listed);
  const counts = countReport(report, exitCode);
  if (counts.failed > 0 && listed.length === 0 && !interruption.came) {
    fail(`The ${tier.name} tier failed outside of its tests: its output says why.`);
  }
  const ran = counts.passed + counts.failed;
  if (ran > 0 || filters.length > 0) return counts;
  fail(`The ${tier.name} tier ran no test at all, which counts as a failure.`);
  return { ...counts, failed: 1 };
}

function readReport(path: string): VitestReport | undefined {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as VitestReport;
  } catch {
    return undefined; // vitest ended before it could report, which counts as a failure
  }
}

/** How many tests a tier has that cannot run; at least one, so that it shows. */
async function countTests(tier: Tier): Promise<number> {
  const list = join(scratch, `${tier.name}-list.json`);
  await runCaptured("vitest", ["list", "--project", tier.name, `--json=${list}`, ...filters]);
  try {
    return Math.max((JSON.parse(readFileSync(list, "utf8")) as readonly unknown[]).length, 1);
  } catch {
    return 1;
  }
}
