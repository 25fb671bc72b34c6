// Stories of the original: an uninstall that restored a snapshot rolled back a release made meanwhile (trap 52, DESIGN
// 17); port names longer than 15 characters were refused by the API server (trap 30); `$(VAR)` in the application's
// environment lost its value or got its prefix twice (trap 50); the ServiceAccount token was offered as a volume (51).
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { AppError } from "#base/error.ts";
import type { Container, Service, Workload } from "#kube/objects.ts";
import type { AppPort } from "#wire/agent-api.ts";
import { agentConfigVariable } from "#wire/agent-api.ts";
import type { InjectionOptions } from "./agent.ts";
import { coversPorts, findAgent, planInjection, planRemoval, readAgentConfig } from "./agent.ts";
import { managerSelector } from "./marks.ts";
import { mergePatch } from "./merge-patch.ts";

const tcp = (...ports: readonly number[]): AppPort[] =>
  ports.map((containerPort) => ({ containerPort, protocol: "tcp" }));

const hello: Workload = {
  apiVersion: "apps/v1",
  kind: "Deployment",
  metadata: {
    name: "hello",
    namespace: "default",
    uid: "0c6d8a0e",
    resourceVersion: "4711",
    generation: 3,
    annotations: { "deployment.kubernetes.io/revision": "3" },
  },
  spec: {
    replicas: 2,
    selector: { matchLabels: { app: "hello" } },
    template: {
      metadata: { creationTimestamp: null, labels: { app: "hello" } },
      spec: {
        containers: [
          {
            name: "server",
            image: "registry.example/hello:1",
            ports: [
              { name: "http", containerPort: 8080, protocol: "TCP" },
              { name: "metrics", containerPort: 9090, protocol: "TCP" },
            ],
            env: [
              { name: "GREETING", value: "hello" },
              { name: "TEXT", value: "$(GREETING) from $(KUBERNETES_SERVICE_HOST) $$(GREETING)" },
              { name: "MEMORY", valueFrom: { resourceFieldRef: { resource: "limits.memory", divisor: "0" } } },
            ],
            volumeMounts: [{ name: "config", mountPath: "/etc/hello", readOnly: true }],
            livenessProbe: { httpGet: { path: "/healthz", port: "http" } },
            readinessProbe: { tcpSocket: { port: "http" } },
            lifecycle: { preStop: { httpGet: { path: "/stop", port: "http" } } },
            resources: {},
          },
        ],
        volumes: [{ name: "config", configMap: { name: "hello" } } as { name: string }],
        restartPolicy: "Always",
        terminationGracePeriodSeconds: 30,
      } as Workload["spec"]["template"]["spec"],
    },
  },
};

const service = (name: string, ports: Service["spec"]["ports"], more: Partial<Service["spec"]> = {}): Service => ({
  metadata: { name, namespace: "default", uid: `uid-${name}` },
  spec: { clusterIP: "10.96.0.7", selector: { app: "hello" }, ports: ports ?? [], ...more },
});
const named = service("hello", [{ name: "web", port: 80, targetPort: "http", protocol: "TCP" }]);
const numeric = service("hello", [{ port: 80, targetPort: 8080 }]);

const options = (services: readonly Service[], more: Partial<InjectionOptions> = {}): InjectionOptions => ({
  workload: { kind: "Deployment", name: "hello", namespace: "default" },
  services,
  image: { image: "telepresence/telepresence:0.1.0", pullPolicy: "IfNotPresent" },
  server: { major: 1, minor: 34 },
  namespaceLabels: {},
  ...more,
});

function withContainer(change: Partial<Container>): Workload {
  const [first] = hello.spec.template.spec.containers;
  const containers = [{ ...first!, ...change }];
  return {
    ...hello,
    spec: { ...hello.spec, template: { ...hello.spec.template, spec: { ...hello.spec.template.spec, containers } } },
  };
}

