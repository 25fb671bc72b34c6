// Stories: a 45 MB agent got an application with 13 MB of room killed (DESIGN 12); two laptops that attach at one moment
// must not make two agents in one pod, which could not both listen.
import { describe, expect, test } from "vitest";
import type { ContainerStatus, EphemeralContainer, Pod, Service } from "#kube/objects.ts";
import type { AgentConfig, AppPort } from "#wire/agent-api.ts";
import { agentConfigSchema, agentConfigVariable } from "#wire/agent-api.ts";
import { agentCovers, currentAgent, planEphemeral } from "./ephemeral.ts";
import { managerSelector } from "./marks.ts";
import { judgeMemory, parseQuantity, podMemoryLimit } from "./memory-room.ts";

const tcp = (...ports: readonly number[]): AppPort[] =>
  ports.map((containerPort) => ({ containerPort, protocol: "tcp" }));
const workload = { kind: "Deployment", name: "hello", namespace: "default" } as const;
const image = { image: "registry.example/telepresence:1" };

const pod: Pod = {
  metadata: { name: "hello-1", namespace: "default", uid: "u1", labels: { app: "hello" } },
  spec: {
    terminationGracePeriodSeconds: 45,
    containers: [
      {
        name: "server",
        ports: [{ name: "http", containerPort: 8080 }],
        env: [{ name: "GREETING", value: "hi" }],
        envFrom: [{ configMapRef: { name: "hello" } }],
        volumeMounts: [
          { name: "config", mountPath: "/etc/hello" },
          { name: "config", mountPath: "/etc/part", subPath: "part" },
          { name: "kube-api-access-x", mountPath: "/var/run/secrets/kubernetes.io/serviceaccount" },
        ],
      },
    ],
    volumes: [{ name: "config" }, { name: "kube-api-access-x", projected: { sources: [{ serviceAccountToken: {} }] } }],
  },
};

const services: readonly Service[] = [
  {
    metadata: { name: "hello", namespace: "default" },
    spec: {
      clusterIP: "10.96.0.7",
      selector: { app: "hello" },
      ports: [{ port: 80, targetPort: "http" }, { port: 9000 }, { port: 53, protocol: "UDP" }],
    },
  },
];

const options = { workload, services, image };

function withAgents(...agents: readonly [EphemeralContainer, ContainerStatus["state"] | undefined][]): Pod {
  return {
    ...pod,
    spec: { ...pod.spec, ephemeralContainers: agents.map(([container]) => container) },
    status: {
      ephemeralContainerStatuses: agents.flatMap(([{ name }, state]) =>
        state === undefined ? [] : [{ name, ready: false, restartCount: 0, state }],
      ),
    },
  };
}

