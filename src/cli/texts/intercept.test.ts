import { describe, expect, test } from "vitest";
import type { InterceptInfo } from "#wire/manager-api.ts";
import { formatIntercept } from "./intercept.ts";

const info: InterceptInfo = {
  id: "s1:hello",
  spec: {
    name: "hello",
    workload: { kind: "StatefulSet", name: "hello", namespace: "default" },
    containerName: "app",
    ports: [
      { containerPort: 8080, protocol: "tcp", targetHost: "127.0.0.1", targetPort: 9000 },
      { containerPort: 53, protocol: "udp", targetHost: "127.0.0.1", targetPort: 5353 },
    ],
  },
  client: "alice@thinkpad",
  sessionId: "s1",
  state: "active",
  message: "",
  pods: ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"].map((ip) => ({ name: `pod-${ip}`, uid: ip, ip })),
  refusedByLaptop: 0,
  createdAtMs: 0,
};
const mine = { debug: false, foreign: false };

describe("formatIntercept()", () => {
  test("shows every port, and counts the pods beyond three", () => {
    expect(formatIntercept(info, mine)).toEqual([
      "   Intercept name: hello",
      "   State         : ACTIVE",
      "   Workload kind : StatefulSet",
      "   Intercepting  : 10.0.0.1, 10.0.0.2, 10.0.0.3 and 1 more -> 127.0.0.1",
      "       8080 -> 9000 TCP",
      "       53 -> 5353 UDP",
    ]);
  });

  test("tells why it does not serve", () => {
    const text = (more: Partial<InterceptInfo>): string => formatIntercept({ ...info, ...more }, mine).join("\n");
    expect(text({ state: "error", message: "AGENT_ERROR: conflict" })).toContain(
      "State         : error: AGENT_ERROR: conflict",
    );
    const waiting = text({ state: "waiting", message: "no pod is ready", pods: [] });
    expect(waiting).toContain("State         : WAITING");
    expect(waiting).toContain("Message       : no pod is ready");
    expect(waiting).toContain("Intercepting  : no pod -> 127.0.0.1");
    expect(text({ refusedByLaptop: 3 })).toContain("Connections refused: 3 went to the application because");
    const failing = { spec: { ...info.spec, onRefused: "fail" as const }, refusedByLaptop: 3 };
    expect(text(failing)).toContain("Connections refused: 3 failed because");
  });

  // An intercept that restarted the pods did not say so.
  test("tells how the agent came, to whoever brought it", () => {
    const text = (more: Partial<InterceptInfo>): string => formatIntercept({ ...info, ...more }, mine).join("\n");
    expect(text({ agent: "ephemeral" })).toContain("Agent         : ephemeral container, no pod was restarted");
    expect(text({ agent: "sidecar" })).not.toContain("Agent");
    const replaced = text({ agent: "sidecar", replacedPods: 3 });
    expect(replaced).toContain("Agent         : added to the pods by a rollout, 3 pods were replaced");
    expect(text({ agent: "sidecar", replacedPods: 1 })).toContain("by a rollout, one pod was replaced");
  });

  test("tells where the application sees the pod's address instead of its callers'", () => {
    const text = (more: Partial<InterceptInfo>, debug = false): string =>
      formatIntercept({ ...info, ...more }, { ...mine, debug }).join("\n");
    expect(text({ callerAddress: { kept: false, reason: "the agent has no NET_ADMIN" } })).toContain(
      "Caller address: the pod's own while passed through (the agent has no NET_ADMIN)",
    );
    expect(text({ callerAddress: { kept: true, reason: "" } })).not.toContain("Caller address");
    expect(text({ callerAddress: { kept: true, reason: "" } }, true)).toContain("Caller address: kept");
    expect(text({}, true)).not.toContain("Caller address");
  });

  test("counts the connections that still go to the pod", () => {
    const text = (connections: number): string =>
      formatIntercept({ ...info, olderConnections: { connections, callers: 2 } }, mine).join("\n");
    expect(text(7)).toContain("Not intercepted: 7 older connections from 2 callers, opened before");
    expect(text(0)).not.toContain("Not intercepted");
  });

  test("shows ids for --debug and the person of a foreign one", () => {
    const lines = formatIntercept(info, { debug: true, foreign: true }).join("\n");
    for (const key of ["ID            : s1:hello", "Client        : alice@thinkpad", "Mechanism     : tcp"]) {
      expect(lines).toContain(key);
    }
  });
});