describe("planInjection() by name", () => {
  const injected = planInjection(hello, options([named]));
  const pod = injected.spec.template.spec;
  const agent = findAgent(pod)!;

  test("adds a native sidecar that carries the port's name", () => {
    expect(pod.initContainers).toEqual([agent]);
    expect(agent.restartPolicy).toBe("Always");
    expect(agent.ports).toEqual([{ name: "http", containerPort: 24900, protocol: "TCP" }]);
    expect(readAgentConfig(pod)?.ports).toEqual([
      {
        agentPort: 24900,
        containerPort: 8080,
        containerName: "server",
        protocol: "tcp",
        takeover: "name",
        portName: "http",
        http: true,
      },
    ]);
  });
  test("renames the application's port, and probes and hooks follow", () => {
    const [server] = pod.containers;
    expect(server!.ports).toEqual([
      { name: "tm-http", containerPort: 8080, protocol: "TCP" },
      { name: "metrics", containerPort: 9090, protocol: "TCP" },
    ]);
    expect(server!.livenessProbe!.httpGet!.port).toBe("tm-http");
    expect(server!.readinessProbe!.tcpSocket!.port).toBe("tm-http");
    expect(server!.lifecycle!.preStop!.httpGet!.port).toBe("tm-http");
  });
  test("needs no privilege", () => {
    expect(agent.securityContext).toMatchObject({
      runAsNonRoot: true,
      allowPrivilegeEscalation: false,
      capabilities: { drop: ["ALL"] },
      seccompProfile: { type: "RuntimeDefault" },
    });
  });
  test("repeats the environment under a prefix, its references too", () => {
    const value = (name: string): unknown => agent.env!.find((item) => item.name === name);
    expect(value("_TEL_APP_GREETING")).toEqual({ name: "_TEL_APP_GREETING", value: "hello" });
    expect(value("_TEL_APP_TEXT")).toEqual({
      name: "_TEL_APP_TEXT",
      value: "$(_TEL_APP_GREETING) from $(KUBERNETES_SERVICE_HOST) $$(GREETING)",
    });
    expect(value("_TEL_APP_MEMORY")).toMatchObject({ valueFrom: { resourceFieldRef: { containerName: "server" } } });
  });
  test("mounts the application's volumes read-only and masks the token", () => {
    expect(agent.volumeMounts).toEqual([
      { name: "config", mountPath: "/tel_app_mounts/etc/hello", readOnly: true },
      { name: "telepresence-no-token", mountPath: "/var/run/secrets/kubernetes.io/serviceaccount", readOnly: true },
    ]);
    expect(pod.volumes).toContainEqual({ name: "telepresence-no-token", emptyDir: {} });
  });
  test("leaves alone what it does not know", () => {
    expect(pod).toMatchObject({ restartPolicy: "Always", terminationGracePeriodSeconds: 30 });
    expect(injected.metadata).toEqual(hello.metadata);
  });
});

