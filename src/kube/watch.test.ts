// Trap 56: a Role that allows `list` but not `watch`. Trap 22: a cut line must not end what is followed.
import type { ServerResponse } from "node:http";
import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { AppError } from "#base/error.ts";
import { FakeApiServer, sendJson, sendStatus } from "./api-server.fake.ts";
import type { Kube } from "./client.ts";
import { LiveSet, waitFor, watchAll } from "./live-set.ts";
import type { Pod } from "./objects.ts";
import { pods } from "./objects.ts";
import { watch } from "./watch.ts";

const pod = (name: string, version = "1"): Pod => ({
  metadata: { name, uid: name, resourceVersion: version },
  spec: { containers: [] },
});
const line = (type: string, object: unknown): string => `${JSON.stringify({ type, object })}\n`;

class SleepingClock extends FakeClock {
  sleptMs = 0;
  override wallMs(): number {
    return super.wallMs() + this.sleptMs;
  }
}

/** Answers lists with `items`, and hands each watch to the next of `watches`. */
function script(
  server: FakeApiServer,
  items: () => readonly Pod[],
  watches: ((response: ServerResponse) => void)[],
): void {
  server.answer = ({ query }, response) => {
    if (query.get("watch") === null) {
      sendJson(response, { metadata: { resourceVersion: "10" }, items: items() });
      return;
    }
    const next = watches.shift();
    if (next === undefined) response.writeHead(200).flushHeaders();
    else next(response);
  };
}

