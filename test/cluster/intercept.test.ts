// The main job on the real cluster: intercept, what the command prints, its child, its environment, and every shape of
// service and workload. In all of it a caller in the cluster is what counts.
import { beforeAll, describe, expect, test } from "vitest";
import { AppError } from "#base/error.ts";
import * as cluster from "#testbed/cluster.ts";
import { Lab, apply, field, fixture, kubectl, rolledOut, service, until, webApp, report } from "./lab.ts";
import { stage } from "./stage.ts";
import { startToolsPod } from "./tools-pod.ts";

const namespace = "it-intercept";
const lab = new Lab({ managerNamespace: "it-manager" });

stage([lab], namespace);
beforeAll(async () => {
  await apply(namespace, ...apps);
  await startToolsPod(namespace, "caller");
  await rolledOut(namespace, ...apps.filter(isWorkload).map(nameOf));
  await lab.ok("connect", "-n", namespace);
});

const nameOf = (manifest: Readonly<Record<string, unknown>>): string =>
  `${String(manifest["kind"]).toLowerCase()}/${(manifest["metadata"] as { readonly name: string }).name}`;

const isWorkload = (manifest: Readonly<Record<string, unknown>>): boolean =>
  ["Deployment", "StatefulSet"].includes(String(manifest["kind"]));