describe("planInjection() elsewhere", () => {
  const agentOf = (workload: Workload): Container => findAgent(workload.spec.template.spec)!;

  test("redirects a numeric port with NET_ADMIN and renames nothing", () => {
    const injected = planInjection(hello, options([numeric]));
    expect(agentOf(injected).securityContext).toMatchObject({
      runAsUser: 0,
      capabilities: { drop: ["ALL"], add: ["NET_ADMIN"] },
    });
    expect(readAgentConfig(injected.spec.template.spec)?.ports[0]?.takeover).toBe("redirect");
    expect(injected.spec.template.spec.containers).toEqual(hello.spec.template.spec.containers);
  });
  test("redirects a headless service's port although it has a name", () => {
    const headless = service("hello", named.spec.ports, { clusterIP: "None" });
    expect(readAgentConfig(planInjection(hello, options([headless])).spec.template.spec)?.ports[0]?.takeover).toBe(
      "redirect",
    );
  });
  test("redirects a port that one service finds by name and another by number", () => {
    const injected = planInjection(hello, options([named, service("other", [{ port: 8080 }])]));
    expect(readAgentConfig(injected.spec.template.spec)?.ports).toHaveLength(1);
    expect(readAgentConfig(injected.spec.template.spec)?.ports[0]?.takeover).toBe("redirect");
  });
  test("takes all service ports at once, in an order that does not depend on the services' order", () => {
    const metrics = service("metrics", [{ port: 9090, targetPort: "metrics" }]);
    const one = planInjection(hello, options([named, metrics]));
    expect(one).toEqual(planInjection(hello, options([metrics, named])));
    expect(readAgentConfig(one.spec.template.spec)?.ports.map((port) => [port.containerPort, port.agentPort])).toEqual([
      [8080, 24900],
      [9090, 24901],
    ]);
    expect(coversPorts(one, tcp(8080, 9090))).toBe(true);
    expect(coversPorts(one, tcp(8081))).toBe(false);
  });
  test("keeps new names within 15 characters and unique", () => {
    const ports = [
      { name: "grpc-web-metric", containerPort: 8080 },
      { name: "tm-grpc-web-met", containerPort: 8081 },
    ];
    const grpc = service("hello", [{ port: 80, targetPort: "grpc-web-metric" }]);
    const [server] = planInjection(withContainer({ ports }), options([grpc])).spec.template.spec.containers;
    expect(server!.ports!.map((port) => port.name)).toEqual(["tm-grpc-web-m-1", "tm-grpc-web-met"]);
  });
  test("renames an equal name in every container, or the service would find the wrong one", () => {
    const second = { name: "second", image: "x", ports: [{ name: "http", containerPort: 8081 }] };
    const spec = { ...hello.spec.template.spec, containers: [...hello.spec.template.spec.containers, second] };
    const two = { ...hello, spec: { ...hello.spec, template: { ...hello.spec.template, spec } } };
    const injected = planInjection(two, options([named]));
    expect(
      injected.spec.template.spec.containers.flatMap((item) => item.ports!.map((port) => port.name)),
    ).not.toContain("http");
    expect(planRemoval(injected)).toEqual(two);
  });
  test("uses a plain container where sidecars do not exist or services do not see their names", () => {
    const old = planInjection(hello, options([named], { server: { major: 1, minor: 28 } }));
    expect(old.spec.template.spec.initContainers).toBeUndefined();
    expect(agentOf(old).restartPolicy).toBeUndefined();
    expect(
      planInjection(hello, options([named], { server: { major: 1, minor: 32 } })).spec.template.spec.initContainers,
    ).toBeUndefined();
    expect(
      planInjection(hello, options([numeric], { server: { major: 1, minor: 32 } })).spec.template.spec.initContainers,
    ).toHaveLength(1);
  });
  test("steps over agent ports that the application uses", () => {
    const injected = planInjection(
      withContainer({ ports: [{ name: "http", containerPort: 24900 }] }),
      options([named]),
    );
    expect(readAgentConfig(injected.spec.template.spec)?.ports[0]).toMatchObject({
      containerPort: 24900,
      agentPort: 24901,
    });
  });
  test("asks for no privilege because of a UDP port that nobody needs, and keeps one that somebody did", () => {
    const dns = service("dns", [{ port: 53, targetPort: 5353, protocol: "UDP" }]);
    const portsOf = (object: Workload): unknown =>
      readAgentConfig(object.spec.template.spec)?.ports.map((port) => `${port.containerPort}/${port.protocol}`);
    expect(portsOf(planInjection(hello, options([named, dns])))).toEqual(["8080/tcp"]);
    const needed = [{ containerPort: 5353, protocol: "udp" } as const];
    const both = planInjection(hello, { ...options([named, dns]), needed });
    expect(portsOf(both)).toEqual(["5353/udp", "8080/tcp"]);
    expect(planInjection(both, options([named, dns]))).toEqual(both);
  });
  test("takes a UDP port over by its name, beside a TCP port of the same number, and gives it back", () => {
    const ports = [
      { name: "dns", containerPort: 53, protocol: "UDP" },
      { name: "dns-tcp", containerPort: 53 },
    ];
    const current: Workload = {
      ...hello,
      spec: { ...hello.spec, template: { metadata: {}, spec: { containers: [{ name: "server", ports }] } } },
    };
    const dns = service("dns", [
      { name: "dns", port: 53, targetPort: "dns", protocol: "UDP" },
      { name: "dns-tcp", port: 53, targetPort: "dns-tcp" },
    ]);
    const injected = planInjection(current, options([dns]));
    expect(injected.spec.template.spec.containers[0]?.ports).toEqual([
      { name: "tm-dns", containerPort: 53, protocol: "UDP" },
      { name: "tm-dns-tcp", containerPort: 53 },
    ]);
    expect(findAgent(injected.spec.template.spec)?.ports).toEqual([
      { name: "dns-tcp", containerPort: 24900, protocol: "TCP" },
      { name: "dns", containerPort: 24901, protocol: "UDP" },
    ]);
    expect(planRemoval(injected)).toEqual(current);
  });
  test("keeps every volume that holds a token away from the agent", () => {
    const spec = {
      ...withContainer({
        volumeMounts: [
          { name: "aws-iam-token", mountPath: "/var/run/secrets/eks.amazonaws.com/serviceaccount" },
          { name: "old", mountPath: "/var/run/secrets/kubernetes.io/serviceaccount/" },
          { name: "certs", mountPath: "/var/run/secrets/tls", subPathExpr: "$(GREETING)/x" },
        ],
      }).spec.template.spec,
      volumes: [
        { name: "aws-iam-token", projected: { sources: [{ serviceAccountToken: { path: "token" } }] } },
        { name: "old" },
        { name: "certs" },
      ],
    };
    const injected = planInjection(
      { ...hello, spec: { ...hello.spec, template: { ...hello.spec.template, spec } } },
      options([named]),
    );
    expect(agentOf(injected).volumeMounts!.map((mount) => mount.mountPath)).toEqual([
      "/tel_app_mounts/var/run/secrets/tls",
      "/var/run/secrets/kubernetes.io/serviceaccount",
    ]);
    expect(agentOf(injected).volumeMounts![0]!.subPathExpr).toBe("$(_TEL_APP_GREETING)/x");
  });
  test("prefixes environment sources", () => {
    const envFrom = [{ configMapRef: { name: "a" } }, { prefix: "DB_", secretRef: { name: "b" } }];
    const injected = planInjection(withContainer({ envFrom }), options([named]));
    expect(agentOf(injected).envFrom!.map((source) => source.prefix)).toEqual(["_TEL_APP_", "_TEL_APP_DB_"]);
  });
});

