// `npm run soak [ROW…] [--share S]`: the rows of TARGETS' reliability table as often as the table says, hours in all, one
// row after the other; without rows all of them. A share such as 0.1 makes a tenth of it. The last line is the sum.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { runInherited } from "./process.ts";
import { addCounts, countReport, formatCounts, noTests } from "./report.ts";
import type { Counts, VitestReport } from "./report.ts";

interface Row {
  readonly name: string;
  readonly project: "unit" | "flow" | "netns" | "cluster";
  /** Files, as vitest's filters; a count of their own is in them. */
  readonly files: readonly string[];
  /** How often, for files that do it once. */
  readonly times?: number;
  /** Only tests whose names match. */
  readonly only?: string;
}

const rows: readonly Row[] = [
  {
    name: "attach",
    project: "cluster",
    files: ["reliability-http", "cluster/ephemeral", "cluster/http2"],
    only: "attach and (detach|leave)",
  },
  { name: "first-attach", project: "cluster", files: ["cluster/reliability.test"], only: "first attach" },
  { name: "daemon-killed", project: "cluster", files: ["reliability-http"], only: "kill -9" },
  { name: "black-hole", project: "cluster", files: ["reliability-network"], times: 5 },
  { name: "wire", project: "cluster", files: ["cluster/wire"], times: 5 },
  { name: "manager", project: "cluster", files: ["reliability-manager"] },
  { name: "agent-killed", project: "cluster", files: ["reliability-pods", "cluster/ephemeral"], only: "killed" },
  { name: "pods", project: "cluster", files: ["reliability-pods"], only: "rollout, scale and eviction", times: 5 },
  { name: "memory", project: "cluster", files: ["cluster/ephemeral"], only: "memory|kernel ends", times: 5 },
  { name: "two-laptops", project: "cluster", files: ["two-laptops"] },
  { name: "killed", project: "cluster", files: ["cluster/killed"] },
  { name: "leaks", project: "flow", files: ["session/leaks"] },
  { name: "bytes", project: "cluster", files: ["cluster/bytes"] },
  { name: "idle", project: "unit", files: ["tunnel/session"], only: "nobody uses for eight hours" },
  { name: "load", project: "flow", files: ["http-load", "http2-load"] },
  { name: "simulation", project: "unit", files: ["tunnel/resumption"] },
  {
    name: "fuzz",
    project: "unit",
    files: [
      "outbound/classify",
      "dns/resolve",
      "inbound/tls/tls-hello",
      "packet/dns-message",
      "packet/packet-view",
      "wire/frame",
      "wire/hello-codec",
      "filter/fuzz",
      "filter/overlap",
      "filter/regex",
    ],
  },
  { name: "fuzz-http", project: "flow", files: ["fuzz", "hostile"] },
  { name: "strangers", project: "cluster", files: ["strangers"] },
];

const { positionals, values } = parseArgs({ allowPositionals: true, options: { share: { type: "string" } } });
const share = Number(values.share ?? 1);
const unknown = positionals.filter((name) => !rows.some((row) => row.name === name));
if (unknown.length > 0 || !(share > 0 && share <= 1)) {
  const known = rows.map(({ name }) => name).join(", ");
  const what = unknown.length > 0 ? `There is no row "${unknown[0]}"` : `--share is "${values.share}", expected 0 to 1`;
  process.stderr.write(`${what}; the rows are: ${known}.\n`);
  process.exit(2);
}
const count = (full: number): string => String(Math.max(1, Math.round(full * share)));
Object.assign(process.env, {
  TELEPRESENCE_SOAK: String(share),
  FUZZ_INPUTS: count(1_000_000),
  ATTACH_CYCLES: count(200),
  LINK_CUTS: count(200),
  TELEPRESENCE_SIMULATION_STEPS: count(1_000_000),
});
const scratch = mkdtempSync(join(tmpdir(), "telepresence-soak-"));
let total = noTests;
for (const row of rows) {
  if (positionals.length === 0 || positionals.includes(row.name)) total = addCounts(total, await soak(row));
}
rmSync(scratch, { recursive: true, force: true });
if (total.failed > 0 || total.passed === 0) process.exitCode = 1;
process.stdout.write(`${formatCounts(total)}\n`);

async function soak({ name, project, files, times = 1, only }: Row): Promise<Counts> {
  let sum = noTests;
  const repeats = Math.max(1, Math.round(times * share));
  for (let time = 1; time <= repeats; time += 1) {
    process.stdout.write(`\n== ${name}${repeats > 1 ? `, ${time} of ${repeats}` : ""}\n`);
    const reportFile = join(scratch, `${name}-${time}.json`);
    const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${reportFile}`];
    const chosen = only === undefined ? [] : ["-t", only];
    // a test's own limit grows with its rounds; the others have all day
    const code = await runInherited("vitest", [
      "run",
      "--project",
      project,
      "--testTimeout=86400000",
      ...reporters,
      ...chosen,
      ...files,
    ]);
    const seen = countReport(readReport(reportFile), code);
    sum = addCounts(sum, { ...seen, skipped: 0 }); // those that belong to other rows
  }
  process.stdout.write(`== ${name}: ${formatCounts(sum)}\n`);
  return sum.passed + sum.failed > 0 ? sum : { ...sum, failed: 1 };
}

function readReport(path: string): VitestReport | undefined {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as VitestReport;
  } catch {
    return undefined; // vitest ended before it could report
  }
}
