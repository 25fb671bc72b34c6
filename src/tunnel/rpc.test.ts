import { duplexPair } from "node:stream";
import type { Duplex } from "node:stream";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { AppError, formatCauseChain } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import { method } from "#wire/rpc.ts";
import { openRpc } from "./rpc.ts";
import type { Handlers } from "./rpc.ts";
import { createSessionPair } from "./session-pair.fake.ts";

const api = {
  add: method(z.object({ a: z.number(), b: z.number() }), z.object({ sum: z.number() })),
  fail: method(z.object({}), z.object({})),
  wait: method(z.object({}), z.object({})),
  repeat: method(z.object({ text: z.string(), count: z.number() }), z.object({ text: z.string() })),
  lie: method(z.object({}), z.object({ honest: z.boolean() })),
} as const;
const notifications = { tick: z.object({ count: z.number() }) } as const;
const live = new AbortController().signal;

function never(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason as Error)));
}

const handlers: Handlers<typeof api> = {
  add: ({ a, b }) => ({ sum: a + b }),
  fail: () => {
    throw new AppError("conflict", "two at once", {
      cause: new TypeError("seen twice", { cause: "a plain text" }),
      hint: "try again",
      fields: { pod: "a", size: 3n as unknown as number },
    });
  },
  wait: (_params, signal) => never(signal),
  repeat: ({ text, count }) => ({ text: text.repeat(count) }),
  lie: () => ({ honest: "no" }) as unknown as { honest: boolean },
};

function join(stream: Duplex, far: Duplex, overrides: Partial<Handlers<typeof api>> = {}) {
  const server = openRpc({
    stream: far,
    serves: { api, handlers: { ...handlers, ...overrides } },
    sends: notifications,
    log: silentLogger,
    maxMessageBytes: 100_000,
  });
  const caller = openRpc({ stream, calls: api, receives: notifications, log: silentLogger, maxMessageBytes: 100_000 });
  return { server, caller };
}

