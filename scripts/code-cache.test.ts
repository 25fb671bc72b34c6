import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { programs } from "./bundle.ts";
import { layCodeCaches, startText } from "./code-cache.ts";

const dist = mkdtempSync(join(tmpdir(), "telepresence-code-cache-"));
afterAll(() => rmSync(dist, { recursive: true, force: true }));

/** Bundles that behave at their start as the programs do, but for the helper, which throws. */
const texts = {
  cli: "console.log(process.argv.slice(2).join()); process.exit(0);",
  daemon: 'console.error("daemon started"); require("node:timers").setTimeout(() => process.exit(0), 50);',
  helper: 'throw new Error("no");',
  manager: served("manager started"),
  agent: served("agent started"),
  cloud: served("cloud server started"),
};

function served(text: string): string {
  return `const server = require("node:net").createServer().listen(1, "0.0.0.0", () => {
    process.once("SIGTERM", () => server.close(() => process.exit(0)));
    process.stdout.write("${text}");
  });`;
}

/** In a process of its own, as programs start: V8 also compares its flags, and other tests change those of this one. */
function isTaken(textFile: string, cacheFile: string): boolean {
  const script = `const { readFileSync } = require("node:fs");
    const [textFile, cacheFile] = process.argv.slice(1);
    const cachedData = readFileSync(cacheFile);
    const script = new (require("node:vm").Script)(readFileSync(textFile, "latin1"), { cachedData });
    process.stdout.write(String(script.cachedDataRejected));`;
  return execFileSync(process.execPath, ["-e", script, textFile, cacheFile], { encoding: "utf8" }) === "false";
}

test(
  "each program gets its compiled code; one that fails is told of and starts without",
  { timeout: 30_000 },
  async () => {
    mkdirSync(join(dist, "node/bin"), { recursive: true });
    symlinkSync(process.execPath, join(dist, "node/bin/node"));
    writeFileSync(join(dist, "package.json"), '{"type":"commonjs"}');
    for (const program of programs) {
      mkdirSync(join(dist, program));
      writeFileSync(join(dist, program, "main.js"), `(function (require, module) { ${texts[program]} })`);
      writeFileSync(join(dist, program, "start.js"), startText);
    }
    const said: string[] = [];
    await layCodeCaches(dist, (line) => said.push(line));
    expect(said).toEqual(["helper will start slower: its warm-up ended by 1"]);
    for (const program of programs) {
      const path = join(dist, program, "main.cache");
      expect([program, existsSync(path)]).toEqual([program, program !== "helper"]);
      if (program === "helper") continue;
      expect([program, isTaken(join(dist, program, "main.js"), path)]).toEqual([program, true]);
    }
    const start = (): string => execFileSync(process.execPath, [join(dist, "cli/start.js"), "a"], { encoding: "utf8" });
    expect(start()).toBe("a\n");
    writeFileSync(join(dist, "cli/main.cache"), "of another Node");
    expect(start()).toBe("a\n");
  },
);
