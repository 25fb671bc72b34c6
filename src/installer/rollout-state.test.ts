// Trap 49: FailedScheduling taken for fatal while an autoscaler works; events of a sibling workload taken for ours.
import { describe, expect, test } from "vitest";
import type { KubeEvent, Pod, Workload } from "#kube/objects.ts";
import { findProblem } from "#kube/workloads/pod-problems.ts";
import { Patience } from "./patience.ts";
import type { RolloutView } from "./rollout-state.ts";
import { judgeRollout } from "./rollout-state.ts";

const pod = (
  name: string,
  status: Pod["status"] = { conditions: [{ type: "Ready", status: "True" }] },
  more: object = {},
): Pod => ({
  metadata: { name, uid: name, ...more },
  spec: { containers: [] },
  status: status ?? {},
});
const workload = (status: Workload["status"], spec: object = {}): Workload => ({
  metadata: { name: "hello", uid: "w", generation: 4 },
  spec: { replicas: 2, template: { spec: { containers: [] } }, ...spec },
  status: { observedGeneration: 4, availableReplicas: 2, ...status },
});
const view = (change: Partial<RolloutView>): RolloutView => ({
  kind: "Deployment",
  workload: workload({}),
  pods: [pod("new-1"), pod("new-2")],
  events: [],
  isNew: (item) => item.metadata.name?.startsWith("new") === true,
  generation: 4,
  ...change,
});

