// Trap 30: several services or ports with one targetPort, a missing targetPort, equal names, TCP and UDP of one number.
import { describe, expect, test } from "vitest";
import type { AppError } from "#base/error.ts";
import { FakeApiServer, sendJson, sendStatus } from "./api-server.fake.ts";
import type { Pod, PodSpec, Service, Workload } from "./objects.ts";
import { parsePort, planPorts } from "./port-choice.ts";
import { routeServicePorts } from "./service-ports.ts";
import type { InterceptQuery } from "./workloads.ts";
import { listWorkloads, resolveWorkload } from "./workloads.ts";

const { signal } = new AbortController();
const service = (name: string, ports: Service["spec"]["ports"], more: object = {}): Service => ({
  metadata: { name, namespace: "n", uid: `uid-${name}` },
  spec: { clusterIP: "10.96.0.1", selector: { app: "hello" }, ports: ports ?? [], ...more },
});
const podSpec: PodSpec = {
  containers: [
    {
      name: "web",
      ports: [
        { name: "http", containerPort: 8080 },
        { name: "dns", containerPort: 53, protocol: "UDP" },
      ],
    },
    {
      name: "side",
      ports: [
        { name: "metrics", containerPort: 9090 },
        { name: "http", containerPort: 8081 },
      ],
    },
  ],
};
const workload = (name: string, more: object = {}, labels = { app: "hello" }): Workload => ({
  metadata: { name, namespace: "n", uid: `uid-${name}` },
  spec: { replicas: 1, selector: { matchLabels: labels }, template: { metadata: { labels }, spec: podSpec }, ...more },
});

describe("routeServicePorts()", () => {
  const route = (ports: Service["spec"]["ports"]): unknown => {
    const { routes, unrouted } = routeServicePorts(podSpec, [service("hello", ports)]);
    return [
      ...routes.map((item) => `${item.containerName}:${item.containerPort}/${item.protocol} ${item.portName ?? "-"}`),
      ...unrouted.map((item) => item.why),
    ];
  };
  test("named, numeric, digits, missing and zero targetPort, and both protocols", () => {
    expect(route([{ port: 80, targetPort: "http" }])).toEqual(["web:8080/tcp http"]);
    expect(route([{ port: 80, targetPort: 9090 }])).toEqual(["side:9090/tcp -"]);
    expect(route([{ port: 80, targetPort: "9090" }])).toEqual(["side:9090/tcp -"]);
    expect(route([{ port: 8080 }])).toEqual(["web:8080/tcp -"]);
    expect(route([{ port: 8081, targetPort: 0 }])).toEqual(["side:8081/tcp -"]);
    expect(route([{ port: 3000, targetPort: 3000 }])).toEqual(["web:3000/tcp -"]);
    expect(route([{ port: 53, targetPort: "dns", protocol: "UDP" }])).toEqual(["web:53/udp dns"]);
    expect(route([{ port: 80, targetPort: "nope" }])).toEqual(['no container has a tcp port named "nope"']);
  });
});

