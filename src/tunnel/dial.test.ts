import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { describe, expect, test } from "vitest";
import { AppError } from "#base/error.ts";
import { dial } from "./dial.ts";

async function listen(): Promise<AsyncDisposable & { readonly port: number }> {
  const server = createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: () => new Promise((resolve) => server.close(() => resolve())),
  };
}

describe("dial()", () => {
  test("gives a connection that outlives its signal, and keeps half-close", async () => {
    await using server = await listen();
    const controller = new AbortController();
    const socket = await dial({ address: "127.0.0.1", port: server.port }, controller.signal);
    controller.abort(new AppError("cancelled", "too late"));
    socket.end("hello");
    expect(String((await once(socket, "data"))[0])).toBe("hello");
    await once(socket, "close");
  });

  test("rejects with the errno of a refusal", async () => {
    const server = await listen();
    await server[Symbol.asyncDispose]();
    const dialling = dial({ address: "127.0.0.1", port: server.port }, new AbortController().signal);
    await expect(dialling).rejects.toMatchObject({ code: "ECONNREFUSED" });
  });

  test("rejects with the signal's reason, before and while it dials", async () => {
    await using server = await listen();
    const target = { address: "127.0.0.1", port: server.port };
    const reason = new AppError("timeout", "enough");
    await expect(dial(target, AbortSignal.abort(reason))).rejects.toBe(reason);
    const controller = new AbortController();
    const dialling = dial(target, controller.signal);
    controller.abort(reason);
    await expect(dialling).rejects.toBe(reason);
  });
});
