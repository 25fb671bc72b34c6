// Agents and manager on the real cluster, called on the laptop: injection and its exact undo, and the cluster's own
// reasons when something cannot come up, in seconds.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { softwareVersion } from "#base/version.ts";
import * as cluster from "#testbed/cluster.ts";
import type { DriverArgs } from "./installer-driver.ts";

const namespace = "installer-test";
const root = join(import.meta.dirname, "../..");
const node = join(root, "node_modules/.bin/node");
const noImage = { image: "docker.io/testbed/no-such-image:1", pullPolicy: "Never" } as const;
/** Ends at once: `traffic-agent` is no program in it. */
const wrongImage = { image: "docker.io/testbed/tools:1", pullPolicy: "IfNotPresent" } as const;

interface Outcome {
  readonly value?: unknown;
  readonly error?: { readonly code: string; readonly message: string; readonly hint?: string };
  readonly progress: readonly string[];
  readonly tookMs: number;
}

async function drive(call: string, args: Partial<DriverArgs> = {}, more: cluster.LaptopOptions = {}): Promise<Outcome> {
  const full = { namespace, name: "hello", image: noImage, ...args };
  const driver = join(import.meta.dirname, "installer-driver.ts");
  const { stdout } = await cluster.onLaptop([node, driver, call, JSON.stringify(full)], { cwd: root, ...more });
  return JSON.parse(stdout) as Outcome;
}

async function template(kind = "deployment"): Promise<unknown> {
  const { stdout } = await cluster.kubectl(["get", kind, "hello", "-n", namespace, "-o", "jsonpath={.spec.template}"]);
  return JSON.parse(stdout);
}

const kubectl = (...args: readonly string[]): Promise<unknown> => cluster.kubectl([...args, "-n", namespace]);

beforeAll(async () => {
  await cluster.up();
  await cluster.kubectl(["create", "namespace", namespace], { allowFailure: true });
});
afterAll(async () => {
  await cluster.kubectl(["delete", "namespace", namespace, "installer-manager", "--ignore-not-found", "--wait=false"]);
});
beforeEach(async () => {
  await kubectl("delete", "deployment,statefulset,service,resourcequota", "--all", "--wait=true");
  await cluster.deploySamples(namespace, ["hello"]);
});

describe("an agent that cannot come up", () => {
  test("is named with the image's reason within seconds, and is taken out again", async () => {
    const before = await template();
    const { error, tookMs } = await drive("inject");
    expect(error?.code).toBe("rollout_failed");
    expect(error?.message).toContain(
      "image docker.io/testbed/no-such-image:1 of container traffic-agent cannot be pulled",
    );
    expect(tookMs).toBeLessThan(15_000);
    expect(await template()).toEqual(before);
  });
  test("is named with what its container wrote", async () => {
    const { error, tookMs } = await drive("inject", { image: wrongImage });
    expect(error?.message).toMatch(/container traffic-agent of pod hello-\S+ (cannot start|ends again and again)/);
    expect(tookMs).toBeLessThan(30_000);
  });
  test("is named with the quota that refuses it", async () => {
    await kubectl("create", "quota", "tiny", "--hard=pods=1");
    const { error, tookMs } = await drive("inject");
    expect(error?.message).toContain("exceeded quota: tiny");
    expect(tookMs).toBeLessThan(20_000);
  });
  test("leaves a release alone that was made while it was there", async () => {
    const waiting = drive("inject");
    await kubectl("set", "env", "deployment/hello", "GREETING=changed meanwhile");
    await waiting;
    expect(JSON.stringify(await template())).toContain("changed meanwhile");
    expect(JSON.stringify(await template())).not.toContain("traffic-agent");
  });
});

const productImage = join(root, "dist/images", `telepresence-${softwareVersion}.tar`);

