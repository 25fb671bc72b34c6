// Trap 47: agents that crashed where a cluster gives its pods random users, where the application's security context was
// its own, where a folder of an earlier agent stood in a volume, and where a LimitRange fills in what is missing.
import { describe, expect, test } from "vitest";
import type { Container, EphemeralContainer, PodSpec } from "#kube/objects.ts";
import type { AgentConfig } from "#wire/agent-api.ts";
import { buildAgentContainer, buildEphemeralAgent } from "./agent-container.ts";

const image = { image: "telepresence:1" };
const config = (takeover: "name" | "redirect"): AgentConfig => ({
  workload: { kind: "Deployment", name: "hello", namespace: "n" },
  containerName: "app",
  ports: [{ agentPort: 24_900, containerPort: 8080, containerName: "app", protocol: "tcp", takeover }],
});

function podOf(container: object = {}, pod: object = {}): PodSpec {
  const volumeMounts = [
    { name: "scratch", mountPath: "/tmp" },
    { name: "config", mountPath: "/etc/app" },
  ];
  return { containers: [{ name: "app", volumeMounts, ...container } as Container], ...pod } as PodSpec;
}

interface Context {
  readonly runAsUser?: number;
  readonly runAsNonRoot: boolean;
  readonly readOnlyRootFilesystem: boolean;
  readonly allowPrivilegeEscalation: boolean;
}
const contextOf = (agent: Container | EphemeralContainer): Context => agent.securityContext as Context;
const both = (pod: PodSpec, takeover: "name" | "redirect" = "name"): readonly (Container | EphemeralContainer)[] => [
  buildAgentContainer({ config: config(takeover), declared: [], pod, image, native: true }),
  buildEphemeralAgent({ name: "traffic-agent-1", config: config(takeover), pod, image }),
];

describe("the agent's user", () => {
  const user = (runAsUser: number): object => ({ securityContext: { runAsUser } });
  test.each<[string, PodSpec, number | undefined]>([
    ["its image's or the cluster's choice where the pod names none", podOf(), undefined],
    ["the application's", podOf(user(1_000_620_000)), 1_000_620_000],
    ["the pod's", podOf({}, user(1000)), 1000],
    ["the application's before the pod's", podOf(user(1001), user(1000)), 1001],
    ["never root for want of another", podOf(user(0)), 65_532],
    ["never the pod's root", podOf({}, user(0)), 65_532],
  ])("is %s", (_, pod, expected) => {
    for (const agent of both(pod)) {
      expect(contextOf(agent).runAsUser).toBe(expected);
      expect(contextOf(agent).runAsNonRoot).toBe(true);
    }
  });
});

test("nothing of the application's security context loosens the agent's", () => {
  const loose = { privileged: true, allowPrivilegeEscalation: true, readOnlyRootFilesystem: false };
  for (const takeover of ["name", "redirect"] as const) {
    for (const agent of both(podOf({ securityContext: loose }), takeover)) {
      expect(contextOf(agent)).toMatchObject({ readOnlyRootFilesystem: true, allowPrivilegeEscalation: false });
      expect(agent.securityContext).not.toHaveProperty("privileged");
    }
  }
});

test("it writes into no volume: what an earlier one left is in nobody's way", () => {
  for (const agent of both(podOf())) {
    expect(agent.volumeMounts).not.toHaveLength(0);
    for (const mount of agent.volumeMounts ?? []) expect(mount.readOnly).toBe(true);
  }
});

test("a sidecar names what it needs, so that no LimitRange fills it in; a container of a running pod may not", () => {
  const [sidecar, ephemeral] = both(podOf());
  expect(sidecar?.resources).toEqual({ requests: { cpu: "10m", memory: "64Mi" }, limits: { memory: "256Mi" } });
  expect(ephemeral).not.toHaveProperty("resources");
});
