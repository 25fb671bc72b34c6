import { describe, expect, test } from "vitest";
import type { Pod, Workload } from "#kube/objects.ts";
import { keptCount, refuseKept, replacedCount, warnOfKept, warnOfStaying } from "./kept-pods.ts";

type Strategy = Workload["spec"]["updateStrategy"];

function workload(updateStrategy: Strategy, replicas = 3, status: Workload["status"] = {}): Workload {
  const spec = {
    replicas,
    template: { metadata: {}, spec: { containers: [] } },
    ...(updateStrategy && { updateStrategy }),
  };
  return { metadata: { name: "db" }, spec, status };
}
const partition = (from: number): Strategy => ({ type: "RollingUpdate", rollingUpdate: { partition: from } });
const onDelete: Strategy = { type: "OnDelete" };
const podsNamed = (...names: readonly string[]): Pod[] =>
  names.map((name) => ({ metadata: { name, uid: name }, spec: { containers: [] } }));

describe("keptCount() and replacedCount()", () => {
  test.each([
    [workload(undefined), 0, 3],
    [workload(partition(0)), 0, 3],
    [workload(partition(2)), 2, 1],
    [workload(partition(9)), 3, 0],
    [workload(onDelete), 3, 0],
    [workload(onDelete, 0), 0, 0],
    [workload(onDelete, 0, { desiredNumberScheduled: 5 }), 5, 0],
  ])("%j keeps %d and replaces %d", (object, kept, replaced) => {
    expect([keptCount(object), replacedCount(object)]).toEqual([kept, replaced]);
  });
});

describe("refuseKept()", () => {
  test.each([workload(undefined), workload(partition(2)), workload(onDelete, 0)])("lets %j change", (object) => {
    expect(() => refuseKept(object, "statefulset db")).not.toThrow();
  });
  // The rollout was waited for until its time was over.
  test.each([
    [
      onDelete,
      "statefulset db replaces its pods only when they are deleted (OnDelete): none would get the traffic-agent",
    ],
    [
      partition(3),
      "statefulset db updates its pods from number 3 on only (partition): none would get the traffic-agent",
    ],
  ])("refuses %j", (strategy, message) => {
    expect(() => refuseKept(workload(strategy), "statefulset db")).toThrow(
      expect.objectContaining({
        code: "not_interceptable",
        message,
        hint: expect.stringContaining("--agent ephemeral"),
      }),
    );
  });
});

describe("warnOfKept()", () => {
  const hasAgent = (...names: readonly string[]): ((pod: Pod) => boolean) => {
    return (pod) => names.includes(pod.metadata.name ?? "");
  };

  test("names the pods that stay without, and what to do", () => {
    const pods = podsNamed("db-0", "db-1", "db-2");
    expect(warnOfKept(workload(partition(2)), "statefulset db", { pods, hasAgent: hasAgent("db-2") })).toEqual([
      "statefulset db updates its pods from number 2 on only (partition): no traffic-agent is in db-0, db-1, which the " +
        "intercept leaves alone; lower the partition to have them too",
    ]);
    expect(warnOfKept(workload(onDelete), "statefulset db", { pods, hasAgent: hasAgent("db-1", "db-2") })).toEqual([
      "statefulset db replaces its pods only when they are deleted (OnDelete): no traffic-agent is in db-0, which the " +
        "intercept leaves alone; delete them to have them too",
    ]);
  });
  test("has nothing to say when all have it, and none of other workloads", () => {
    const pods = podsNamed("db-0");
    expect(warnOfKept(workload(onDelete), "statefulset db", { pods, hasAgent: hasAgent("db-0") })).toEqual([]);
    expect(warnOfKept(workload(undefined), "statefulset db", { pods, hasAgent: hasAgent() })).toEqual([]);
  });
  test("fails when none has it", () => {
    const pods = podsNamed("db-0");
    expect(() => warnOfKept(workload(onDelete), "statefulset db", { pods, hasAgent: hasAgent() })).toThrow(
      "statefulset db replaces its pods only when they are deleted (OnDelete): no traffic-agent is in db-0",
    );
  });
});

describe("warnOfStaying()", () => {
  const hasAgent = ({ metadata }: Pod): boolean => metadata.name !== "db-2";
  const pods = podsNamed("db-0", "db-1", "db-2");
  test("names the pods that keep their agent, and what to do", () => {
    expect(warnOfStaying(workload(partition(2)), "statefulset db", { pods, hasAgent })).toBe(
      "statefulset db updates its pods from number 2 on only (partition): the traffic-agent stays in 2 pods (db-0, db-1); lower the partition to be rid of it",
    );
    expect(warnOfStaying(workload(onDelete), "statefulset db", { pods: pods.slice(0, 1), hasAgent })).toContain(
      "the traffic-agent stays in one pod (db-0); delete them to be rid of it",
    );
  });
  test("is silent where all were replaced, or none has it", () => {
    expect(warnOfStaying(workload(undefined), "statefulset db", { pods, hasAgent })).toBeUndefined();
    expect(warnOfStaying(workload(partition(2)), "s", { pods, hasAgent: () => false })).toBeUndefined();
  });
});