describe.runIf(existsSync(productImage))("an agent that comes up", () => {
  const image = { image: `telepresence/telepresence:${softwareVersion}`, pullPolicy: "IfNotPresent" } as const;
  const replicaSets = async (): Promise<number> => {
    const { stdout } = await cluster.kubectl(["get", "replicasets", "-n", namespace, "-l", "app=hello", "-o", "name"]);
    return stdout.trim().split("\n").length;
  };
  beforeAll(() => cluster.importImage(productImage));

  test("is one rollout for two laptops, keeps a release, and leaves no trace and no failed request", async () => {
    await cluster.deploySamples(namespace, ["visitor"]);
    await kubectl("scale", "deployment/hello", "--replicas=3");
    await kubectl("rollout", "status", "deployment/hello");
    await kubectl("rollout", "status", "deployment/visitor");
    const before = await template();
    const both = await Promise.all([drive("inject", { image }), drive("inject", { image }, { laptop: 2 })]);
    expect(both.map((outcome) => outcome.error)).toEqual([undefined, undefined]);
    expect(await replicaSets()).toBe(2);
    expect((await drive("inject", { image })).value).toMatchObject({ changed: false });
    expect((await drive("remove")).value).toEqual(["hello"]);
    expect(await template()).toEqual(before);
    expect(await replicaSets()).toBe(2);
    const ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/stats').read().decode())";
    const asked = await cluster.kubectl(["exec", "-n", namespace, "deploy/visitor", "--", "python3", "-c", ask]);
    expect(JSON.parse(asked.stdout)).toMatchObject({ failed: 0 });
  });
  test("keeps a release that is made while it is there", async () => {
    expect((await drive("inject", { image })).error).toBeUndefined();
    await kubectl("set", "env", "deployment/hello", "GREETING=released");
    await kubectl("scale", "deployment/hello", "--replicas=2");
    expect((await drive("remove")).value).toEqual(["hello"]);
    const after = JSON.stringify(await template());
    expect(after).toContain("released");
    expect(after).not.toMatch(/traffic-agent|telepresence|tm-http/);
  });
});

describe("pod security", () => {
  test("forbids a redirect before anything is changed", async () => {
    const service = [
      "service/hello",
      "--type=json",
      '-p=[{"op":"replace","path":"/spec/ports/0/targetPort","value":8000}]',
    ];
    await kubectl("patch", ...service);
    await cluster.kubectl([
      "label",
      "namespace",
      namespace,
      "pod-security.kubernetes.io/enforce=baseline",
      "--overwrite",
    ]);
    try {
      const { error } = await drive("inject");
      expect(error).toMatchObject({
        code: "not_interceptable",
        hint: expect.stringContaining("name the port") as string,
      });
    } finally {
      await cluster.kubectl(["label", "namespace", namespace, "pod-security.kubernetes.io/enforce-"]);
    }
  });
});

describe("streams", () => {
  /** One that stays: pods that are ending are among those found for a while. */
  const podName = async (): Promise<string> => {
    await kubectl("rollout", "status", "deployment/hello");
    const { stdout } = await cluster.kubectl(["get", "pods", "-n", namespace, "-l", "app=hello", "-o", "json"]);
    const { items } = JSON.parse(stdout) as { items: { metadata: { name: string; deletionTimestamp?: string } }[] };
    const { metadata } = items.find((item) => item.metadata.deletionTimestamp === undefined) ?? {};
    return metadata?.name ?? "";
  };
  test("a port-forward answers, and is refused where nothing listens", async () => {
    const pod = await podName();
    expect((await drive("forward", { pod, port: 8000 })).value).toContain("200");
    const { error } = await drive("forward", { pod, port: 4 });
    expect(`${error?.code}: ${error?.message}`).toMatch(/^refused: /);
    expect((await drive("forward", { pod: "no-such-pod", port: 4 })).error).toMatchObject({ code: "not_found" });
  });
  test("a command's output and exit code come back", async () => {
    const pod = await podName();
    expect((await drive("exec", { pod })).value).toEqual({ stdout: "out\n", stderr: "err\n", exitCode: 3 });
  });
});

describe("subnets", () => {
  test("are found as admin and as a user of one namespace", async () => {
    expect((await drive("subnets")).value).toMatchObject({
      serviceSubnets: ["10.96.0.0/16"],
      podSubnets: ["10.244.0.0/24"],
    });
    const solo = (await drive("subnets", { namespace: "solo" }, { clusterUser: "solo" })).value;
    expect(solo).toMatchObject({ serviceSubnets: ["10.96.0.0/16"] });
  });
});

describe("the manager", () => {
  test("that cannot come up is named with the reason and removed again, its namespace too", async () => {
    const { error, progress } = await drive("manager", { namespace: "installer-manager" });
    expect(error?.message).toContain(
      "the traffic-manager in namespace installer-manager does not come up: image docker.io/testbed/no-such-image:1",
    );
    expect(progress.at(-1)).toContain("removed the traffic-manager");
    await cluster.kubectl(["wait", "--for=delete", "namespace/installer-manager", "--timeout=60s"]);
    expect((await drive("removeManager", { namespace: "installer-manager" })).value).toEqual({
      namespaces: [],
      notes: [],
    });
  });
});
