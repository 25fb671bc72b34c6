// A trap of many runners: when `beforeAll` throws, the tests behind it are reported as skipped, so a suite whose
// cluster never came up looks green to whoever reads the sum.
import { expect, test } from "vitest";
import { countReport, formatCounts, listFailures } from "./report.ts";

const file = (status: string, ...tests: readonly string[]) => ({
  status,
  assertionResults: tests.map((each) => ({ status: each })),
});

test("countReport() counts what passed, failed and was skipped on purpose", () => {
  const report = { testResults: [file("passed", "passed", "skipped"), file("passed", "passed", "todo")] };
  expect(countReport(report, 0)).toEqual({ passed: 2, failed: 0, skipped: 2 });
});

test("countReport() counts tests behind a failed hook as failed", () => {
  expect(countReport({ testResults: [file("failed", "skipped", "skipped")] }, 1).failed).toBe(2);
});

test("countReport() counts a file that cannot be imported, an uncaught error and a missing report as failures", () => {
  expect(countReport({ testResults: [file("failed")] }, 1)).toEqual({ passed: 0, failed: 1, skipped: 0 });
  expect(countReport({ testResults: [file("passed", "passed")] }, 1)).toEqual({ passed: 1, failed: 1, skipped: 0 });
  expect(countReport(undefined, 0).failed).toBe(1);
});

test("listFailures() has a line for each test that failed and for each file that failed otherwise", () => {
  const tests = [
    { status: "passed", fullName: "a it works" },
    { status: "failed", fullName: " a it fails", failureMessages: ["\u001b[31mError: 2 is not 1\u001b[39m\n    at x"] },
    { status: "failed", fullName: "a it fails too", failureMessages: null },
  ];
  const report = {
    testResults: [
      { status: "failed", name: "/here/test/a.test.ts", assertionResults: tests },
      { status: "failed", name: "/there/b.test.ts", message: "no such module\nmore", assertionResults: [] },
      { status: "failed", name: "/here/hooks.test.ts", message: "after broke", assertionResults: tests.slice(0, 2) },
      { status: "failed", name: "/here/block.test.ts", message: "", assertionResults: [{ status: "skipped" }] },
      { status: "passed", name: "/here/c.test.ts", assertionResults: [{ status: "skipped", fullName: "c" }] },
    ],
  };
  expect(listFailures(report, "/here")).toEqual([
    "test/a.test.ts > a it fails: Error: 2 is not 1",
    "test/a.test.ts > a it fails too: no reason was reported",
    "/there/b.test.ts: no such module",
    "hooks.test.ts > a it fails: Error: 2 is not 1",
    "hooks.test.ts: after broke",
    "block.test.ts: no reason was reported",
  ]);
  expect(listFailures(undefined, "/here")).toEqual([]);
});

test("formatCounts() names what was skipped only where something was", () => {
  expect(formatCounts({ passed: 3, failed: 0, skipped: 0 })).toBe("3 passed, 0 failed");
  expect(formatCounts({ passed: 3, failed: 1, skipped: 2 })).toBe("3 passed, 1 failed, 2 skipped");
});