describe("openRpc()", () => {
  test("calls, answers and notifies", async () => {
    const { server, caller } = join(...duplexPair());
    const ticked = new Promise((resolve) => caller.onNotification("tick", resolve));
    server.notify("tick", { count: 7 });
    expect(await caller.call("add", { a: 1, b: 2 }, live)).toEqual({ sum: 3 });
    expect(await ticked).toEqual({ count: 7 });
    caller.dispose();
    expect(await server.closed).toBeUndefined();
    expect(await caller.closed).toBeUndefined();
  });

  test("works over a stream of a session, and the session drains after it", async () => {
    await using pair = await createSessionPair();
    const accepted = new Promise<Duplex>((resolve) =>
      pair.accepter.onIncoming((incoming) => resolve(incoming.accept())),
    );
    const stream = await pair.opener.open({ kind: "rpc", api: "manager" }, live);
    const { caller } = join(stream, await accepted);
    expect(await caller.call("add", { a: 20, b: 22 }, live)).toEqual({ sum: 42 });
    caller.dispose();
    await pair.opener.close(AbortSignal.timeout(5000));
    expect(await pair.opener.closed).toBeUndefined();
    expect(await pair.accepter.closed).toBeUndefined();
  });

  test("brings an AppError over with code, message and hint, and drops facts that are not JSON", async () => {
    const { caller } = join(...duplexPair());
    const error = await caller.call("fail", {}, live).catch((caught: unknown) => caught);
    expect(error).toMatchObject({ code: "conflict", message: "two at once", hint: "try again", fields: {} });
    expect(error).toBeInstanceOf(AppError);
    expect(formatCauseChain((error as AppError).cause)).toEqual(["TypeError: seen twice", "Error: a plain text"]);
    caller.dispose();
  });

  test("checks parameters and results at both ends", async () => {
    const { caller } = join(...duplexPair());
    const wrong = { a: "x", b: 1 } as unknown as { a: number; b: number };
    await expect(caller.call("add", wrong, live)).rejects.toMatchObject({ code: "internal" });
    await expect(caller.call("lie", {}, live)).rejects.toMatchObject({ code: "internal" });
    caller.dispose();
  });

  test("answers an unknown method with unsupported", async () => {
    const [a, b] = duplexPair();
    openRpc({ stream: b, serves: { api, handlers }, log: silentLogger });
    const newer = { ...api, later: method(z.object({}), z.object({})) };
    const caller = openRpc({ stream: a, calls: newer, log: silentLogger });
    await expect(caller.call("later", {}, live)).rejects.toMatchObject({ code: "unsupported" });
    await expect(caller.call("later", {}, live)).rejects.toThrow("method later is unknown");
    caller.dispose();
  });

  test("aborts the handler's signal when its caller gives up", async () => {
    const aborted = Promise.withResolvers<unknown>();
    const entered = Promise.withResolvers<void>();
    const { caller } = join(...duplexPair(), {
      wait: (_params, signal) => {
        signal.addEventListener("abort", () => aborted.resolve(signal.reason));
        entered.resolve();
        return never(signal);
      },
    });
    const controller = new AbortController();
    const call = caller.call("wait", {}, controller.signal);
    await entered.promise;
    controller.abort(new AppError("cancelled", "enough"));
    await expect(call).rejects.toThrow("enough");
    expect(await aborted.promise).toMatchObject({ code: "cancelled" });
    caller.dispose();
  });

  test("rejects what is pending, and aborts what runs, when the stream is lost", async () => {
    const [a, b] = duplexPair();
    const aborted = Promise.withResolvers<unknown>();
    const { caller, server } = join(a, b, {
      wait: (_params, signal) => {
        signal.addEventListener("abort", () => aborted.resolve(signal.reason));
        a.destroy();
        b.destroy();
        return never(signal);
      },
    });
    await expect(caller.call("wait", {}, live)).rejects.toMatchObject({ code: "link_lost" });
    expect(await aborted.promise).toMatchObject({ code: "link_lost" });
    await expect(caller.call("add", { a: 1, b: 1 }, live)).rejects.toMatchObject({ code: "link_lost" });
    await server.closed;
  });

  test("answers with an error when the result is longer than a message may be", async () => {
    const { caller } = join(...duplexPair());
    await expect(caller.call("repeat", { text: "x", count: 200_000 }, live)).rejects.toThrow("expected at most 100000");
    expect(await caller.call("add", { a: 1, b: 2 }, live)).toEqual({ sum: 3 });
    caller.dispose();
  });

  test("refuses to send parameters that are too long, and goes on", async () => {
    const { caller } = join(...duplexPair());
    const text = "y".repeat(200_000);
    await expect(caller.call("repeat", { text, count: 1 }, live)).rejects.toThrow("expected at most 100000");
    expect(await caller.call("add", { a: 1, b: 2 }, live)).toEqual({ sum: 3 });
    caller.dispose();
  });

  test("ends the connection when a header promises too much, before the body comes", async () => {
    const [a, b] = duplexPair();
    const server = openRpc({ stream: b, serves: { api, handlers }, log: silentLogger, maxMessageBytes: 1000 });
    a.write("Content-Length: 1001\r\n\r\n");
    expect(await server.closed).toMatchObject({ code: "protocol" });
    expect(b.destroyed).toBe(true);
  });

  test("costs its stream, not the session it runs over", async () => {
    await using pair = await createSessionPair();
    const streams: Duplex[] = [];
    pair.accepter.onIncoming((incoming) => void streams.push(incoming.accept()));
    const stream = await pair.opener.open({ kind: "rpc", api: "manager" }, live);
    const server = openRpc({ stream: streams[0] ?? stream, serves: { api, handlers }, log: silentLogger });
    const failed = new Promise((resolve) => stream.once("error", resolve));
    stream.write("Content-Length: 99999999\r\n\r\n");
    expect(await server.closed).toMatchObject({ code: "protocol" });
    expect(await failed).toMatchObject({ code: "protocol" });
    await pair.opener.open({ kind: "rpc", api: "manager" }, live);
    expect(streams).toHaveLength(2);
  });

  test.each([
    ["a header without end", "x".repeat(2000)],
    ["no length", "Content-Type: text/plain\r\n\r\n"],
    ["a body that is not JSON", "Content-Length: 3\r\n\r\n{{{"],
    ["JSON that is not JSON-RPC", "Content-Length: 2\r\n\r\n{}"],
    ["a cancellation of nothing", 'Content-Length: 46\r\n\r\n{"jsonrpc":"2.0","method":"$/cancelRequest" }  '],
  ])("ends the connection at %s", async (_name, bytes) => {
    const [a, b] = duplexPair();
    const server = openRpc({ stream: b, serves: { api, handlers }, log: silentLogger });
    a.write(bytes);
    expect(await server.closed).toBeInstanceOf(AppError);
  });

  test("handles a flood in order without queueing it", async () => {
    const { caller } = join(...duplexPair());
    const calls = Array.from({ length: 1000 }, (_, index) => caller.call("add", { a: index, b: 0 }, live));
    const results = await Promise.all(calls);
    expect(results.map((result) => result.sum)).toEqual(calls.map((_, index) => index));
    caller.dispose();
  });

  test("refuses further calls while a far end that does not read has not taken the earlier ones", async () => {
    const [a] = duplexPair(); // nobody reads the other end
    const caller = openRpc({ stream: a, calls: api, log: silentLogger, maxMessageBytes: 10_000 });
    const text = "z".repeat(9000);
    const calls = [1, 2, 3].map(() => caller.call("repeat", { text, count: 1 }, live).catch((error: unknown) => error));
    expect(await calls[2]).toMatchObject({ code: "busy" });
    caller.destroy();
    expect(await calls[0]).toMatchObject({ code: "link_lost" });
  });

  test("loses a far end that causes answers and does not read them", async () => {
    const [a, b] = duplexPair();
    const server = openRpc({ stream: b, serves: { api, handlers }, log: silentLogger, maxMessageBytes: 10_000 });
    const params = { text: "z", count: 9000 };
    for (let id = 1; id <= 40; id += 1) {
      const body = JSON.stringify({ jsonrpc: "2.0", id, method: "repeat", params });
      a.write(`Content-Length: ${body.length}\r\n\r\n${body}`);
    }
    expect(await server.closed).toMatchObject({ code: "link_lost", cause: { code: "busy" } });
  });
});