describe("judgeRollout()", () => {
  test("is done when all pods are new and ready and no old one is left", () => {
    expect(judgeRollout(view({}))).toEqual({ done: true, readyPods: 2, wantedPods: 2, problem: undefined });
    const going = pod("old-1", undefined, { deletionTimestamp: "2026-01-01T00:00:00Z" });
    expect(judgeRollout(view({ pods: [pod("new-1"), pod("new-2"), going] })).done).toBe(true);
  });
  test.each([
    ["the controller has not seen the change", { workload: workload({ observedGeneration: 3 }) }],
    ["an old pod is left", { pods: [pod("new-1"), pod("new-2"), pod("old-1")] }],
    ["a new pod is missing", { pods: [pod("new-1")] }],
    ["not all are available", { workload: workload({ availableReplicas: 1 }) }],
  ])("is not done while %s", (_what, change) => {
    expect(judgeRollout(view(change)).done).toBe(false);
  });
  test("leaves the pods below a StatefulSet's partition alone", () => {
    const spec = { updateStrategy: { type: "RollingUpdate", rollingUpdate: { partition: 1 } } };
    expect(
      judgeRollout(view({ kind: "StatefulSet", workload: workload({}, spec), pods: [pod("old-0"), pod("new-1")] }))
        .done,
    ).toBe(true);
  });
  // Such a rollout was waited for until its time was over.
  test("leaves the pods alone that are replaced only when they are deleted", () => {
    const object = workload({}, { updateStrategy: { type: "OnDelete" } });
    const pods = [pod("old-0"), pod("new-1")];
    expect(judgeRollout(view({ kind: "StatefulSet", workload: object, pods })).done).toBe(true);
  });
  test("waits for as many pods of a DaemonSet as its nodes want, and for their availability", () => {
    const status = { desiredNumberScheduled: 3, numberAvailable: 3, availableReplicas: 0 };
    const of = (count: number, more: object = {}): boolean => {
      const pods = Array.from({ length: count }, (_, number) => pod(`new-${number}`));
      const object = workload({ ...status, ...more }, { replicas: undefined });
      return judgeRollout(view({ kind: "DaemonSet", workload: object, pods })).done;
    };
    expect([of(2), of(3), of(3, { numberAvailable: 2 })]).toEqual([false, true, false]);
  });
  test("reads the generation that Argo writes as text, and names a step that waits for somebody", () => {
    const rollout = (status: object): RolloutView => view({ kind: "Rollout", workload: workload(status) });
    expect(judgeRollout(rollout({ observedGeneration: "4" })).done).toBe(true);
    expect(judgeRollout(rollout({ observedGeneration: "3" })).done).toBe(false);
    const paused = rollout({ observedGeneration: "4", phase: "Paused", message: "CanaryPauseStep" });
    const state = judgeRollout({ ...paused, pods: [pod("new-1"), pod("old-1")] });
    expect(state.problem).toMatchObject({
      severity: "waiting",
      text: "its rollout waits at a step until somebody promotes it (CanaryPauseStep)",
    });
  });
  test("names a quota and pod security out of the Deployment's condition", () => {
    const message =
      'pods "hello-7d9f8-" is forbidden: exceeded quota: tiny, requested: limits.memory=256Mi, used: limits.memory=0, limited: limits.memory=128Mi';
    const status = { conditions: [{ type: "ReplicaFailure", status: "True", reason: "FailedCreate", message }] };
    const quota = judgeRollout(view({ workload: workload(status), pods: [pod("old-1")] })).problem;
    expect(quota).toMatchObject({ severity: "waiting", reason: "FailedCreate" });
    expect(quota?.text).toBe(
      "its new pods are refused: exceeded quota: tiny, requested: limits.memory=256Mi, used: limits.memory=0, limited: limits.memory=128Mi",
    );
    const psa = {
      conditions: [
        {
          ...status.conditions[0]!,
          message: 'pods "x" is forbidden: violates PodSecurity "baseline:latest": non-default capabilities',
        },
      ],
    };
    expect(judgeRollout(view({ workload: workload(psa), pods: [] })).problem?.severity).toBe("fatal");
  });
  test.each([
    [
      "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'no' with binding 'b' denied request: never",
      "fatal",
      "ValidatingAdmissionPolicy 'no' with binding 'b' denied request: never",
    ],
    [
      'Internal error occurred: failed calling webhook "w": connection refused',
      "waiting",
      'failed calling webhook "w": connection refused',
    ],
  ])("bears with a webhook's server, not with a policy: %s", (message, severity, said) => {
    const conditions = [{ type: "ReplicaFailure", status: "True", message }];
    expect(judgeRollout(view({ workload: workload({ conditions }), pods: [] })).problem).toMatchObject({
      severity,
      text: `its new pods are refused: ${said}`,
    });
  });
  test("reads only the StatefulSet's own events, the newest", () => {
    const event = (uid: string, message: string, lastTimestamp: string): KubeEvent => ({
      metadata: {},
      involvedObject: { uid },
      type: "Warning",
      reason: "FailedCreate",
      message,
      lastTimestamp,
    });
    const events = [
      event(
        "w",
        'create Pod hello-0 in StatefulSet hello failed error: admission webhook "x" denied the request: no',
        "2026-01-02",
      ),
      event("w", "create Pod hello-0 in StatefulSet hello failed error: older", "2026-01-01"),
      event("sibling", "create Pod other-0 in StatefulSet other failed error: not ours", "2026-01-03"),
    ];
    const { problem } = judgeRollout(view({ kind: "StatefulSet", pods: [], events }));
    expect(problem?.text).toBe('its new pods are refused: admission webhook "x" denied the request: no');
  });
  test("judges only new pods: an old one that crashes is not our doing", () => {
    const crashing = pod("old-1", {
      containerStatuses: [
        { name: "c", ready: false, restartCount: 9, state: { waiting: { reason: "CrashLoopBackOff" } } },
      ],
    });
    expect(judgeRollout(view({ pods: [crashing, pod("new-1")] })).problem).toBeUndefined();
  });
});

