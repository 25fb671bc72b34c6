import { describe, expect, test } from "vitest";
import { readTargetName } from "./target-name.ts";

describe("readTargetName()", () => {
  test("takes a bare name as it is", () => {
    expect(readTargetName("hello")).toEqual({ name: "hello", as: undefined });
    expect(readTargetName("")).toEqual({ name: "", as: undefined });
  });
  test.each([
    ["deploy/hello", "Deployment"],
    ["deployment.apps/hello", "Deployment"],
    ["sts/hello", "StatefulSet"],
    ["ds/hello", "DaemonSet"],
    ["ReplicaSet/hello", "ReplicaSet"],
    ["rollout/hello", "Rollout"],
    ["cj/hello", "CronJob"],
    ["jobs.batch/hello", "Job"],
    ["pod/hello", "Pod"],
  ])("takes %s as a %s", (text, kind) => expect(readTargetName(text)).toEqual({ name: "hello", as: "workload", kind }));
  test.each(["svc/hello", "service/hello"])("takes %s as a service", (text) =>
    expect(readTargetName(text)).toEqual({ name: "hello", as: "service" }),
  );
  test.each(["node/hello", "default/hello", "deploy/", "/hello", "deploy/a/b"])("refuses %s", (text) => {
    expect(() => readTargetName(text)).toThrow(
      `the name is "${text}", expected that of a service or workload, as hello or deploy/hello`,
    );
  });
});
