import { describe, expect, test } from "vitest";
import type { ManagerConnection } from "#daemon/link/manager-link.ts";
import type { InterceptSpec } from "#wire/manager-api.ts";
import { createFiltered } from "./intercept-wish.ts";

const spec: InterceptSpec = {
  name: "copies",
  kind: "wiretap",
  workload: { kind: "Deployment", name: "hello", namespace: "shop" },
  containerName: "app",
  ports: [{ containerPort: 80, protocol: "tcp", targetHost: "127.0.0.1", targetPort: 8080 }],
};
const never = new AbortController().signal;

describe("a traffic-manager that does not know wiretaps", () => {
  test("is asked for none: it would have the whole traffic taken", async () => {
    const calls: string[] = [];
    const rpc = { call: (method: string) => Promise.resolve(calls.push(method)) };
    const manager = { rpc, session: { peer: { features: [] } } } as unknown as ManagerConnection;
    await expect(createFiltered(manager, spec, never)).rejects.toMatchObject({
      code: "version_mismatch",
      message: "the traffic-manager is of an older version, which cannot copy traffic",
      hint: expect.stringContaining("telepresence uninstall --everything"),
    });
    expect(calls).toEqual([]);
  });
});