describe("planInjection() refuses", () => {
  const refusal = (workload: Workload, more: InjectionOptions): AppError => {
    try {
      planInjection(workload, more);
    } catch (error) {
      if (error instanceof AppError) return error;
    }
    throw new Error("was not refused");
  };
  const withSpec = (spec: object): Workload => ({
    ...hello,
    spec: { ...hello.spec, template: { ...hello.spec.template, spec: { ...hello.spec.template.spec, ...spec } } },
  });

  test("a redirect where pod security forbids it, and says the way out", () => {
    const error = refusal(
      hello,
      options([numeric], { namespaceLabels: { "pod-security.kubernetes.io/enforce": "restricted" } }),
    );
    expect(error.code).toBe("not_interceptable");
    expect(error.message).toContain("restricted");
    expect(error.hint).toContain("name the port");
  });
  // Trap 46: its webhook injected the manager itself.
  test("the traffic-manager", () => {
    const manager = { ...hello.spec.template, metadata: { labels: managerSelector } };
    const error = refusal({ ...hello, spec: { ...hello.spec, template: manager } }, options([named]));
    expect(error.message).toBe("deployment hello is the traffic-manager, which takes no agent");
  });
  test("hostNetwork, a stranger's traffic-agent, an opt-out and the agent's own ports", () => {
    expect(refusal(withSpec({ hostNetwork: true }), options([named])).message).toContain("hostNetwork");
    const stranger = withSpec({ initContainers: [{ name: "traffic-agent", image: "tel2" }] });
    expect(refusal(stranger, options([named])).message).toContain("not this product's");
    const optOut = {
      ...hello.spec.template,
      metadata: { annotations: { "telepresence.io/inject-traffic-agent": "disabled" } },
    };
    expect(refusal({ ...hello, spec: { ...hello.spec, template: optOut } }, options([named])).message).toContain(
      "disabled",
    );
    expect(
      refusal(withContainer({ ports: [{ name: "http", containerPort: 24898 }] }), options([named])).message,
    ).toContain("24898");
  });
});

