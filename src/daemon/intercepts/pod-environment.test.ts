// Trap 50: sources that were forgotten. Nobody gets another container's environment for his own, and what is missing is
// named: an environment that is half there without a word costs an afternoon.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import type { Container, Pod } from "#kube/objects.ts";
import { hasPrograms, parseEnviron, readPodEnvironment, readReplacedEnvironment } from "./pod-environment.ts";
import { withoutPlaces, type PodEnvironment } from "./pod-environment.ts";
import { FakePodApi } from "#daemon/volumes/pod-api.fake.ts";

const never = new AbortController().signal;
const base64 = (text: string): string => Buffer.from(text).toString("base64");
const container: Container = {
  name: "app",
  envFrom: [{ configMapRef: { name: "settings" } }],
  env: [
    { name: "TOKEN", valueFrom: { secretKeyRef: { name: "keys", key: "token" } } },
    { name: "URL", value: "http://$(POD)/$(MODE)" },
    { name: "POD", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
    { name: "JAVA_HOME", value: "/meant" },
  ],
};

let api: FakePodApi;
beforeEach(async () => {
  api = await FakePodApi.open();
  const started = "2026-01-02T00:00:00Z";
  const pod: Pod = {
    metadata: { name: "web-1", uid: "u" },
    spec: { containers: [container] },
    status: {
      containerStatuses: [{ name: "app", ready: true, restartCount: 0, state: { running: { startedAt: started } } }],
    },
  };
  api.put("pods", pod);
  api.put("configmaps", { metadata: { name: "settings", uid: "c" }, data: { MODE: "dev" } } as never);
  api.put("secrets", { metadata: { name: "keys", uid: "s" }, data: { token: base64("hush") } } as never);
  const service = (name: string, creationTimestamp: string): void =>
    api.put("services", {
      metadata: { name, uid: name, creationTimestamp },
      spec: { clusterIP: "10.0.0.1", ports: [{ port: 80 }] },
    } as never);
  service("old", "2026-01-01T00:00:00Z");
  service("younger", "2026-01-03T00:00:00Z");
});
afterEach(() => api[Symbol.asyncDispose]());

const read = (environmentOf?: string, before?: Readonly<Record<string, string>>): Promise<PodEnvironment> =>
  readPodEnvironment(
    api.client(),
    { namespace: "shop", pod: { name: "web-1", agent: "traffic-agent", environmentOf }, containerName: "app" },
    never,
    before,
  );

const computed = { MODE: "dev", TOKEN: "hush", URL: "http://$(POD)/dev", POD: "web-1", JAVA_HOME: "/meant" };

describe("hasPrograms()", () => {
  const place = { namespace: "shop", pod: { name: "web-1" }, containerName: "app" };
  test("sees whether anything can be run in the container, and takes a refusal for neither", async () => {
    expect(await hasPrograms(api.client(), place, never)).toBe(false);
    api.program = () => ["printf", "MODE=dev"];
    expect(await hasPrograms(api.client(), place, never)).toBe(true);
    api.forbidExec(); // an agent could not be read either
    expect(await hasPrograms(api.client(), place, never)).toBe(true);
  });
});

describe("readPodEnvironment()", () => {
  test("takes the container's own, with what its image sets, less what describes its system", async () => {
    api.program = (name, command) =>
      name === "app" && command.join(" ") === "cat /proc/self/environ"
        ? [
            "printf",
            "%s\\0",
            "PATH=/bin",
            "HOSTNAME=web-1",
            "IMAGE=set\nby it",
            "PYTHONPATH=/x",
            "JAVA_HOME=/meant",
            "A=b=c",
          ]
        : undefined;
    expect(await read()).toEqual({ values: { IMAGE: "set\nby it", JAVA_HOME: "/meant", A: "b=c" }, warnings: [] });
    expect(api.executed).toEqual(["app: cat /proc/self/environ"]);
  });
  test("without cat takes what the agent was given, over what can be worked out", async () => {
    api.program = (name, command) =>
      name === "traffic-agent" && command[2] === "environment" ? ["echo", '{"MODE":"as it started"}'] : undefined;
    const { values, warnings } = await read("app");
    expect(values).toMatchObject({ ...computed, MODE: "as it started", OLD_SERVICE_HOST: "10.0.0.1" });
    expect(values).not.toHaveProperty("YOUNGER_SERVICE_HOST");
    expect(warnings).toEqual([
      "the container's own environment could not be read: the container has no `cat`; it is what the pod's specification says, without what the image sets",
    ]);
  });
  test("takes no other container's from the agent", async () => {
    const { values } = await read("sidecar");
    expect(values).toMatchObject(computed);
    expect(api.executed).toEqual(["app: cat /proc/self/environ"]);
  });
  test("works it out where exec is forbidden, and names the verb", async () => {
    api.forbidExec();
    const { values, warnings } = await read("app");
    expect(values).toMatchObject(computed);
    expect(warnings).toEqual([
      expect.stringMatching(/environment could not be read: user "alice" may not get pods\/exec /),
    ]);
  });
  test("names what it lacks, the objects and the variables", async () => {
    api.forbidExec();
    api.forbidden.add("get secrets");
    api.forbidden.add("list services");
    const { values, warnings } = await read();
    expect(values).toEqual({ MODE: "dev", URL: "http://$(POD)/dev", POD: "web-1", JAVA_HOME: "/meant" });
    expect(warnings.slice(1)).toEqual([
      "the value of TOKEN is not known",
      expect.stringMatching(/^the environment lacks what comes from Secret keys: user "alice" may not get secrets/),
    ]);
  });
  test("fails where nothing can be read", async () => {
    api.forbidExec();
    api.forbidden.add("list pods");
    await expect(read()).rejects.toMatchObject({ code: "forbidden" });
  });
});

describe("a replaced container's environment", () => {
  const workload = { kind: "Deployment", name: "web", namespace: "shop" } as const;
  const replaced = { workload, containerName: "app" };
  beforeEach(() => {
    const template = { spec: { containers: [container] } };
    const object = { metadata: { name: "web" }, spec: { selector: { matchLabels: { app: "web" } }, template } };
    api.put("deployments", object as never);
  });
  test("is what it had said of itself, under what the new pod is given", async () => {
    api.program = () => ["printf", "%s\\0", "IMAGE=set by it", "POD=web-0", "HOSTNAME=web-0"];
    const before = await readReplacedEnvironment(api.client(), replaced, never);
    expect(before).toEqual({ IMAGE: "set by it", POD: "web-0", HOSTNAME: "web-0" });
    api.program = () => undefined; // the stand-in has no programs
    expect(await read(undefined, before)).toEqual({
      values: expect.objectContaining({ ...computed, IMAGE: "set by it" }),
      warnings: [],
    });
  });
  test("is not known of what cannot say it, has no pod that runs, or is no more", async () => {
    expect(await readReplacedEnvironment(api.client(), replaced, never)).toBeUndefined();
    api.program = () => ["printf", "A=1"];
    const other = { ...replaced, containerName: "other" };
    expect(await readReplacedEnvironment(api.client(), other, never)).toBeUndefined();
    api.remove("deployments", "web");
    expect(await readReplacedEnvironment(api.client(), replaced, never)).toBeUndefined();
  });
  test("is not waited for when nothing answers", async () => {
    api.program = () => ["sleep", "100"];
    const clock = new FakeClock();
    const reading = readReplacedEnvironment(api.client(clock), replaced, never);
    await expect.poll(() => api.executed.length).toBe(1);
    await clock.advance(5000);
    expect(await reading).toBeUndefined();
  });
});

test("parseEnviron() keeps line ends and equals signs, and drops what is no variable", () => {
  expect(parseEnviron("A=1\0B=x\ny=z\0\0broken\0=x\0C=\0")).toEqual({ A: "1", B: "x\ny=z", C: "" });
});

test("withoutPlaces() leaves places of an image out, unless the pod means them", () => {
  const values = { GOPATH: "/go", JAVA_HOME: "/meant", HOME: "/root", X: "1" };
  expect(withoutPlaces(values, container)).toEqual({ JAVA_HOME: "/meant", X: "1" });
  expect(withoutPlaces(values, undefined)).toEqual({ X: "1" });
});
