// Trap 30: several services or ports with one targetPort, a missing targetPort, equal names, TCP and UDP of one number.
import { describe, expect, test } from "vitest";
import type { AppError } from "#base/error.ts";
import { FakeApiServer, sendJson, sendStatus } from "#kube/api-server.fake.ts";
import type { KubeObject, Pod, PodSpec, Service, Workload } from "#kube/objects.ts";
import { describeAffected, parsePort, planPorts } from "./port-choice.ts";
import type { InterceptQuery } from "./resolve-workload.ts";
import { resolveWorkload } from "./resolve-workload.ts";
import { routeServicePorts } from "./service-ports.ts";
import { findWorkload, listWorkloads, standInLabel } from "./workloads.ts";

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
    expect(() => plan([service("hello", [{ port: 53, targetPort: 7, protocol: "SCTP" }])], "53")).toThrow(
      "its services have no TCP or UDP ports",
    );
    expect(() => plan([service("hello", [{ port: 53, targetPort: "x" }])], "53")).toThrow(
      'port 53 of service hello leads nowhere: no container has a tcp port named "x"',
    );
    expect(() => plan([service("hello", [])], "53")).toThrow("have no ports");
  });
  const dns = service("dns", [
    { name: "dns", port: 53, targetPort: "dns", protocol: "UDP" },
    { name: "dns-tcp", port: 53, targetPort: 8080 },
  ]);
  test("takes UDP where it is said or there is nothing else, and TCP of a number that both have", () => {
    const protocols = (...wanted: string[]): unknown =>
      planPorts(podSpec, [dns], wanted, "x").map((port) => `${port.containerPort}/${port.protocol}`);
    expect(protocols("5353:53/udp")).toEqual(["53/udp"]);
    expect(protocols("5353:dns")).toEqual(["53/udp"]);
    expect(protocols("5353:53")).toEqual(["8080/tcp"]);
    expect(protocols("5353:53/udp", "5354:53/tcp")).toEqual(["53/udp", "8080/tcp"]);
    expect(() => protocols("5353:dns/tcp")).toThrow('has no service port "dns/tcp"');
    const only = service("dns", [{ port: 53, targetPort: "dns", protocol: "UDP" }]);
    expect(planPorts(podSpec, [only], ["5353"], "x")).toMatchObject([{ containerPort: 53, protocol: "udp" }]);
  });
  test("takes declared ports, or any number, where no service leads", () => {
    expect(plan([], "8000:metrics")).toEqual(["8000 side:9090 undefined:undefined"]);
    expect(plan([], "8000:7000")).toEqual(["8000 web:7000 undefined:undefined"]);
    expect(planPorts(podSpec, [], ["53:53/udp"], "x")).toMatchObject([{ containerPort: 53, protocol: "udp" }]);
    expect(() => plan([], "8000")).toThrow(
      "deployment hello has several ports: --port 8000:http (8080 of container web)",
    );
    expect(() => plan([], "8000:nope")).toThrow('deployment hello has no port "nope"');
    const bare = { containers: [{ name: "web" }] };
    expect(() => planPorts(bare, [], ["8000"], "pod x")).toThrow("pod x has no service, and its containers declare no");
  });
  test("describeAffected() names the other services of a port that is taken", () => {
    const other = service("other", [{ port: 81, targetPort: "http" }]);
    const third = service("third", [{ port: 82, targetPort: 8080 }]);
    const chosen = planPorts(podSpec, [two], ["8000:web"], "x");
    expect(describeAffected(podSpec, [two], chosen)).toEqual([]);
    expect(describeAffected(podSpec, [two, other], chosen)).toEqual([
      "port 8080 also serves service other:81: its callers are intercepted too",
    ]);
    expect(describeAffected(podSpec, [two, other, third], chosen)).toEqual([
      "port 8080 also serves services other:81, third:82: their callers are intercepted too",
    ]);
  });
  test("parsePort() refuses what is not LOCAL[:PORT]", () => {
    expect(parsePort("8000:http")).toEqual({ localPort: 8000, identifier: "http", protocol: undefined });
    expect(parsePort("5353:53/UDP")).toEqual({ localPort: 5353, identifier: "53", protocol: "udp" });
    for (const bad of ["", "http", "0", "70000", "8000:", "1:2:3", "1:2/sctp", "1/udp"])
      expect(() => parsePort(bad)).toThrow("is not LOCAL[:SERVICE-PORT]");
  });
});

interface Cluster {
  readonly services?: readonly Service[];
  readonly deployments?: readonly Workload[];
  readonly statefulsets?: readonly Workload[];
  readonly replicasets?: readonly Workload[];
  readonly daemonsets?: readonly Workload[];
  readonly rollouts?: readonly Workload[];
  readonly jobs?: readonly Workload[];
  readonly cronjobs?: readonly KubeObject[];
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
  const labels = { app: "hello" };
  const meta = (name: string) => ({ name, namespace: "n", uid: `uid-${name}` });
  const owned = (name: string, kind: string, owner: string): Pod => ({
    metadata: {
      ...meta(name),
      labels: { app: "hello" },
      ownerReferences: [{ apiVersion: "apps/v1", kind, name: owner, uid: "1", controller: true }],
    },
    spec: podSpec,
  });
  const template = (more: object): Workload =>
    workload("hello", { template: { metadata: { labels }, spec: { ...podSpec, ...more } } });
  const full = { services: [http], deployments: [workload("hello")], statefulsets: [], replicasets: [] };

