import { describe, expect, test } from "vitest";
import type { InterceptInfo } from "#wire/manager-api.ts";
import { countOlder, olderWarnings } from "./older-connections.ts";

const infoOf = (
  olderConnections: InterceptInfo["olderConnections"],
  existing?: InterceptInfo["spec"]["existing"],
): InterceptInfo => ({
  id: "s1:hello",
  spec: {
    name: "hello",
    workload: { kind: "Deployment", name: "hello", namespace: "default" },
    containerName: "app",
    ports: [{ containerPort: 8080, protocol: "tcp", targetHost: "127.0.0.1", targetPort: 9000 }],
    existing,
  },
  client: "alice@thinkpad",
  sessionId: "s1",
  state: "active",
  message: "",
  pods: [],
  refusedByLaptop: 0,
  olderConnections,
  createdAtMs: 0,
});

describe("olderWarnings()", () => {
  test("counts connections and callers, and names the way out", () => {
    expect(olderWarnings(infoOf({ connections: 7, callers: 2 }))).toEqual([
      "7 older connections from 2 callers still go to the pod; `--existing drain` closes them when idle",
    ]);
    expect(olderWarnings(infoOf({ connections: 1, callers: 1 }, "keep"))[0]).toContain(
      "1 older connection from 1 caller still goes to the pod",
    );
  });
  test("says what becomes of them", () => {
    expect(olderWarnings(infoOf({ connections: 7, callers: 2 }, "drain"))).toEqual([
      "7 older connections from 2 callers still go to the pod; each is closed when it is idle, see `telepresence status`",
    ]);
    expect(olderWarnings(infoOf({ connections: 7, callers: 2, reason: "no NET_ADMIN" }, "reset"))).toEqual([
      "7 older connections from 2 callers still go to the pod: no NET_ADMIN",
    ]);
  });
  test("says nothing when there are none, or nobody has counted", () => {
    expect(olderWarnings(infoOf({ connections: 0, callers: 0 }))).toEqual([]);
    expect(olderWarnings(infoOf(undefined))).toEqual([]);
    expect(countOlder(infoOf({ connections: 0, callers: 0 }))).toBeUndefined();
  });
  test("says why they could not be counted", () => {
    expect(olderWarnings(infoOf({ connections: 0, callers: 0, reason: "an old kernel" }))).toEqual([
      "older connections may still go to the pod: an old kernel",
    ]);
  });
});