describe("planEphemeral()", () => {
  const agent = planEphemeral(pod, options);
  const config = agentConfigSchema.parse(
    JSON.parse(agent.env?.find((item) => item.name === agentConfigVariable)?.value ?? ""),
  );

  test("takes all service ports by redirect, named ones too", () => {
    expect(config.ports.map(({ containerPort, protocol, takeover }) => [containerPort, protocol, takeover])).toEqual([
      [53, "udp", "redirect"],
      [8080, "tcp", "redirect"],
      [9000, "tcp", "redirect"],
    ]);
    expect(config.ephemeral?.idleExitMs).toBe(600_000);
  });

  test("has no field that is forbidden in a running pod, and no part of a volume", () => {
    expect(Object.keys(agent).toSorted()).toEqual([
      "args",
      "env",
      "envFrom",
      "image",
      "name",
      "securityContext",
      "terminationMessagePolicy",
      "volumeMounts",
    ]);
    expect(agent.volumeMounts).toEqual([{ name: "config", mountPath: "/tel_app_mounts/etc/hello", readOnly: true }]);
  });

  test("repeats the application's environment under the prefix and drains as long as the pod may", () => {
    expect(agent.env).toContainEqual({ name: "_TEL_APP_GREETING", value: "hi" });
    expect(agent.envFrom).toEqual([{ configMapRef: { name: "hello" }, prefix: "_TEL_APP_" }]);
    expect(agent.env).toContainEqual({ name: "TELEPRESENCE_DRAIN_SECONDS", value: "44" });
  });

  test("has NET_ADMIN and nothing else of root's", () => {
    expect(agent.securityContext).toMatchObject({
      runAsUser: 0,
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ["ALL"], add: ["NET_ADMIN"] },
    });
  });

  test("counts its name from the pod's spec, whatever has become of the others", () => {
    expect(agent.name).toBe("traffic-agent-1");
    const ended = { terminated: { exitCode: 0 } };
    const seven = { ...agent, name: "traffic-agent-7" };
    const debug = { name: "debugger-abc" };
    const foreign = { name: "traffic-agent-9" };
    expect(planEphemeral(withAgents([seven, ended], [debug, ended]), options).name).toBe("traffic-agent-8");
    expect(planEphemeral(withAgents([seven, ended], [foreign, ended]), options).name).toBe("traffic-agent-10");
  });

  test("asks for the same container on every laptop", () => {
    expect(planEphemeral(structuredClone(pod), { ...options, services: structuredClone(services) })).toEqual(agent);
  });

  test("tells the agent the limit that it shares", () => {
    const limited = { ...pod.spec.containers[0], name: "server", resources: { limits: { memory: "512Mi" } } };
    const planned = planEphemeral({ ...pod, spec: { ...pod.spec, containers: [limited] } }, options);
    const text = planned.env?.find((item) => item.name === agentConfigVariable)?.value ?? "";
    expect(agentConfigSchema.parse(JSON.parse(text)).ephemeral?.memoryLimitBytes).toBe(512 * 2 ** 20);
  });

  test.each([
    ["hostNetwork", { spec: { hostNetwork: true } }],
    ["Windows", { spec: { os: { name: "windows" } } }],
    ["static pod", { metadata: { annotations: { "kubernetes.io/config.mirror": "x" } } }],
    ["is the traffic-manager", { metadata: { labels: managerSelector } }],
    ["annotation", { metadata: { annotations: { "telepresence.io/inject-traffic-agent": "disabled" } } }],
  ])("refuses a pod with a reason: %s", (reason, change: { metadata?: object; spec?: object }) => {
    const unfit = { metadata: { ...pod.metadata, ...change.metadata }, spec: { ...pod.spec, ...change.spec } };
    expect(() => planEphemeral(unfit, options)).toThrow(reason);
  });

  test("takes declared ports and those that are needed where no service leads to the pod", () => {
    const needed = [...tcp(7000), { containerPort: 8080, protocol: "udp" } as const];
    const { env } = planEphemeral(pod, { ...options, services: [], needed });
    const { ports } = JSON.parse(env?.find((item) => item.name === agentConfigVariable)?.value ?? "") as AgentConfig;
    expect(ports.map(({ containerPort, protocol }) => `${containerPort}/${protocol}`)).toEqual([
      "7000/tcp",
      "8080/tcp",
      "8080/udp",
    ]);
  });

  test("refuses a pod without ports", () => {
    const bare = { ...pod, spec: { containers: [{ name: "server" }] } };
    expect(() => planEphemeral(bare, { ...options, services: [] })).toThrow("no port that an agent could take");
    // to read environment and files with, none is needed, nor a privilege
    const reader = planEphemeral(bare, { ...options, services: [], needed: [] });
    const config = reader.env?.find((item) => item.name === agentConfigVariable)?.value ?? "";
    expect(JSON.parse(config)).toMatchObject({ ports: [], containerName: "server" });
    expect(reader.securityContext).toMatchObject({ runAsNonRoot: true, capabilities: { drop: ["ALL"] } });
  });
});