const number = [{ port: 80, targetPort: 8000 }];
/** hello, but listening on one address only. */
const boundTo = (host: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> => ({
  command: [
    "python3",
    "-c",
    `import os; exec(open("/samples/hello.py").read().replace('("", PORT)', '(os.environ["HOST"], PORT)'))`,
  ],
  env: [
    { name: "POD_NAME", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
    { name: "HOST", ...host },
  ],
});
const shapes = {
  named: webApp({ name: "named" }),
  number: webApp({ name: "number", servicePorts: number }),
  unnamed: webApp({ name: "unnamed", ports: [{ containerPort: 8000 }], servicePorts: [{ port: 8000 }] }),
  headless: webApp({
    name: "headless",
    kind: "StatefulSet",
    headless: true,
    servicePorts: [{ name: "http", port: 8000, targetPort: 8000 }],
  }),
  twins: [
    ...webApp({ name: "twins" }),
    service("twins-too", [{ name: "web", port: 8080, targetPort: 8000 }], {}, "twins"),
  ],
  probed: webApp({
    name: "probed",
    container: {
      readinessProbe: { httpGet: { path: "/healthz", port: "http" }, periodSeconds: 1 },
      livenessProbe: {
        httpGet: { path: "/healthz", port: "http" },
        periodSeconds: 1,
        timeoutSeconds: 5,
        failureThreshold: 2,
      },
      // eight pods start at once here: who starts slowly is not to be killed for it
      startupProbe: { httpGet: { path: "/healthz", port: "http" }, periodSeconds: 1, failureThreshold: 60 },
    },
  }),
  loopback: webApp({
    name: "loopback",
    container: { ...boundTo({ value: "127.0.0.1" }), readinessProbe: { exec: { command: ["true"] } } },
  }),
  podip: webApp({ name: "podip", container: boundTo({ valueFrom: { fieldRef: { fieldPath: "status.podIP" } } }) }),
};
const several = webApp({
  name: "several",
  ports: [
    { name: "http", containerPort: 8000 },
    { name: "admin", containerPort: 8001 },
  ],
  servicePorts: [
    { name: "http", port: 80, targetPort: "http" },
    { name: "admin", port: 81, targetPort: "admin" },
  ],
});
const asleep = webApp({ name: "asleep", replicas: 0 });
const hostNetwork = webApp({ name: "host-network", replicas: 0, pod: { hostNetwork: true } });
const withoutSelector = {
  apiVersion: "v1",
  kind: "Service",
  metadata: { name: "no-selector" },
  spec: { ports: [{ port: 80 }] },
};
const withoutPods = service("no-pods", number, {}, "nobody");
const environment = webApp({
  name: "environment",
  container: {
    env: [
      { name: "POD_NAME", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
      { name: "NODE", valueFrom: { fieldRef: { fieldPath: "spec.nodeName" } } },
      { name: "BASE", value: "one" },
      { name: "BUILT", value: "$(BASE)/two $$(BASE)" },
      { name: "FROM_SECRET", valueFrom: { secretKeyRef: { name: "keys", key: "token" } } },
    ],
    envFrom: [{ configMapRef: { name: "settings" }, prefix: "CONF_" }],
  },
});
const keys = { apiVersion: "v1", kind: "Secret", metadata: { name: "keys" }, stringData: { token: "hush hush" } };
const settings = { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "settings" }, data: { MODE: "multi\nline" } };
const apps = [
  keys,
  settings,
  ...Object.values(shapes).flat(),
  ...several,
  ...asleep,
  ...hostNetwork,
  withoutSelector,
  withoutPods,
  ...environment,
].sort((a, b) => order(a) - order(b));

function order(manifest: Readonly<Record<string, unknown>>): number {
  return ["Secret", "ConfigMap"].includes(String(manifest["kind"])) ? 0 : 1;
}

/** What a caller in the cluster gets. */
async function call(url: string, ...more: readonly string[]): Promise<string> {
  const argv = ["exec", "-n", namespace, "caller", "--", "curl", "-sS", "--max-time", "10", ...more, url];
  const { stdout, stderr } = await cluster.kubectl(argv, { allowFailure: true });
  return stdout === "" ? stderr : stdout;
}

/** After a first rollout the node's own tables may still lead to an old pod, for a moment that is not ours. */
async function answers(url: string, text: string): Promise<void> {
  let last = "";
  const seen = async (): Promise<boolean> => (last = await call(url)) === text;
  await until(`the answer of ${url}`, seen, { limitMs: 10_000 }).catch(() => {
    throw new AppError("timeout", `${url} answers ${JSON.stringify(last)}, expected ${JSON.stringify(text)}`);
  });
}

async function fails(...args: readonly string[]): Promise<{ readonly code: number; readonly text: string }> {
  const { code, stdout, stderr } = await lab.cli(args);
  expect(stdout).toBe("");
  return { code, text: stderr };
}

describe("every shape of service and workload", () => {
  const urls: Readonly<Record<keyof typeof shapes, string>> = {
    named: "http://named/",
    number: "http://number/",
    unnamed: "http://unnamed:8000/",
    headless: "http://headless-0.headless:8000/",
    twins: "http://twins-too:8080/",
    probed: "http://probed/",
    loopback: "http://loopback/",
    podip: "http://podip/",
  };
  // All at once, as with several people: each rolls its own workload out.
  test("is intercepted and left", async () => {
    const names = Object.keys(shapes) as (keyof typeof shapes)[];
    const firstPort = 18_120;
    const lastPort = firstPort + names.length - 1;
    await using server = lab.spawn(fixture("laptop-server.mjs", `${firstPort}-${lastPort}`));
    await server.says(`listens on ${lastPort}`);
    const one = async (name: keyof typeof shapes, localPort: number): Promise<number> => {
      const startMs = performance.now();
      const choice = name === "twins" ? ["--service", "twins-too"] : [];
      const said = await lab.ok("intercept", name, "--port", String(localPort), ...choice);
      const tookMs = Math.round(performance.now() - startMs);
      expect(said).toMatch(/^Using (Deployment|StatefulSet) /);
      expect(said).toMatch(/State +: ACTIVE/);
      await answers(urls[name], "hello from laptop\n");
      await lab.ok("leave", name);
      const after = await call(urls[name]);
      if (!after.includes("Hello from the cluster")) {
        throw new AppError("internal", `${urls[name]} answers ${JSON.stringify(after)} after leave`);
      }
      return tookMs;
    };
    const failures: string[] = [];
    // Whole and at once: the reporter shortens what it compares, and has nothing when the test takes too long.
    const failed = (name: string, error: unknown): string => {
      failures.push(`${name}: ${String(error)}`);
      report("intercept failed", failures.at(-1));
      return "failed";
    };
    const took = await Promise.all(
      names.map(async (name, index) => [
        name,
        await one(name, firstPort + index).catch((error: unknown) => failed(name, error)),
      ]),
    );
    report("intercept with rollout, all shapes at once, ms", Object.fromEntries(took));
    expect(failures).toEqual([]);
  });
  test("shows its agent in kubectl describe pod", async () => {
    const described = await kubectl("describe", "pod", "-n", namespace, "-l", "app=named");
    expect(described).toMatch(/^ {2}traffic-agent:$/m);
  });
  test("keeps its probes: they ask the application, not the laptop", async () => {
    const path =
      '{.items[*].metadata.name} {.items[*].status.conditions[?(@.type=="Ready")].status} {.items[*].status.containerStatuses[*].restartCount}';
    const stay = async (): Promise<string> =>
      await kubectl("get", "pods", "-n", namespace, "-l", "app=probed", "-o", `jsonpath=${path}`);
    const before = await until("one pod that is ready", async () => {
      const seen = await stay();
      return /^\S+ True \d+$/.test(seen) && seen;
    });
    await using server = lab.spawn(fixture("laptop-server.mjs", "18129", "laptop", "sick"));
    await server.says("listens on");
    await lab.ok("intercept", "probed", "--port", "18129");
    expect(await call("http://probed/healthz")).toBe("sick\n");
    const endMs = Date.now() + 4_000; // four periods of the probes, of which two would be enough
    const now = await until("a change, or the end of four periods", async () => {
      const seen = await stay();
      return (seen !== before || Date.now() > endMs) && seen;
    });
    await lab.ok("leave", "probed");
    expect(now).toBe(before);
  });
});

describe("a choice that has to be made", () => {
  test("between several ports is listed", async () => {
    const { code, text } = await fails("intercept", "several", "--port", "18101");
    expect(code).toBe(1);
    expect(text).toContain(
      "several service ports: --port 18101:http (service several, 80 to several:8000), --port 18101:admin",
    );
    expect(text).toContain("choose one with --port 18101:PORT");
  });
  test("is made with a name, and then all ports can be had without another rollout", async () => {
    await using server = lab.spawn(fixture("laptop-server.mjs", "18101"));
    await server.says("listens on");
    await lab.ok("intercept", "several", "--port", "18101:admin");
    await answers("http://several:81/", "hello from laptop\n");
    expect(await call("http://several/")).toContain("Hello from the cluster");
    const generation = await field(namespace, "deployment/several", ".metadata.generation");
    const startMs = performance.now();
    await lab.ok("intercept", "several-web", "--workload", "several", "--port", "18102:http");
    report("second intercept, agent there", { tookMs: Math.round(performance.now() - startMs) });
    expect(await field(namespace, "deployment/several", ".metadata.generation")).toBe(generation);
    // nothing listens on 18102: the application answers, and status says why
    expect(await call("http://several/")).toContain("Hello from the cluster");
    expect(
      await until("the refusal in list", async () => {
        const { stdout } = await lab.cli(["list", "--intercepts"]);
        return stdout.includes("Connections refused") && stdout;
      }),
    ).toContain("went to the application because nothing accepted them on the laptop");
    await lab.ok("leave", "several", "several-web");
  });
});

describe("what cannot be intercepted is told in one sentence", () => {
  const cases: readonly (readonly [name: string, text: RegExp])[] = [
    ["nothing-here", /no service and no workload "nothing-here" in namespace it-intercept; see `telepresence list/],
    ["no-pods", /service no-pods in namespace it-intercept has no pods/],
    ["no-selector", /service no-selector has no selector/],
    ["asleep", /deployment asleep in namespace it-intercept is scaled to 0: it has no pods; kubectl scale/],
    ["host-network", /hostNetwork/],
  ];
  test.each(cases)("%s", async (name, text) => {
    const result = await fails("intercept", name, "--port", "18103");
    expect(result.code).toBe(1);
    expect(result.text).toMatch(/^telepresence: error: .+\n$/);
    expect(result.text).toMatch(text);
  });
  test("a local port that another intercept has, an intercept that exists, none that could be left", async () => {
    await lab.ok("intercept", "named", "--port", "18104");
    expect((await fails("intercept", "number", "--port", "18104")).text).toContain(
      "Port 127.0.0.1:18104 is already in use by intercept named",
    );
    expect((await fails("intercept", "named", "--port", "18105")).text).toContain("already an intercept named named");
    const again = await fails("intercept", "other", "--workload", "named", "--port", "18105");
    expect(again.text).toMatch(/port 8000\/tcp of Deployment named is intercepted by this session's intercept "named"/);
    await lab.ok("leave", "named");
    expect((await fails("leave", "named")).text).toContain("there is no intercept named named");
  });
});

describe("a command after --", () => {
  const dump = ["python3", "-c", "import json, os; print(json.dumps(dict(os.environ)))"];
  test("gets the pod's environment over the laptop's, and its exit code is kept", async () => {
    const env = { MINE: "stays", BASE: "is replaced" };
    const result = await lab.cli(["intercept", "environment", "--port", "18106", "--", ...dump], { env });
    expect({ code: result.code, stderr: result.stderr }).toEqual({ code: 0, stderr: "" });
    const seen = JSON.parse(result.stdout.slice(result.stdout.indexOf("\n{"))) as Record<string, string>;
    expect(seen).toMatchObject({
      BASE: "one",
      BUILT: "one/two $(BASE)",
      FROM_SECRET: "hush hush",
      CONF_MODE: "multi\nline",
      NODE: "node1",
      MINE: "stays",
      TELEPRESENCE_CONTAINER: "environment",
    });
    expect(seen["POD_NAME"]).toMatch(/^environment-/);
    expect(seen["TELEPRESENCE_INTERCEPT_ID"]).toMatch(/:environment$/);
    expect(seen["HOME"]).toMatch(/\/home\/dev$/);
    const failed = await lab.cli(["intercept", "environment", "--port", "18106", "--", "sh", "-c", "exit 42"]);
    expect(failed.code).toBe(42);
    expect(await lab.ok("list", "--intercepts")).not.toContain("environment");
  });
  test("ends with leave, and the intercept ends with it", async () => {
    await using first = lab.start([
      "intercept",
      "named",
      "--port",
      "18107",
      "--",
      ...fixture("laptop-server.mjs", "18107"),
    ]);
    await first.says("listens on");
    expect(await call("http://named/")).toBe("hello from laptop\n");
    await lab.ok("leave", "named");
    await first.ends();
    expect(first.stderr).toContain("Warning: the intercept named was ended by another command");
    await using second = lab.start([
      "intercept",
      "named",
      "--port",
      "18107",
      "--",
      ...fixture("laptop-server.mjs", "18107"),
    ]);
    await second.says("listens on");
    expect(await call("http://named/exit/3")).toBe("bye\n");
    expect(await second.ends()).toBe(3);
    expect(await call("http://named/")).toContain("Hello from the cluster");
    expect(await lab.ok("list", "--intercepts")).not.toContain("named");
  });
  test("that listens nowhere is told so, and callers go on getting the application", async () => {
    await using idle = lab.start(["intercept", "named", "--port", "18113", "--", "sleep", "60"]);
    await idle.says("nothing listens on 127.0.0.1:18113 yet, and no caller reaches this laptop until something does");
    expect(await call("http://named/")).toContain("Hello from the cluster");
    expect(await lab.ok("status")).toMatch(/named: .*1 refused here went to the application/);
  });
  test("that fails because another program has its port is told so, and the intercept ends", async () => {
    const port = "18112";
    await using stranger = lab.spawn(fixture("laptop-server.mjs", port, "stranger"));
    await stranger.says("listens on");
    const child = ["python3", "-m", "http.server", port, "--bind", "127.0.0.1"];
    const { code, stderr } = await lab.cli(["intercept", "named", "--port", port, "--", ...child]);
    expect(code).toBe(1);
    expect(stderr).toContain("Address already in use\n");
    expect(stderr.split("\n").at(-2)).toBe(
      `Warning: 127.0.0.1:${port} was in use by another program when the command started; if the command was to listen there, end that program or choose another port with --port`,
    );
    expect(await lab.ok("list", "--intercepts")).not.toContain("named");
    expect(await call("http://named/")).toContain("Hello from the cluster");
  });
  test("is not needed, and the process may listen on another address", async () => {
    await using server = lab.spawn(["python3", "-u", "-m", "http.server", "18114", "--bind", "127.0.0.9"]);
    await server.says("Serving HTTP on 127.0.0.9 port 18114");
    const said = await lab.ok("intercept", "named", "--port", "18114", "--address", "127.0.0.9");
    expect(said).toMatch(/Intercepting +: .* -> 127\.0\.0\.9\n +\d+ -> 18114 TCP\n/);
    expect(await call("http://named/")).toContain("Directory listing for /");
    await lab.ok("leave", "named");
    expect(await call("http://named/")).toContain("Hello from the cluster");
  });
  test("is not needed to get the environment into files", async () => {
    await lab.ok("intercept", "environment", "--port", "18108", "--env-file", "it.env", "--env-json", "it.json");
    const compose = (await lab.sh("cat it.env; stat -c %a it.env it.json")).stdout;
    expect(compose).toContain("BASE=one\n");
    expect(compose).toMatch(/600\n600\n$/);
    expect(JSON.parse((await lab.sh("cat it.json")).stdout)).toMatchObject({ CONF_MODE: "multi\nline" });
    await lab.ok("leave", "environment");
  });
});

describe("refused before anything is touched", () => {
  const template = (): Promise<string> => field(namespace, "deployment/untouched", ".metadata.generation");
  const agents = (): Promise<string> =>
    kubectl("get", "pods", "-n", namespace, "-l", "app=untouched", "-o", "jsonpath={..ephemeralContainers[*].name}");
  beforeAll(async () => {
    await apply(namespace, ...webApp({ name: "untouched" }));
    await rolledOut(namespace, "deployment/untouched");
  });
  test.each([
    ["--env-file", "/no/such/env", "/no/such/env cannot be written: there is no such file or directory"],
    ["--env-json", "/dev", "/dev cannot be written: it is a directory"],
    ["--mount", "/dev/null", "--mount is /dev/null, which is no directory"],
    ["--address", "nobody.invalid", "nobody.invalid"],
    ["--address", "no such host", '--address is "no such host", expected a host name'],
    ["--match", "request.metod == 'GET'", "--match is wrong at column"],
    ["--http-path-regex", "(", "--http-path-regex"],
  ])("%s %s", async (flag, value, text) => {
    for (const agent of ["auto", "sidecar"]) {
      const { code, stdout, stderr } = await lab.cli(["intercept", "untouched", "--agent", agent, flag, value]);
      expect(stderr).toContain(text);
      expect(code).toBeGreaterThan(0);
      expect(stdout).toBe("");
      report(`${flag} ${value}, ${agent}: code ${code}`, stderr);
    }
    expect(await template()).toBe("1");
    expect(await agents()).toBe("");
    expect(await lab.ok("list", "--intercepts")).not.toContain("untouched");
  });
});

describe("what scripts read", () => {
  interface ListedJson {
    readonly name: string;
    readonly workload_resource_type: string;
    readonly intercept_infos?: readonly { readonly spec: Record<string, unknown>; readonly disposition: number }[];
  }
  test("list has intercepts first, and JSON with the original's keys", async () => {
    await lab.ok("intercept", "unnamed", "--port", "18109");
    expect((await lab.ok("list")).split("\n")[0]).toMatch(/^unnamed *: intercepted$/);
    const items = await lab.json<readonly ListedJson[]>("list");
    expect(items[0]).toMatchObject({
      name: "unnamed",
      workload_resource_type: "Deployment",
      intercept_infos: [
        {
          disposition: 1,
          spec: { target_port: 18_109, target_host: "127.0.0.1", service_port: 8000, mechanism: "tcp" },
        },
      ],
    });
    const enveloped = JSON.parse(await lab.ok("list", "--output", "json")) as { cmd: string; stdout: unknown };
    expect(enveloped).toMatchObject({ cmd: "list", stdout: expect.any(Array) as unknown });
    const status = await lab.json<Record<string, Record<string, unknown>>>("status");
    expect(status["user_daemon"]).toMatchObject({
      status: "Connected",
      intercepts: [{ name: "unnamed" }],
    });
    await lab.ok("leave", "unnamed");
  });
  test("intercept --detailed-output is one object, and a failure is one too", async () => {
    const flags = ["--port", "18110", "--detailed-output", "--output", "json"];
    const detail = JSON.parse(await lab.ok("intercept", "environment", ...flags)) as Record<string, unknown>;
    expect(detail).toMatchObject({
      name: "environment",
      disposition: "ACTIVE",
      target_port: 18_110,
      environment: { BASE: "one" },
    });
    const { code, stdout } = await lab.cli(["intercept", "environment", "--port", "18111", "--output", "json"]);
    expect(code).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({ cmd: "intercept", err: expect.stringContaining("already") as string });
    await lab.ok("leave", "environment");
  });
});