describe("planRemoval()", () => {
  test("gives back the object itself when nothing is ours", () => {
    expect(planRemoval(hello)).toBe(hello);
  });
  test("undoes an injection exactly, fields that were missing included", () => {
    for (const services of [[named], [numeric]]) {
      expect(planRemoval(planInjection(hello, options(services)))).toEqual(hello);
    }
    const bare = {
      ...hello,
      spec: {
        ...hello.spec,
        template: {
          metadata: { labels: { app: "hello" } },
          spec: { containers: [{ name: "c", ports: [{ name: "http", containerPort: 80 }] }] },
        },
      },
    };
    expect(planRemoval(planInjection(bare, options([named])))).toEqual(bare);
  });
  test("takes out an agent whose record was edited away", () => {
    const injected = planInjection(hello, options([numeric]));
    const template = { ...injected.spec.template, metadata: hello.spec.template.metadata! };
    expect(
      findAgent(planRemoval({ ...injected, spec: { ...injected.spec, template } }).spec.template.spec),
    ).toBeUndefined();
  });
  test("injecting again after `kubectl apply` took the name back repairs the take-over", () => {
    const injected = planInjection(hello, options([named]));
    const containers = hello.spec.template.spec.containers;
    const reset = {
      ...injected,
      spec: {
        ...injected.spec,
        template: { ...injected.spec.template, spec: { ...injected.spec.template.spec, containers } },
      },
    };
    expect(coversPorts(reset, tcp(8080))).toBe(false);
    expect(planInjection(reset, options([named]))).toEqual(injected);
    expect(planRemoval(reset)).toEqual(hello);
  });
});

// A release made while the agent is there, as functions that make sense with and without the agent.
type Release = (workload: Workload) => Workload;
const inPod =
  (change: (pod: Workload["spec"]["template"]["spec"]) => object): Release =>
  (workload) => ({
    ...workload,
    spec: {
      ...workload.spec,
      template: {
        ...workload.spec.template,
        spec: { ...workload.spec.template.spec, ...change(workload.spec.template.spec) },
      },
    },
  });
const inServer = (change: (container: Container) => object): Release =>
  inPod((pod) => ({
    containers: pod.containers.map((item) => (item.name === "server" ? { ...item, ...change(item) } : item)),
  }));

const release: fc.Arbitrary<Release> = fc.oneof(
  fc.string({ minLength: 1 }).map((image) => inServer(() => ({ image }))),
  fc
    .array(fc.record({ name: fc.stringMatching(/^[A-Z]{1,6}$/), value: fc.string() }), { maxLength: 4 })
    .map((env) => inServer(() => ({ env }))),
  fc.nat(9).map((replicas): Release => (workload) => ({ ...workload, spec: { ...workload.spec, replicas } })),
  fc.stringMatching(/^[a-z]{3,8}$/).map((name) =>
    inPod((pod) => ({
      containers: [...pod.containers, { name: `new-${name}`, image: "x", ports: [{ containerPort: 7000 }] }],
    })),
  ),
  fc.integer({ min: 1024, max: 7000 }).map((containerPort) =>
    inServer((item) => ({
      ports: item.ports?.map((port) => (port.containerPort === 8080 ? { ...port, containerPort } : port)),
    })),
  ),
  fc.constant(inServer((item) => ({ ports: [...(item.ports ?? []), { name: "admin", containerPort: 7001 }] }))),
  fc
    .stringMatching(/^\/[a-z]{0,8}$/)
    .map((path) => inServer((item) => ({ livenessProbe: { httpGet: { ...item.livenessProbe?.httpGet, path } } }))),
  fc.constant(inPod((pod) => ({ volumes: [...(pod.volumes ?? []), { name: "more", emptyDir: {} }] }))),
  fc.constant(inPod((pod) => ({ initContainers: [{ name: "migrate", image: "m" }, ...(pod.initContainers ?? [])] }))),
  fc.string().map((value): Release => (workload) => ({
    ...workload,
    spec: {
      ...workload.spec,
      template: {
        ...workload.spec.template,
        metadata: {
          ...workload.spec.template.metadata,
          annotations: { ...workload.spec.template.metadata?.annotations, "kubectl.kubernetes.io/restartedAt": value },
        },
      },
    },
  })),
);

