// Adds up what vitest reports, one tier at a time. Pure, because the sum decides whether a change may land.
// Invariant: nothing that was meant to run and did not may look harmless: it counts as failed.
import { stripVTControlCharacters } from "node:util";

export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** The part of vitest's JSON report that counts. */
export interface VitestReport {
  readonly testResults: readonly {
    readonly status: string;
    readonly assertionResults: readonly {
      readonly status: string;
      /** With those of the blocks around it. */
      readonly fullName?: string;
      readonly failureMessages?: readonly string[] | null;
    }[];
    /** The file's path. */
    readonly name?: string;
    /** Why the file failed beside its tests; empty where a hook of a block did. */
    readonly message?: string;
  }[];
}

export const noTests: Counts = { passed: 0, failed: 0, skipped: 0 };

export function addCounts(a: Counts, b: Counts): Counts {
  return { passed: a.passed + b.passed, failed: a.failed + b.failed, skipped: a.skipped + b.skipped };
}

/**
 * A file that failed (a hook threw, it cannot be imported) reports its unrun tests as skipped: here they are failures,
 * one at least. A run that ended badly though every test passed (an error nobody caught) is one failure.
 */
export function countReport(report: VitestReport | undefined, exitCode: number): Counts {
  if (report === undefined) return { ...noTests, failed: 1 };
  const counts = report.testResults.map(countFile).reduce(addCounts, noTests);
  return exitCode !== 0 && counts.failed === 0 ? { ...counts, failed: 1 } : counts;
}

function countFile(file: VitestReport["testResults"][number]): Counts {
  const count = (status: string): number => file.assertionResults.filter((test) => test.status === status).length;
  const [passed, failed] = [count("passed"), count("failed")];
  const unrun = file.assertionResults.length - passed - failed;
  if (file.status !== "failed") return { passed, failed, skipped: unrun };
  return { passed, failed: Math.max(failed + unrun, 1), skipped: 0 };
}

/**
 * A line for each test that failed, and for each file that failed otherwise, with the first line of why: at the end of
 * an hour's output they are what is looked for. `root` is taken off the paths of files.
 */
export function listFailures(report: VitestReport | undefined, root: string): readonly string[] {
  return (report?.testResults ?? []).flatMap(({ status, assertionResults, name = "", message = "" }) => {
    const file = name.startsWith(`${root}/`) ? name.slice(root.length + 1) : name;
    const failed = assertionResults.filter((test) => test.status === "failed");
    const lines = failed.map(({ fullName = "", failureMessages }) => {
      return `${file} > ${fullName.trim()}: ${firstLine(failureMessages?.[0] ?? "")}`;
    });
    const isExplained = message === "" && failed.length > 0;
    return status !== "failed" || isExplained ? lines : [...lines, `${file}: ${firstLine(message)}`];
  });
}

function firstLine(text: string): string {
  return stripVTControlCharacters(text).trim().split("\n", 1)[0]?.trimEnd() || "no reason was reported";
}

/** The last line of `npm test`; machines read it. */
export function formatCounts(counts: Counts): string {
  const skipped = counts.skipped === 0 ? "" : `, ${counts.skipped} skipped`;
  return `${counts.passed} passed, ${counts.failed} failed${skipped}`;
}
