import { describe, expect, test } from "vitest";
import { AppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import type { Session } from "./session.ts";
import { Supervisor, type SupervisorOptions } from "./supervisor.ts";

function makeSupervisor(change: Partial<SupervisorOptions>): Supervisor {
  return new Supervisor({
    openSession: () => Promise.reject(new AppError("internal", "not called")),
    uninstall: () => Promise.reject(new AppError("internal", "not called")),
    identify: () => Promise.resolve("test"),
    programs: () => 0,
    helperRunning: () => false,
    installId: "id",
    executable: "telepresence",
    shutDown: () => undefined,
    log: silentLogger,
    ...change,
  });
}

const caller = { progress: () => undefined, gone: new AbortController().signal };
const options = { kube: { flags: {}, cwd: "/", env: {} } };

describe("connect()", () => {
  // It answered that all was well while the manager was gone.
  test("to the place it is connected to restores the link, and fails with the reason", async () => {
    const outcomes = [
      Promise.resolve({ installed: true, warnings: ["so"] }),
      Promise.reject(new AppError("manager_unavailable", "it cannot be installed")),
    ];
    const session = {
      connection: { context: "test", namespace: "default" },
      warnings: [],
      ended: new Promise<AppError>(() => undefined),
      restore: () => outcomes.shift(),
    } as unknown as Session;
    const supervisor = makeSupervisor({ openSession: () => Promise.resolve({ session, installed: false }) });
    await supervisor.connect(options, caller);
    expect(await supervisor.connect(options, caller)).toMatchObject({
      fresh: false,
      installedManager: true,
      warnings: ["so"],
    });
    await expect(supervisor.connect(options, caller)).rejects.toMatchObject({ code: "manager_unavailable" });
  });
});

// `list --context X` was told of other settings after `connect --via web --vnat all`.
describe("connect() for a command that only needs some connection", () => {
  const made = { ...options, via: { name: "web" }, vnat: ["all"], alsoProxy: ["10.9.0.0/16"] };
  const connected = async (): Promise<Supervisor> => {
    const session = {
      connection: { context: "test", namespace: "default" },
      warnings: [],
      ended: new Promise<AppError>(() => undefined),
      restore: () => Promise.resolve({ installed: false, warnings: [] }),
    } as unknown as Session;
    const supervisor = makeSupervisor({
      openSession: () => Promise.resolve({ session, installed: false }),
      identify: ({ via, vnat, alsoProxy, kube }) => Promise.resolve(JSON.stringify([via, vnat, alsoProxy, kube.flags])),
    });
    await supervisor.connect(made, caller);
    return supervisor;
  };

  test("takes what it does not mean as the standing one has it, its own configuration included", async () => {
    const supervisor = await connected();
    expect(await supervisor.connect({ ...options, vnat: ["off"], meant: [] }, caller)).toMatchObject({ fresh: false });
    const same = { ...options, vnat: ["all"], meant: ["vnat"] };
    expect(await supervisor.connect(same, caller)).toMatchObject({ fresh: false });
  });
  test.each([
    ["a setting that it means", { ...options, vnat: ["off"], meant: ["vnat"] }],
    ["another place", { kube: { ...options.kube, flags: { context: "other" } }, meant: [] }],
    ["a whole wish of its own", options],
  ])("is refused for %s", async (_what, wish) => {
    const supervisor = await connected();
    await expect(supervisor.connect(wish, caller)).rejects.toMatchObject({ code: "already_connected_elsewhere" });
  });
});

describe("endUnused()", () => {
  const open = async (connection: object, isIdle: boolean, programs: number): Promise<[boolean, string[]]> => {
    const done: string[] = [];
    const session = {
      connection: { context: "test", namespace: "default", ...connection },
      isIdle,
      warnings: [],
      ended: new Promise<AppError>(() => undefined),
      [Symbol.asyncDispose]: () => Promise.resolve(void done.push("disconnected")),
    } as unknown as Session;
    const supervisor = makeSupervisor({
      openSession: () => Promise.resolve({ session, installed: false }),
      programs: () => programs,
      shutDown: () => void done.push("shut down"),
    });
    await supervisor.connect(options, caller);
    return [await supervisor.endUnused(), done];
  };
  test("ends a connection that was made for programs alone, and the daemon, with the last of them", async () => {
    expect(await open({ rootless: {} }, true, 0)).toEqual([true, ["disconnected", "shut down"]]);
  });
  test.each([
    ["a device", {}, true, 0],
    ["proxies", { rootless: {}, proxy: { socks: "127.0.0.1:1", http: "127.0.0.1:2" } }, true, 0],
    ["an intercept", { rootless: {} }, false, 0],
    ["another program", { rootless: {} }, true, 1],
  ])("leaves one that has %s", async (_what, connection, isIdle, programs) => {
    expect(await open(connection, isIdle, programs)).toEqual([false, []]);
  });
});

describe("quit()", () => {
  test("ends the daemon also when the session could not be undone in order", async () => {
    let shutDowns = 0;
    const session = {
      connection: { context: "test", namespace: "default" },
      warnings: [],
      ended: new Promise<AppError>(() => undefined),
      [Symbol.asyncDispose]: () => Promise.reject(new AppError("internal", "a part did not close")),
    } as unknown as Session;
    const supervisor = makeSupervisor({
      openSession: () => Promise.resolve({ session, installed: false }),
      shutDown: () => void (shutDowns += 1),
    });
    await supervisor.connect(options, caller);
    await expect(supervisor.quit()).rejects.toThrow("a part did not close");
    expect(shutDowns).toBe(1);
  });

  // The second of two `connect`s began when the first had given up, after the user had said `quit`.
  test("gives up every connect that was asked for before, also one that waits for its turn", async () => {
    let opened = 0;
    const opening = Promise.withResolvers<void>();
    const supervisor = makeSupervisor({
      openSession: (_options, _caller, signal) => {
        opened += 1;
        opening.resolve();
        return new Promise((_resolve, reject) =>
          signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true }),
        );
      },
    });
    const connecting = [supervisor.connect(options, caller), supervisor.connect(options, caller)];
    const outcomes = Promise.allSettled(connecting);
    await opening.promise;
    expect(await supervisor.quit()).toEqual({ wasConnected: false });
    for (const outcome of await outcomes) {
      expect(outcome).toMatchObject({ status: "rejected", reason: { code: "cancelled" } });
    }
    expect(opened).toBe(1);
  });
});
