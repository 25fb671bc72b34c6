// Stories of the original: taking a replaced container back restored what somebody else's agent needed, made every later
// intercept a replacement, and left its probes patched (trap 31).
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Container, Workload } from "#kube/objects.ts";
import { findAgent, planInjection, planRemoval, readAgentConfig } from "./agent.ts";
import type { InjectionOptions } from "./agent.ts";
import { replacedAnnotation } from "./marks.ts";
import { changedMeanwhile, planReplacement, planRestore, readReplacement } from "./replacement.ts";
import type { ReplacementOptions } from "./replacement.ts";

type Fields = Readonly<Record<string, unknown>>;

const service = (targetPort: string | number) => ({
  metadata: { name: "hello", namespace: "shop" },
  spec: { selector: { app: "hello" }, ports: [{ name: "http", port: 80, targetPort }] },
});
const options = (targetPort: string | number): InjectionOptions => ({
  workload: { kind: "Deployment", name: "hello", namespace: "shop" },
  services: [service(targetPort)],
  image: { image: "telepresence:1" },
  server: { major: 1, minor: 34 },
  namespaceLabels: {},
});
const ada: ReplacementOptions = {
  containerName: "app",
  what: "deployment hello",
  by: "ada@laptop",
  installId: "ada",
  ports: [8000],
  image: { image: "telepresence:1" },
};

function workloadOf(container: Fields = {}, pod: Fields = {}): Workload {
  const app = { name: "app", image: "hello:1", ports: [{ name: "http", containerPort: 8000 }], ...container };
  return {
    metadata: { name: "hello", namespace: "shop" },
    spec: {
      template: {
        metadata: { labels: { app: "hello" } },
        spec: { containers: [app as Container, { name: "other", image: "other:1" }], ...pod },
      },
    },
  };
}
const appOf = ({ spec }: Workload): Container & Fields =>
  spec.template.spec.containers.find(({ name }) => name === "app") as Container & Fields;
/** As the server gives it back: through JSON. */
const stored = <T>(value: T): T => JSON.parse(JSON.stringify(value)) as T;
const inject = (workload: Workload, targetPort: string | number = "http"): Workload =>
  stored(planInjection(workload, options(targetPort)));
const replace = (workload: Workload, more: Partial<ReplacementOptions> = {}): Workload =>
  stored(planReplacement(workload, { ...ada, ...more }));

test("what somebody changed of a replaced container meanwhile is told, and stays his", () => {
  const replaced = replace(inject(workloadOf()));
  expect(changedMeanwhile(replaced.spec.template, "deployment hello")).toBeUndefined();
  expect(changedMeanwhile(workloadOf().spec.template, "deployment hello")).toBeUndefined();
  Object.assign(appOf(replaced), { image: "hello:2" }); // as `kubectl set image` does
  expect(changedMeanwhile(replaced.spec.template, "deployment hello")).toMatch(
    /^image of container app of deployment hello was changed while it was replaced, and stays as it was changed; /,
  );
  expect(appOf(planRestore(replaced))).toMatchObject({ image: "hello:2" });
});