describe("watch()", () => {
  test("lists, follows, and goes on from the last version after the line was cut", async () => {
    await using server = await new FakeApiServer().listen();
    script(server, () => [pod("a")], [
      (response) => {
        response.writeHead(200);
        response.write(line("ADDED", pod("b", "11")) + line("BOOKMARK", pod("", "15")).slice(0, 20));
        setImmediate(() => response.socket?.destroy());
      },
      (response) => {
        response.writeHead(200);
        response.write(line("BOOKMARK", { metadata: { resourceVersion: "20" } }));
        response.end();
      },
      (response) => {
        response.writeHead(200);
        response.write(line("DELETED", pod("a", "21")));
      },
    ]);
    const controller = new AbortController();
    const seen: string[] = [];
    for await (const event of watch(server.open(), pods, { namespace: "n" }, controller.signal)) {
      seen.push(event.type === "reset" ? `reset ${event.items.length}` : `${event.type} ${event.object.metadata.name}`);
      if (event.type === "deleted") controller.abort();
    }
    expect(seen).toEqual(["reset 1", "changed b", "deleted a"]);
    const versions = server.requests
      .filter((request) => request.query.get("watch") !== null)
      .map((request) => request.query.get("resourceVersion"));
    expect(versions).toEqual(["10", "11", "20"]);
  });
  test("lists again when its version has expired (410)", async () => {
    await using server = await new FakeApiServer().listen();
    let items = [pod("a")];
    script(server, () => items, [
      (response) => {
        items = [pod("b")];
        response.writeHead(200);
        response.end(line("ERROR", { kind: "Status", code: 410, reason: "Expired", message: "too old" }));
      },
    ]);
    const controller = new AbortController();
    const live = new LiveSet<Pod>();
    for await (const event of watch(server.open(), pods, {}, controller.signal)) {
      live.apply(event);
      if (live.items[0]?.metadata.name === "b") controller.abort();
    }
    expect(live.items.map((item) => item.metadata.name)).toEqual(["b"]);
  });
  test("lists every few seconds where watching is forbidden", async () => {
    await using server = await new FakeApiServer().listen();
    script(server, () => [pod("a")], [
      (response) => sendStatus(response, 403, "Forbidden", 'User "x" cannot watch resource "pods"'),
    ]);
    const clock = new FakeClock();
    const controller = new AbortController();
    let resets = 0;
    const { promise, resolve } = Promise.withResolvers<void>();
    const done = watchAll(
      server.open({}, { clock }),
      { kind: pods, query: {} },
      () => {
        if (++resets === 3) resolve();
      },
      controller.signal,
    );
    const pump = async (): Promise<void> => {
      while (resets < 3) await clock.advance(500);
    };
    await Promise.all([promise, pump()]);
    controller.abort();
    await done;
    expect(server.requests.filter((request) => request.query.get("watch") !== null)).toHaveLength(1);
  });
  test("ends with the reason when listing is forbidden", async () => {
    await using server = await new FakeApiServer().listen();
    server.answer = (_request, response) =>
      sendStatus(response, 403, "Forbidden", 'User "x" cannot list resource "pods"');
    await expect(
      watchAll(server.open(), { kind: pods, query: {} }, () => undefined, new AbortController().signal),
    ).rejects.toMatchObject({
      code: "forbidden",
    });
  });
  // After a laptop's sleep, what was followed stood still for up to 135 s.
  test.each([
    ["connections are renewed", (kube: Kube) => kube.transport.renew()],
    ["the machine has slept", (_kube: Kube, clock: SleepingClock) => void (clock.sleptMs = 60_000)],
  ])("goes on at once over a new connection after %s", async (_when, happen) => {
    await using server = await new FakeApiServer().listen();
    const silent = Promise.withResolvers<void>();
    script(server, () => [pod("a")], [
      (response) => {
        response.writeHead(200).flushHeaders();
        silent.resolve();
      },
      (response) => {
        response.writeHead(200);
        response.write(line("ADDED", pod("b", "11")));
      },
    ]);
    const clock = new SleepingClock();
    const kube = server.open({}, { clock });
    const controller = new AbortController();
    const seen: number[] = [];
    const done = watchAll(kube, { kind: pods, query: {} }, (items) => void seen.push(items.length), controller.signal);
    await silent.promise;
    happen(kube, clock);
    while (seen.length < 2 && clock.now() < 10_000) await clock.advance(100);
    controller.abort();
    await done;
    expect(seen).toEqual([1, 2]);
  });
  test("ends when the client is closed", async () => {
    await using server = await new FakeApiServer().listen();
    script(server, () => [pod("a")], []);
    const kube = server.open();
    const watching = watchAll(
      kube,
      { kind: pods, query: {} },
      () => setImmediate(() => kube.close()),
      new AbortController().signal,
    );
    await expect(watching).rejects.toMatchObject({ code: "cancelled" });
  });
  test("ends at once when the signal aborts", async () => {
    await using server = await new FakeApiServer().listen();
    script(server, () => [pod("a")], []);
    const controller = new AbortController();
    await watchAll(server.open(), { kind: pods, query: {} }, () => controller.abort(), controller.signal);
    expect(controller.signal.aborted).toBe(true);
  });
});

describe("waitFor()", () => {
  test("answers when its condition over several collections holds", async () => {
    await using server = await new FakeApiServer().listen();
    script(server, () => [pod("a")], [
      (response) => {
        response.writeHead(200);
        response.write(line("ADDED", pod("b", "11")));
      },
    ]);
    const result = await waitFor(server.open(), {
      watched: {
        pods: { kind: pods, query: {} },
        more: { kind: pods, query: { namespace: "forbidden" }, optional: true },
      },
      evaluate: ({ pods: found }) => (found.length >= 2 ? found.map((item) => item.metadata.name) : undefined),
      signal: new AbortController().signal,
    });
    expect(result).toContain("b");
  });
  test("throws what its condition throws, and its signal's reason", async () => {
    await using server = await new FakeApiServer().listen();
    script(server, () => [pod("a")], []);
    const kube = server.open();
    const { signal } = new AbortController();
    const failing = waitFor(kube, {
      watched: { pods: { kind: pods, query: {} } },
      evaluate: () => {
        throw new AppError("rollout_failed", "no");
      },
      signal,
    });
    await expect(failing).rejects.toThrow("no");
    const controller = new AbortController();
    const waiting = waitFor(kube, {
      watched: { pods: { kind: pods, query: {} } },
      evaluate: () => undefined,
      signal: controller.signal,
    });
    controller.abort(new AppError("cancelled", "enough"));
    await expect(waiting).rejects.toThrow("enough");
  });
});
