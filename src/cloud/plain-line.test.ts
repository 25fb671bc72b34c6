// The log of `cloud serve` at a terminal.
import { expect, test } from "vitest";
import { createLogger } from "#base/log.ts";
import { plainLine } from "./plain-line.ts";

test("a line of the log is a sentence with its facts, and steers no terminal", () => {
  const lines: string[] = [];
  const log = createLogger("info", (line) => void lines.push(plainLine(line)));
  log.info("cloud server started", { port: 8443, database: "sqlite" });
  log.warn("the database does not answer", { error: "no \u001b[31mway" });
  expect(lines).toEqual([
    expect.stringMatching(/^\d\d:\d\d:\d\d cloud server started port=8443 database=sqlite\n$/),
    expect.stringMatching(/^\d\d:\d\d:\d\d warning: the database does not answer error="no \\u001b\[31mway"\n$/),
  ]);
});
