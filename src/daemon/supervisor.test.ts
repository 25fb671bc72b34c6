import { describe, expect, test } from "vitest";
import { AppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import type { Session } from "./session.ts";
import { Supervisor } from "./supervisor.ts";

describe("quit()", () => {
  test("ends the daemon also when the session could not be undone in order", async () => {
    let shutDowns = 0;
    const session = {
      connection: { context: "test", namespace: "default" },
      warnings: [],
      ended: new Promise<AppError>(() => undefined),
      [Symbol.asyncDispose]: () => Promise.reject(new AppError("internal", "a part did not close")),
    } as unknown as Session;
    const supervisor = new Supervisor({
      openSession: () => Promise.resolve({ session, installed: false }),
      uninstall: () => Promise.reject(new AppError("internal", "not called")),
      identify: () => Promise.resolve("test"),
      helperRunning: () => false,
      installId: "id",
      executable: "telepresence",
      shutDown: () => void (shutDowns += 1),
      log: silentLogger,
    });
    const caller = { progress: () => undefined, gone: new AbortController().signal };
    await supervisor.connect({ kube: { flags: {}, cwd: "/", env: {} } }, caller);
    await expect(supervisor.quit()).rejects.toThrow("a part did not close");
    expect(shutDowns).toBe(1);
  });
});