describe("planPorts()", () => {
  const plan = (services: readonly Service[], ...wanted: string[]): readonly unknown[] =>
    planPorts(podSpec, services, wanted, "deployment hello").map(
      (port) => `${port.localPort} ${port.containerName}:${port.containerPort} ${port.serviceName}:${port.servicePort}`,
    );
  const two = service("hello", [
    { name: "web", port: 80, targetPort: "http" },
    { name: "metrics", port: 9090, targetPort: "metrics" },
  ]);

  test("takes the only port, or the one that is named or numbered", () => {
    expect(plan([service("hello", [{ port: 80, targetPort: "http" }])], "8000")).toEqual(["8000 web:8080 hello:80"]);
    expect(plan([two], "8000:web")).toEqual(["8000 web:8080 hello:80"]);
    expect(plan([two], "8000:9090")).toEqual(["8000 side:9090 hello:9090"]);
    expect(plan([two], "8000:80", "9000:metrics")).toHaveLength(2);
  });
  test("several services and ports that end at one container port are one", () => {
    const other = service("other", [{ port: 81, targetPort: "http" }]);
    expect(plan([service("hello", [{ port: 80, targetPort: 8080 }]), other], "8000")).toEqual([
      "8000 web:8080 hello:80",
    ]);
  });
  test("lists the choices when they differ", () => {
    expect(() => plan([two], "8000")).toThrow(
      "deployment hello has several service ports: --port 8000:web (service hello, 80 to web:8080), --port 8000:metrics (service hello, 9090 to side:9090)",
    );
    expect(() => plan([two], "8000:nope")).toThrow('deployment hello has no service port "nope"');
    expect(() => plan([two], "8000:web", "9000:80")).toThrow("twice");
  });
  test("says why nothing can be taken", () => {
    expect(() => plan([service("hello", [{ port: 53, targetPort: "dns", protocol: "UDP" }])], "53")).toThrow(
      "only TCP",
    );
    expect(() => plan([service("hello", [{ port: 53, targetPort: "x" }])], "53")).toThrow(
      'port 53 of service hello leads nowhere: no container has a tcp port named "x"',
    );
    expect(() => plan([service("hello", [])], "53")).toThrow("have no ports");
  });
  test("parsePort() refuses what is not LOCAL[:PORT]", () => {
    expect(parsePort("8000:http")).toEqual({ localPort: 8000, identifier: "http" });
    for (const bad of ["", "http", "0", "70000", "8000:", "1:2:3"])
      expect(() => parsePort(bad)).toThrow("is not LOCAL[:SERVICE-PORT]");
  });
});

interface Cluster {
  readonly services?: readonly Service[];
  readonly deployments?: readonly Workload[];
  readonly statefulsets?: readonly Workload[];
  readonly replicasets?: readonly Workload[];
  readonly pods?: readonly Pod[];
}

/** Answers lists and gets out of a small cluster; kinds that are left out are forbidden. */
function serve(server: FakeApiServer, cluster: Cluster): void {
  server.answer = ({ path }, response) => {
    const [, plural = "", name] = /\/namespaces\/n\/([a-z]+)(?:\/(.+))?$/.exec(path) ?? [];
    const items = (cluster as Readonly<Record<string, readonly Service[] | undefined>>)[plural];
    const found = items?.find((item) => item.metadata.name === name);
    if (items === undefined) sendStatus(response, 403, "Forbidden", `User "alice" cannot get resource "${plural}"`);
    else if (name === undefined) sendJson(response, { metadata: {}, items });
    else if (found === undefined) sendStatus(response, 404, "NotFound", "not found");
    else sendJson(response, found);
  };
}

async function resolve(cluster: Cluster, query: Partial<InterceptQuery> = {}): Promise<string> {
  await using server = await new FakeApiServer().listen();
  serve(server, cluster);
  const found = await resolveWorkload(
    server.open(),
    { name: "hello", namespace: "n", ports: ["8000"], ...query },
    { signal, withoutAgent: (object) => object },
  );
  return `${found.workload.kind} ${found.workload.name} ${found.containerName} ${found.ports.map((port) => `${port.serviceName}:${port.containerPort}`).join()} [${found.services.map((item) => item.metadata.name).join()}]`;
}

