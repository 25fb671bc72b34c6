import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { FakeApiServer } from "#kube/api-server.fake.ts";
import { recordWorkloadEvent } from "./workload-event.ts";

const workload = { kind: "Deployment", name: "hello", namespace: "shop" } as const;

describe("recordWorkloadEvent", () => {
  let server: FakeApiServer;
  beforeEach(async () => void (server = await new FakeApiServer().listen()));
  afterEach(() => server[Symbol.asyncDispose]());

  function answerWith(found: object | undefined): Record<string, unknown>[] {
    const created: Record<string, unknown>[] = [];
    server.answer = (request, response) => {
      const isEvent = request.method === "POST" && request.path === "/api/v1/namespaces/shop/events";
      if (isEvent) created.push(JSON.parse(request.body) as Record<string, unknown>);
      const body = isEvent ? request.body : JSON.stringify(found ?? { kind: "Status", reason: "NotFound" });
      response.writeHead(isEvent || found !== undefined ? 200 : 404, { "content-type": "application/json" }).end(body);
    };
    return created;
  }

  const atMs = Date.UTC(2026, 0, 2, 3, 4, 5, 678);

  test("creates an event that kubectl describe finds by the workload's uid", async () => {
    const created = answerWith({ metadata: { name: "hello", namespace: "shop", uid: "u1" } });
    const event = { workload, reason: "Intercepted", message: "by ann@laptop", type: "Normal", atMs } as const;
    expect(await recordWorkloadEvent(server.open(), event, new AbortController().signal)).toBe(true);
    expect(created).toHaveLength(1);
    expect(created[0]).toMatchObject({
      involvedObject: { apiVersion: "apps/v1", kind: "Deployment", name: "hello", namespace: "shop", uid: "u1" },
      reason: "Intercepted",
      message: "by ann@laptop",
      type: "Normal",
      count: 1,
    });
    // when it happened, not when it is written
    expect(created[0]).toMatchObject({ firstTimestamp: "2026-01-02T03:04:05Z", lastTimestamp: "2026-01-02T03:04:05Z" });
  });

  test("gives an event one name, so that asking twice makes it once", async () => {
    const created = answerWith({ metadata: { name: "hello", namespace: "shop", uid: "u1" } });
    const event = { workload, reason: "Intercepted", message: "by ann@laptop", type: "Normal", atMs } as const;
    const { signal } = new AbortController();
    for (const one of [event, event, { ...event, atMs: atMs + 1 }]) {
      await recordWorkloadEvent(server.open(), one, signal);
    }
    const [first, second, other] = created.map(({ metadata }) => (metadata as { readonly name: string }).name);
    expect(second).toBe(first);
    expect(other).not.toBe(first);
  });

  test("records nothing for a workload that is gone", async () => {
    const created = answerWith(undefined);
    const event = { workload, reason: "Intercepted", message: "by ann@laptop", type: "Normal", atMs } as const;
    expect(await recordWorkloadEvent(server.open(), event, new AbortController().signal)).toBe(false);
    expect(created).toEqual([]);
  });

  test("keeps a long message within the API's limit", async () => {
    const created = answerWith({ metadata: { name: "hello", namespace: "shop", uid: "u1" } });
    const event = { workload, reason: "Intercepted", message: "ü".repeat(2000), type: "Warning", atMs } as const;
    await recordWorkloadEvent(server.open(), event, new AbortController().signal);
    expect(Buffer.byteLength(String(created[0]?.["message"]))).toBeLessThanOrEqual(1024);
  });
});
