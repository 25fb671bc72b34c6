// Story: an agent of 45 MB beside an application with 13 MB of room got the application killed. With the highest
// `oom_score_adj` alone a Burstable pod's application, at 994, was still the one that the kernel chose.
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const child = `
const { raiseOomScore, seemLargerThan } = await import(process.argv[1]);
const { readFileSync } = await import("node:fs");
const field = (name) => Number(new RegExp(name + ":\\\\s+(\\\\d+)").exec(readFileSync("/proc/self/status", "utf8"))[1]);
const tables = field("VmPTE");
raiseOomScore();
seemLargerThan(512 * 1024 * 1024);
process.stdout.write(JSON.stringify({
  score: readFileSync("/proc/self/oom_score_adj", "utf8").trim(),
  residentKib: field("VmRSS"), ownKib: field("RssAnon"), tablesKib: field("VmPTE") - tables,
}));
`;

describe("oom volunteer", () => {
  test("seems larger than the limit at the cost of its page tables only", () => {
    const file = fileURLToPath(new URL("./oom-volunteer.ts", import.meta.url));
    const said = execFileSync(process.execPath, ["--input-type=module", "-e", child, file], { encoding: "utf8" });
    const seen = JSON.parse(said) as { score: string; residentKib: number; ownKib: number; tablesKib: number };
    expect(seen.score).toBe("1000");
    expect(seen.residentKib).toBeGreaterThan(512 * 1024);
    expect(seen.ownKib).toBeLessThan(128 * 1024);
    expect(seen.tablesKib).toBeLessThan(4096);
  });
});
