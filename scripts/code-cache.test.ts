import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Script } from "node:vm";
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
};

function served(text: string): string {
  return `const server = require("node:net").createServer().listen(1, "0.0.0.0", () => {
    process.once("SIGTERM", () => server.close(() => process.exit(0)));
    process.stdout.write("${text}");
  });`;
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
      const text = readFileSync(join(dist, program, "main.js"), "latin1");
      expect(new Script(text, { cachedData: readFileSync(path) }).cachedDataRejected).toBe(false);
    }
    const start = (): string => execFileSync(process.execPath, [join(dist, "cli/start.js"), "a"], { encoding: "utf8" });
    expect(start()).toBe("a\n");
    writeFileSync(join(dist, "cli/main.cache"), "of another Node");
    expect(start()).toBe("a\n");
  },
);