/** What the API server does to absent and empty lists: it does not tell them apart. */
function normalize(workload: Workload): unknown {
  return JSON.parse(
    JSON.stringify(workload, (_key, value: unknown) =>
      Array.isArray(value) && value.length === 0 ? undefined : value,
    ),
  );
}

describe("an injection and its removal, whatever happens between", () => {
  const services = fc.subarray(
    [
      named,
      numeric,
      service("metrics", [{ port: 9090, targetPort: "metrics" }]),
      service("head", [{ port: 80, targetPort: "http" }], { clusterIP: "None" }),
    ],
    { minLength: 1 },
  );
  const unknown = fc.dictionary(fc.stringMatching(/^x[a-z]{1,8}$/), fc.jsonValue(), { maxKeys: 3 });

  test("leave exactly the release", () => {
    fc.assert(
      fc.property(
        services,
        fc.array(release, { maxLength: 6 }),
        unknown,
        fc.constantFrom(28, 30, 34),
        (list, releases, extra, minor) => {
          const base = inServer(() => extra)(inPod(() => extra)(hello));
          const all: Release = (workload) => releases.reduce((value, step) => step(value), workload);
          const injected = planInjection(base, options(list, { server: { major: 1, minor } }));
          expect(normalize(planRemoval(all(injected)))).toEqual(normalize(all(base)));
        },
      ),
      { numRuns: 400 },
    );
  });
  test("injecting twice is injecting once, also over a release", () => {
    fc.assert(
      fc.property(services, fc.array(release, { maxLength: 4 }), (list, releases) => {
        const changed = releases.reduce((value, step) => step(value), hello);
        const once = planInjection(changed, options(list));
        expect(planInjection(once, options(list))).toEqual(once);
        expect(mergePatch(once, planInjection(once, options(list)))).toBeUndefined();
      }),
      { numRuns: 200 },
    );
  });
});

describe("mergePatch()", () => {
  const apply = (target: unknown, patch: unknown): unknown => {
    if (typeof patch !== "object" || patch === null || Array.isArray(patch)) return patch;
    const base =
      typeof target === "object" && target !== null && !Array.isArray(target) ? { ...(target as object) } : {};
    const result = base as Record<string, unknown>;
    for (const [key, value] of Object.entries(patch)) {
      if (value === null) delete result[key];
      else result[key] = apply(result[key], value);
    }
    return result;
  };
  test("turns one object into the other", () => {
    const value = fc.letrec((tie) => ({
      node: fc.oneof(
        { depthSize: "small" },
        fc.string(),
        fc.integer(),
        fc.array(fc.integer()),
        fc.dictionary(fc.stringMatching(/^[a-d]$/), tie("node")),
      ),
    })).node;
    const object = fc.dictionary(fc.stringMatching(/^[a-d]$/), value);
    fc.assert(
      fc.property(object, object, (before, after) => {
        const patch = mergePatch(before, after);
        expect(patch === undefined ? before : apply(before, patch)).toEqual(after);
      }),
    );
  });
  test("carries the environment variable only once", () => {
    const injected = planInjection(hello, options([named]));
    expect(JSON.stringify(mergePatch(hello, injected)).split(agentConfigVariable)).toHaveLength(2);
  });
});