describe("planReplacement()", () => {
  test("leaves of a container its name, ports, environment, volumes and probes of the network", () => {
    const probe = { httpGet: { path: "/healthz", port: 8000 } };
    const kept = {
      env: [{ name: "A", value: "1" }],
      volumeMounts: [{ name: "v", mountPath: "/v" }],
      readinessProbe: probe,
    };
    const exec = { exec: { command: ["true"] } };
    const before = inject(
      workloadOf({ ...kept, command: ["run"], workingDir: "/app", livenessProbe: exec, lifecycle: { preStop: exec } }),
    );
    const app = appOf(replace(before));
    expect(app).toMatchObject({ ...kept, name: "app", image: "telepresence:1", imagePullPolicy: "IfNotPresent" });
    expect(app.args?.slice(0, 2)).toEqual(["traffic-agent", "stand-in"]);
    expect(JSON.parse(app.args?.[2] ?? "")).toEqual({
      workload: "deployment hello",
      container: "app",
      by: "ada@laptop",
      ports: [8000],
    });
    for (const gone of ["command", "workingDir", "livenessProbe", "lifecycle"]) expect(app[gone]).toBeUndefined();
    expect(readAgentConfig(replace(before).spec.template.spec)?.standIn).toBe(true);
    expect(planRestore(replace(before))).toEqual(before);
  });

  test("raises a memory limit that no Node program could live with, and leaves others", () => {
    const withLimit = (memory: string) => replace(inject(workloadOf({ resources: { limits: { cpu: "1", memory } } })));
    expect(appOf(withLimit("32Mi")).resources).toEqual({ limits: { cpu: "1", memory: "128Mi" } });
    expect(appOf(withLimit("1Gi")).resources).toEqual({ limits: { cpu: "1", memory: "1Gi" } });
    expect(appOf(replace(inject(workloadOf()))).resources).toBeUndefined();
  });

  test.each<[Fields, Fields, number, unknown]>([
    [{}, {}, 80, { runAsUser: 0 }],
    [{}, {}, 8000, undefined],
    [{ runAsUser: 7 }, {}, 80, { runAsUser: 7 }],
    [{ runAsNonRoot: true }, {}, 80, { runAsNonRoot: true }],
    [{}, { runAsUser: 7 }, 80, undefined],
    [{}, { runAsNonRoot: true }, 80, undefined],
  ])("of a container with %j in a pod with %j on port %i runs as %j", (container, pod, port, expected) => {
    const security = Object.keys(container).length === 0 ? {} : { securityContext: container };
    const workload = workloadOf(
      { ...security, ports: [{ name: "http", containerPort: port }] },
      { securityContext: pod },
    );
    expect(appOf(replace(inject(workload), { ports: [port] }))["securityContext"]).toEqual(expected);
  });

  // A variable that has Node load the application's own modules would end the stand-in at once.
  test.each<[Fields, unknown]>([
    [
      {
        env: [
          { name: "NODE_OPTIONS", value: "--require /app/x.js" },
          { name: "B", value: "2" },
        ],
      },
      "--no-warnings",
    ],
    [{ envFrom: [{ configMapRef: { name: "c" } }] }, "--no-warnings"],
    [{ env: [{ name: "B", value: "2" }] }, undefined],
  ])("keeps %j from having it load what is not there", (container, expected) => {
    const before = inject(workloadOf(container));
    const replaced = replace(before);
    expect(appOf(replaced).env?.find(({ name }) => name === "NODE_OPTIONS")?.value).toBe(expected);
    expect(planRestore(replaced)).toEqual(before);
  });

  test("is once for its owner, and a conflict for anybody else", () => {
    const replaced = replace(inject(workloadOf()));
    expect(planReplacement(replaced, ada)).toBe(replaced);
    expect(() => planReplacement(replaced, { ...ada, installId: "bob", by: "bob@desk" })).toThrow(
      "container app of deployment hello is replaced by ada@laptop",
    );
    expect(() => replace(inject(workloadOf()), { containerName: "none" })).toThrow("has no container none");
  });
});

describe("an agent beside a stand-in", () => {
  test("is injected anew without taking the stand-in away, and taken out with it", () => {
    const original = workloadOf({ lifecycle: { preStop: { httpGet: { port: "http" } } } });
    const replaced = replace(inject(original));
    const again = inject(replaced, 9000);
    expect(readReplacement(again.spec.template)).toMatchObject({ by: "ada@laptop", installId: "ada" });
    expect(appOf(again).image).toBe("telepresence:1");
    expect(planRestore(again)).toEqual(inject(original, 9000));
    expect(planRemoval(again)).toEqual(original);
    expect(planRemoval(replaced)).toEqual(original);
  });

  // Forced every later intercept to be a replacement.
  test("is an ordinary one once the container is back", () => {
    const original = workloadOf();
    const after = planRestore(replace(inject(original)));
    expect(after).toEqual(inject(original));
    expect(findAgent(after.spec.template.spec)).toBeDefined();
    expect(readAgentConfig(after.spec.template.spec)?.standIn).toBeUndefined();
    expect(JSON.stringify(after)).not.toContain("stand-in");
  });
});