  const empty = { deployments: [], statefulsets: [], replicasets: [], daemonsets: [], rollouts: [] };
  const none = { ...empty, services: [http], cronjobs: [], jobs: [], pods: [] };

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
  test("takes every kind by its name, with the kind said where two have it", async () => {
    const cronjobs = [
      {
        metadata: meta("hello"),
        spec: { schedule: "* * * * *", jobTemplate: { spec: { template: { metadata: { labels }, spec: podSpec } } } },
      },
    ];
    const pods: Pod[] = [{ metadata: { ...meta("hello"), labels }, spec: podSpec, status: { phase: "Running" } }];
    const one = async (cluster: Cluster): Promise<string> =>
      (await resolve({ ...none, ...cluster })).split(" ")[0] ?? "";
    expect(await one({ daemonsets: [workload("hello")] })).toBe("DaemonSet");
    expect(await one({ rollouts: [workload("hello")] })).toBe("Rollout");
    expect(await one({ jobs: [workload("hello")] })).toBe("Job");
    expect(await one({ cronjobs })).toBe("CronJob");
    expect(await one({ pods })).toBe("Pod");
    // A template's kind goes before those whose pods come and go.
    expect(await one({ pods, deployments: [workload("hello")] })).toBe("Deployment");
    const both = { ...none, deployments: [workload("hello")], daemonsets: [workload("hello")] };
    await expect(resolve(both)).rejects.toMatchObject({
      code: "ambiguous",
      hint: "choose one: deployment/hello, daemonset/hello",
    });
    expect(await resolve(both, { kind: "DaemonSet", workload: "hello" })).toContain("DaemonSet hello");
  });
  test("takes the Rollout with the template of the Deployment it refers to, which is scaled to 0", async () => {
    const { spec, ...rest } = workload("hello");
    const rollout = {
      ...rest,
      spec: { replicas: 2, workloadRef: { apiVersion: "apps/v1", kind: "Deployment", name: "hello" } },
      status: { workloadObservedGeneration: "4" },
    } as unknown as Workload;
    const deployment = { ...rest, metadata: { ...rest.metadata, generation: 5 }, spec: { ...spec, replicas: 0 } };
    const cluster = { ...none, rollouts: [rollout], deployments: [deployment] };
    expect(await resolve(cluster)).toBe("Rollout hello web hello:8080 [hello]");
    await using server = await new FakeApiServer().listen();
    serve(server, cluster);
    const found = await findWorkload(server.open(), { kind: "Rollout", name: "hello", namespace: "n" }, signal);
    expect(found?.object).toMatchObject({
      metadata: { generation: 5 },
      spec: { replicas: 2, selector: { matchLabels: labels } },
      status: { observedGeneration: "4" },
    });
  });
  // Trap 48: an owner of the workload's own name was taken for the workload, for ever.
  test.each([
    ["Widget", "w"],
    ["Widget", "hello"],
    ["Deployment", "hello"],
  ])("takes what an operator's own object owns: %s %s", async (kind, owner) => {
    const { metadata } = owned("hello", kind, owner);
    const ownerReferences = metadata.ownerReferences?.map((item) => ({ ...item, apiVersion: "example.com/v1" }));
    const deployments = [{ ...workload("hello"), metadata: { ...metadata, ownerReferences: ownerReferences ?? [] } }];
    expect(await resolve({ ...none, deployments })).toContain("Deployment hello");
  });
  const finished: Workload = {
    ...workload("hello"),
    status: { conditions: [{ type: "Complete", status: "True" }] },
  };
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
        deployments: [template({ hostNetwork: true })],
      },
      "hostNetwork",
    ],
    ["scaled to 0", { ...full, deployments: [workload("hello", { replicas: 0 })] }, "is scaled to 0"],
    ["paused", { ...full, deployments: [workload("hello", { paused: true })] }, "is paused"],
    ["no service and several ports", { ...full, services: [] }, "deployment hello has several ports"],
    ["finished", { ...none, jobs: [finished] }, "job hello in namespace n is finished: it has no pods"],
    ["Windows", { ...full, deployments: [template({ nodeSelector: { "kubernetes.io/os": "windows" } })] }, "Windows"],
    [
      "no node",
      { ...none, daemonsets: [{ ...workload("hello"), status: { desiredNumberScheduled: 0 } }] },
      "daemonset hello in namespace n runs on no node",
    ],
    [
      "a pod of a workload",
      { ...full, services: [], deployments: [], pods: [owned("hello", "ReplicaSet", "hello-7d9")] },
      "pod hello in namespace n belongs to ReplicaSet hello-7d9",
    ],
  ];
  test.each(refusals)("refuses: %s", async (_what, cluster, text) => {
    await expect(resolve(cluster)).rejects.toThrow(text);
  });
  // While a CronJob was replaced, its service led to two workloads, and team mates had to choose.
  test("takes a CronJob whose replacement stands in for it, and not that", async () => {
    const { metadata, spec } = workload("hello-stand-in-1");
    const cronJob = { metadata: meta("report"), spec: { schedule: "0 4 * * *", jobTemplate: { spec } } };
    const ownerReferences = [{ apiVersion: "batch/v1", kind: "CronJob", name: "report", uid: "uid-report" }];
    const standIn = { metadata: { ...metadata, labels: { [standInLabel]: "true" }, ownerReferences }, spec };
    const cluster = { ...none, cronjobs: [cronJob], jobs: [standIn] };
    expect(await resolve(cluster)).toBe("CronJob report web hello:8080 [hello]");
    const named = resolve({ ...cluster, services: [] }, { name: "hello-stand-in-1" });
    await expect(named).rejects.toMatchObject({ code: "workload_not_found" });
  });
  test("names what else a service leads to", async () => {
    const pods = [owned("x", "DaemonSet", "agentd")];
    await expect(resolve({ ...full, deployments: [], pods })).rejects.toThrow(
      "leads to DaemonSet agentd, which could not be read",
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