describe("currentAgent()", () => {
  const first = planEphemeral(pod, options);
  const second = { ...first, name: "traffic-agent-2" };

  test("is the latest that has not ended; one that the kubelet has not seen counts as waiting", () => {
    expect(currentAgent(pod)).toBeUndefined();
    expect(currentAgent(withAgents([first, { terminated: { exitCode: 0 } }]))).toBeUndefined();
    expect(currentAgent(withAgents([first, { terminated: { exitCode: 137 } }], [second, undefined]))).toMatchObject({
      container: "traffic-agent-2",
      state: "waiting",
      kind: "ephemeral",
    });
    expect(currentAgent(withAgents([first, { running: {} }]))?.state).toBe("running");
  });

  test("does not take another product's container of that name for ours", () => {
    expect(currentAgent(withAgents([{ name: "traffic-agent-1" }, { running: {} }]))).toBeUndefined();
  });

  test("covers the ports that it was made for", () => {
    const agent = currentAgent(withAgents([first, { running: {} }]));
    expect(agent !== undefined && agentCovers(agent, tcp(8080, 9000))).toBe(true);
    expect(agent !== undefined && agentCovers(agent, tcp(8081))).toBe(false);
  });
});

describe("judgeMemory()", () => {
  const sized = (...limits: readonly (string | undefined)[]): Pod => ({
    metadata: { name: "p" },
    spec: {
      containers: limits.map((memory, index) => ({
        name: `c${index}`,
        ...(memory === undefined ? {} : { resources: { limits: { memory } } }),
      })),
    },
  });
  const using = (memory: string): { metadata: object; containers: { name: string; usage: { memory: string } }[] } => ({
    metadata: { name: "p" },
    containers: [{ name: "c0", usage: { memory } }],
  });

  test("a pod is limited only when all of its containers are", () => {
    expect(podMemoryLimit(sized("100Mi", "28Mi"))).toBe(128 * 2 ** 20);
    expect(podMemoryLimit(sized("100Mi", undefined))).toBeUndefined();
    expect(judgeMemory(sized("100Mi", undefined), undefined).kind).toBe("unlimited");
  });

  test("counts sidecars beside the containers and other init containers before them", () => {
    const limits = (memory: string): { limits: { memory: string } } => ({ limits: { memory } });
    const containers = [{ name: "a", resources: limits("100Mi") }];
    const sidecar = { name: "s", restartPolicy: "Always", resources: limits("50Mi") };
    const init = { name: "i", resources: limits("1Gi") };
    expect(podMemoryLimit({ metadata: {}, spec: { containers, initContainers: [sidecar] } })).toBe(150 * 2 ** 20);
    expect(podMemoryLimit({ metadata: {}, spec: { containers, initContainers: [sidecar, init] } })).toBe(2 ** 30);
    const whole = { containers, resources: limits("300Mi") };
    expect(podMemoryLimit({ metadata: {}, spec: whole })).toBe(300 * 2 ** 20);
  });

  test.each([
    ["128Mi", "enough"],
    ["129Mi", "short"],
    ["300Mi", "short"],
  ])("of 256 MiB, %s used is %s", (used, kind) => {
    expect(judgeMemory(sized("256Mi"), using(used)).kind).toBe(kind);
  });

  test("does not guess a usage that nobody tells", () => {
    expect(judgeMemory(sized("8Gi"), undefined).kind).toBe("unknown");
    expect(judgeMemory(sized("8Gi"), { metadata: {}, containers: [] }).kind).toBe("unknown");
  });

  test.each([
    ["1Gi", 2 ** 30],
    ["0.5Gi", 2 ** 29],
    ["128974848", 128_974_848],
    ["129e6", 129_000_000],
    ["129M", 129_000_000],
    ["1500m", 2],
    ["12x", undefined],
    ["", undefined],
  ])("%s is %s bytes", (text, bytes) => {
    expect(parseQuantity(text)).toBe(bytes);
  });
});