test("an annotation that somebody made unreadable is left as it is", () => {
  const replaced = replace(inject(workloadOf()));
  const { template } = replaced.spec;
  const annotations = { ...template.metadata?.annotations, [replacedAnnotation]: "{" };
  const edited = { ...replaced, spec: { template: { ...template, metadata: { ...template.metadata, annotations } } } };
  expect(planRestore(edited)).toBe(edited);
});

// ---- whatever was there, and whatever a release made of it meanwhile

const handler = fc.oneof(
  fc.constant({ exec: { command: ["true"] } }),
  fc.record({ httpGet: fc.record({ path: fc.constant("/ready"), port: fc.constantFrom("http", 8000) }) }),
  fc.constant({ tcpSocket: { port: 8000 } }),
  fc.constant({ grpc: { port: 8000 } }),
);
const container = fc.record(
  {
    image: fc.string({ minLength: 1 }),
    imagePullPolicy: fc.constantFrom("Always", "IfNotPresent"),
    command: fc.array(fc.string(), { maxLength: 2 }),
    args: fc.array(fc.string(), { maxLength: 2 }),
    workingDir: fc.constant("/app"),
    env: fc.array(fc.record({ name: fc.constantFrom("A", "B", "NODE_OPTIONS"), value: fc.string() }), {
      minLength: 1,
      maxLength: 3,
    }),
    envFrom: fc.constant([{ configMapRef: { name: "c" } }]),
    livenessProbe: handler,
    readinessProbe: handler,
    startupProbe: handler,
    lifecycle: fc.record({ preStop: handler }),
    resources: fc.constantFrom({ limits: { memory: "16Mi" } }, { limits: { memory: "2Gi" } }, {}),
    securityContext: fc.constantFrom({}, { runAsUser: 5 }, { runAsNonRoot: true }),
    tty: fc.boolean(),
  },
  { requiredKeys: [] },
);
const targetPort = fc.constantFrom<string | number>("http", 8000);

type Release = (app: Container & Fields) => Fields;
/** Each sets a field to something that is nobody's but the release's. */
const release: fc.Arbitrary<Release> = fc.oneof(
  fc.constantFrom("image", "workingDir").map((name): Release => (app) => ({ ...app, [name]: `release-${name}` })),
  fc.constantFrom("command", "args").map((name): Release => (app) => ({ ...app, [name]: ["release"] })),
  fc.constantFrom("livenessProbe", "readinessProbe", "startupProbe").map((name): Release => (app) => ({
    ...app,
    [name]: { tcpSocket: { port: 1 } },
  })),
  fc.constant<Release>((app) => ({ ...app, lifecycle: { postStart: { tcpSocket: { port: 2 } } } })),
  fc.constant<Release>((app) => ({ ...app, resources: { limits: { memory: "3Gi" } } })),
  fc.constant<Release>((app) => ({ ...app, env: [...(app.env ?? []), { name: "NEW", value: "1" }] })),
  fc.constant<Release>((app) => ({ ...app, tty: true, stdin: true })),
);
const released = (workload: Workload, releases: readonly Release[]): Workload => {
  const { template } = workload.spec;
  const containers = template.spec.containers.map((item) =>
    item.name === "app"
      ? (releases.reduce<Fields>(
          (app, one) => one(app as Container & Fields),
          item as Container & Fields,
        ) as unknown as Container)
      : item,
  );
  return { ...workload, spec: { ...workload.spec, template: { ...template, spec: { ...template.spec, containers } } } };
};

describe("whatever the container is", () => {
  test("it comes back as it was", () => {
    fc.assert(
      fc.property(container, targetPort, (fields, target) => {
        const original = stored(workloadOf(fields));
        const injected = inject(original, target);
        expect(planRestore(replace(injected))).toEqual(injected);
        expect(planRemoval(replace(injected))).toEqual(original);
      }),
    );
  });

  test("what a release changed meanwhile stays, and only that", () => {
    fc.assert(
      fc.property(container, targetPort, fc.array(release, { maxLength: 5 }), (fields, target, releases) => {
        const injected = inject(stored(workloadOf(fields)), target);
        const after = planRestore(released(replace(injected), releases));
        expect(appOf(after)).toEqual(appOf(released(injected, releases)));
        expect(after).toEqual(released(injected, releases));
      }),
    );
  });
});