describe("resolveWorkload()", () => {
  const http = service("hello", [{ port: 80, targetPort: "http" }]);
  const full = { services: [http], deployments: [workload("hello")], statefulsets: [], replicasets: [] };

  test("takes a name that is both", async () => {
    expect(await resolve(full)).toBe("Deployment hello web hello:8080 [hello]");
  });
  test("takes a service with another name than its workload, and the other way round", async () => {
    expect(await resolve({ ...full, deployments: [workload("server")] })).toBe(
      "Deployment server web hello:8080 [hello]",
    );
    expect(await resolve({ ...full, deployments: [], statefulsets: [workload("db")] }, { name: "db" })).toBe(
      "StatefulSet db web hello:8080 [hello]",
    );
  });
  test("means the service's own ports when a service has the name", async () => {
    const admin = service("hello-admin", [{ port: 90, targetPort: "metrics" }]);
    expect(await resolve({ ...full, services: [admin, http] })).toBe(
      "Deployment hello web hello:8080 [hello-admin,hello]",
    );
    expect(await resolve({ ...full, services: [admin, http] }, { service: "hello-admin" })).toBe(
      "Deployment hello side hello-admin:9090 [hello-admin,hello]",
    );
  });
  test("takes --workload and --container", async () => {
    expect(await resolve(full, { name: "any", workload: "hello", container: "side" })).toBe(
      "Deployment hello side hello:8080 [hello]",
    );
    await expect(resolve(full, { container: "nope" })).rejects.toThrow('deployment hello has no container "nope"');
  });
  test("works where only one kind may be read", async () => {
    expect(await resolve({ services: [http], deployments: [workload("hello")] })).toBe(
      "Deployment hello web hello:8080 [hello]",
    );
  });
  test("asks when a service leads to several workloads, and leaves out those scaled to 0", async () => {
    await expect(resolve({ ...full, deployments: [workload("blue"), workload("green")] })).rejects.toMatchObject({
      code: "ambiguous",
      message: "service hello leads to 2 workloads: deployment blue, deployment green",
      hint: "choose one with --workload",
    });
    expect(await resolve({ ...full, deployments: [workload("blue", { replicas: 0 }), workload("green")] })).toContain(
      "Deployment green",
    );
  });
  test("asks when the name means two things", async () => {
    const deployments = [workload("hello", {}, { app: "other" }), workload("server")];
    await expect(resolve({ ...full, deployments })).rejects.toMatchObject({
      code: "ambiguous",
      hint: "choose with --service hello or --workload hello",
    });
  });
  const refusals: readonly [string, Cluster, string][] = [
    [
      "nothing of the name",
      { ...full, services: [], deployments: [] },
      'no service and no workload "hello" in namespace n',
    ],
    [
      "ExternalName",
      {
        ...full,
        services: [service("hello", [], { type: "ExternalName", externalName: "db.example" })],
        deployments: [],
      },
      "is an ExternalName for db.example",
    ],
    [
      "no selector",
      { ...full, services: [service("hello", [], { selector: undefined })], deployments: [] },
      "has no selector",
    ],
    ["no pods", { ...full, deployments: [], pods: [] }, "service hello in namespace n has no pods"],
    [
      "hostNetwork",
      {
        ...full,
        deployments: [
          workload("hello", {
            template: { metadata: { labels: { app: "hello" } }, spec: { ...podSpec, hostNetwork: true } },
          }),
        ],
      },
      "hostNetwork",
    ],
    ["scaled to 0", { ...full, deployments: [workload("hello", { replicas: 0 })] }, "is scaled to 0"],
    ["paused", { ...full, deployments: [workload("hello", { paused: true })] }, "is paused"],
    ["no service", { ...full, services: [] }, "deployment hello in namespace n has no service"],
  ];
  test.each(refusals)("refuses: %s", async (_what, cluster, text) => {
    await expect(resolve(cluster)).rejects.toThrow(text);
  });
  test("names what else a service leads to", async () => {
    const pods: Pod[] = [
      {
        metadata: {
          name: "x",
          ownerReferences: [{ apiVersion: "apps/v1", kind: "DaemonSet", name: "agentd", uid: "1", controller: true }],
        },
        spec: podSpec,
      },
    ];
    await expect(resolve({ ...full, deployments: [], pods })).rejects.toThrow(
      "leads to DaemonSet agentd, expected a Deployment, StatefulSet or ReplicaSet",
    );
  });
  test("names the missing right when no kind may be read", async () => {
    await expect(resolve({ services: [http] })).rejects.toMatchObject({
      code: "forbidden",
    } satisfies Partial<AppError>);
  });
});

describe("listWorkloads()", () => {
  test("leaves out ReplicaSets with an owner", async () => {
    await using server = await new FakeApiServer().listen();
    const owned = {
      ...workload("hello-7d9"),
      metadata: {
        ...workload("hello-7d9").metadata,
        ownerReferences: [{ apiVersion: "apps/v1", kind: "Deployment", name: "hello", uid: "1", controller: true }],
      },
    };
    serve(server, {
      deployments: [workload("hello")],
      statefulsets: [workload("db")],
      replicasets: [owned, workload("alone")],
    });
    const found = await listWorkloads(server.open(), "n", signal);
    expect(found.map((item) => `${item.kind} ${item.name}`)).toEqual([
      "Deployment hello",
      "StatefulSet db",
      "ReplicaSet alone",
    ]);
  });
});
