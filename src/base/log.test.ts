// What every process of ours writes its log with.
import { Writable } from "node:stream";
import { describe, expect, test } from "vitest";
import { createLogger, lineWriter } from "./log.ts";

describe("lineWriter()", () => {
  // A full disk under the log file ended the daemon, and the laptop's session with it.
  test("loses lines, and nothing else, when the output fails", async () => {
    const ended = Promise.withResolvers<void>();
    const output = new Writable({
      write: (_chunk, _encoding, done) => {
        done(Object.assign(new Error("no space left on device"), { code: "ENOSPC" }));
      },
    });
    const log = createLogger("info", lineWriter(output));
    output.once("close", () => ended.resolve()); // after 'error', which nobody here listens to
    log.info("one");
    await ended.promise;
    expect(() => log.info("two")).not.toThrow();
  });
});