describe("findProblem()", () => {
  const of = (state: object, more: object = {}): ReturnType<typeof findProblem> =>
    findProblem(
      pod("p", {
        initContainerStatuses: [
          { name: "traffic-agent", image: "x/y:1", ready: false, restartCount: 0, state, ...more },
        ],
      }),
    );

  test("an image that cannot be pulled", () => {
    const message = 'Back-off pulling image "x/y:1": ErrImagePull: not found';
    expect(of({ waiting: { reason: "ImagePullBackOff", message } })).toMatchObject({
      severity: "fatal",
      container: "traffic-agent",
      text: `image x/y:1 of container traffic-agent cannot be pulled: ${message}`,
    });
    expect(of({ waiting: { reason: "ErrImagePull", message: "timeout" } })?.severity).toBe("waiting");
    expect(of({ waiting: { reason: "ContainerCreating" } })).toBeUndefined();
  });
  test("a crash, with the last line that the container wrote", () => {
    const lastState = { terminated: { exitCode: 1, reason: "Error", message: "starting\nport 9900 is in use\n" } };
    expect(of({ waiting: { reason: "CrashLoopBackOff" } }, { lastState, restartCount: 2 })).toMatchObject({
      severity: "fatal",
      text: "container traffic-agent of pod p ends again and again (exit code 1): port 9900 is in use",
    });
    expect(of({ terminated: { exitCode: 137, reason: "OOMKilled" } })?.text).toContain("out of memory");
    expect(of({ terminated: { exitCode: 0 } })).toBeUndefined();
  });
  // On a busy node a liveness probe killed an application that was slow to start, and its intercept failed 8 s later,
  // although the second start went well.
  test("one end of what runs again is borne for longer than one that stays ended", () => {
    const lastState = { terminated: { exitCode: 137, reason: "Error" } };
    const again = of({ running: { startedAt: "" } }, { lastState, restartCount: 1 })!;
    expect(again.text).toBe("container traffic-agent of pod p ended (exit code 137) and was started again");
    const patience = new Patience();
    expect([0, 30_000, 60_000].map((nowMs) => patience.isOver(again, nowMs))).toEqual([false, false, true]);
    expect(of({ running: { startedAt: "" } }, { lastState, restartCount: 2 })).toMatchObject({ reason: "Error" });
    expect(of(lastState)?.text).toBe("container traffic-agent of pod p ended (exit code 137)");
  });
  test("one restart hides no crash loop, of the same pod nor of another", () => {
    const lastState = { terminated: { exitCode: 1, reason: "Error" } };
    const restarted = { name: "a", ready: false, restartCount: 1, state: { running: {} }, lastState };
    const looping = { name: "b", ready: false, restartCount: 2, state: { waiting: { reason: "CrashLoopBackOff" } } };
    expect(findProblem(pod("p", { containerStatuses: [restarted, looping] }))?.severity).toBe("fatal");
    const pods = [restarted, looping].map((status) => pod(`new-${status.name}`, { containerStatuses: [status] }));
    expect(judgeRollout(view({ pods })).problem).toMatchObject({ severity: "fatal", pod: "new-b" });
  });
  test("a pod without a node, which may find one", () => {
    const conditions = [
      {
        type: "PodScheduled",
        status: "False",
        reason: "Unschedulable",
        message: "0/1 nodes are available: 1 Insufficient memory.",
      },
    ];
    expect(findProblem(pod("p", { conditions }))).toMatchObject({ severity: "waiting", reason: "Unschedulable" });
  });
});

describe("Patience", () => {
  test("ends a fatal problem at once, another after its grace, and starts anew after progress", () => {
    const patience = new Patience();
    const problem = { severity: "waiting", pod: "p", reason: "Unschedulable" } as const;
    expect(patience.isOver({ ...problem, severity: "fatal" }, 0)).toBe(true);
    expect(patience.isOver(problem, 0)).toBe(false);
    expect(patience.isOver(problem, 11_999)).toBe(false);
    expect(patience.isOver(problem, 12_000)).toBe(true);
    patience.reset();
    expect(patience.isOver(problem, 12_001)).toBe(false);
  });
  test("bears a pod without a node for minutes while an autoscaler makes one", () => {
    const patience = new Patience();
    const problem = { severity: "waiting", pod: "p", reason: "Unschedulable" } as const;
    expect(patience.isOver(problem, 0, true)).toBe(false);
    expect(patience.isOver(problem, 299_999, true)).toBe(false);
    expect(patience.isOver(problem, 300_000, true)).toBe(true);
  });
});
