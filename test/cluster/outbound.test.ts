// Outbound traffic on the real cluster: any program of the laptop reaches pods and services as a pod would, and what
// is not the cluster's stays as it was. Traps 16, 34 to 39.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import * as cluster from "#testbed/cluster.ts";
import { laptopAddresses, nodePodRange, publicWebAddress } from "#testbed/layout.ts";
import { call, figure, timed } from "./call.ts";
import type { Dialled } from "./caller.ts";
import { apply, field, kubectl, Lab, rolledOut } from "./lab.ts";
import { service, webApp } from "./lab.ts";
import { stage } from "./stage.ts";

const namespace = "outbound";
const lab = new Lab({});
const curl = async (url: string): Promise<string> => (await lab.sh(`curl -sS -m 15 ${url}`)).stdout;
const podBase = nodePodRange.replace(/\.0\/24$/, "");
/** Addresses of the pods' range that the node treats in its own way during these tests. */
const blackHole = `${podBase}.249`;
const unreachable = `${podBase}.248`;

let podAddress = "";
let serviceAddress = "";
let echoAddress = "";

async function nodeRoute(verb: "add" | "del", type: string, address: string): Promise<void> {
  await cluster.runIn(cluster.namespaces.node, "ip", ["route", verb, type, address]).catch((error: unknown) => {
    if (verb === "add") throw error;
  });
}

stage([lab], namespace);
beforeAll(async () => {
  await cluster.deploySamples(namespace, ["hello", "echo"]);
  await apply(namespace, ...webApp({ name: "web", kind: "StatefulSet", replicas: 2, headless: true }));
  const edges = ["10.96.1.0", "10.96.3.255"].map((clusterIP, index) =>
    service(`edge-${index}`, [{ port: 80, targetPort: 8000 }], { clusterIP }, "hello"),
  );
  await apply(namespace, ...edges);
  await rolledOut(namespace, "statefulset/web");
  podAddress = await kubectl(
    "get",
    "pods",
    "-n",
    namespace,
    "-l",
    "app=hello",
    "-o",
    "jsonpath={.items[0].status.podIP}",
  );
  serviceAddress = await field(namespace, "service/hello", ".spec.clusterIP");
  echoAddress = await field(namespace, "service/echo", ".spec.clusterIP");
  await nodeRoute("add", "blackhole", blackHole);
  await nodeRoute("add", "unreachable", unreachable);
  await lab.ok("connect", "-n", namespace);
});
afterAll(async () => {
  await nodeRoute("del", "blackhole", blackHole);
  await nodeRoute("del", "unreachable", unreachable);
  await lab.ok("uninstall", "--everything");
});

describe("a program of the laptop", () => {
  test.each(["hello", "hello.outbound", "hello.outbound.svc", "hello.outbound.svc.cluster.local", "HELLO.Outbound"])(
    "calls %s",
    async (name) => expect(await curl(`http://${name}/`)).toContain("Hello from the cluster"),
  );
  test("calls pods of a StatefulSet by name, a headless service, pod and service addresses", async () => {
    const names = [
      "web-0.web",
      "web-1.web.outbound",
      "web-0.web.outbound.svc.cluster.local",
      "web.outbound",
      podAddress,
    ];
    for (const name of names) {
      expect({ name, text: await curl(`http://${name}:8000/`) }).toEqual({
        name,
        text: expect.stringContaining("Hello"),
      });
    }
    expect(await curl(`http://${serviceAddress}/`)).toContain("Hello from the cluster");
  });
  test("calls a service in another namespace", async () => {
    expect(await curl("http://hello.default/")).toContain("Hello from the cluster");
    expect(await curl("http://hello.default.svc.cluster.local/")).toContain("Hello from the cluster");
  });
  test("calls addresses that end in .0 and .255 (trap 16)", async () => {
    for (const address of ["10.96.1.0", "10.96.3.255"]) {
      expect(await curl(`http://${address}/`)).toContain("Hello from the cluster");
    }
  });
  test("of another kind than ours, and as root, is served as well", async () => {
    const python = `import urllib.request; print(urllib.request.urlopen("http://hello.outbound/", timeout=15).status)`;
    expect((await lab.sh(`/usr/bin/python3 -c '${python}'`)).stdout).toBe("200\n");
    expect(await lab.rootSh("curl -sS -m 15 http://hello.outbound/")).toContain("Hello from the cluster");
  });
});

describe("a connection", () => {
  test("is refused at once where the port is closed (trap 36)", async () => {
    const targets = [
      { host: podAddress, port: 9 },
      { host: "echo.outbound", port: 7000 },
      { host: podAddress, port: 10 },
    ];
    const results = await call<Dialled[]>(lab, "dialAll", targets);
    expect(results.map(({ outcome }) => outcome)).toEqual(["ECONNREFUSED", "connected", "ECONNREFUSED"]);
    figure("refusal of a closed port", results[0]?.ms ?? 0);
    figure("connection to an open port, with the lookup", results[1]?.ms ?? 0);
    expect(results[0]?.ms).toBeLessThan(3000);
  });
  test("hears that its target is unreachable", async () => {
    const result = await call<Dialled>(lab, "dial", { host: unreachable, port: 80, limitMs: 15_000 });
    expect(result.outcome).toMatch(/^(EHOSTUNREACH|ENETUNREACH)$/);
    figure("unreachable target told", result.ms);
  });
  test("to a black hole stays silent, and delays nobody else (trap 39)", async () => {
    const silent = Array.from({ length: 20 }, (_, index) => ({ host: blackHole, port: 1000 + index, limitMs: 6000 }));
    const pending = call<Dialled[]>(lab, "dialAll", silent);
    const [good, ms] = await timed(() =>
      call<Dialled[]>(
        lab,
        "dialAll",
        Array.from({ length: 20 }, () => ({ host: podAddress, port: 8000 })),
      ),
    );
    expect(good.map(({ outcome }) => outcome)).toEqual(good.map(() => "connected"));
    figure("20 connections beside 20 black holes, slowest", Math.max(...good.map((result) => result.ms)));
    expect(Math.max(...good.map((result) => result.ms))).toBeLessThan(4000);
    expect(ms).toBeLessThan(10_000);
    for (const { outcome } of await pending) expect(["silent", "ETIMEDOUT", "EHOSTUNREACH"]).toContain(outcome);
  });
  test("carries 10 MB both ways, byte for byte, past its half-close (traps 34, 35)", async () => {
    const bytes = 10_000_000;
    const result = await call<{ bytes: number; same: boolean; ms: number }>(lab, "bulk", {
      host: "echo",
      port: 7000,
      bytes,
    });
    expect(result).toMatchObject({ bytes, same: true });
    figure("10 MB to the echo and back", result.ms);
    figure("that is", (bytes * 2) / 1e6 / (result.ms / 1000), "MB/s");
  });
  test("is one of 200 at once", async () => {
    const result = await call<{ good: number; failed: string[]; ms: number }>(lab, "parallel", {
      host: echoAddress,
      port: 7000,
      count: 200,
    });
    expect(result).toMatchObject({ good: 200, failed: [] });
    figure("200 connections at once, each 4 kB there and back", result.ms);
  });
});

describe("a datagram", () => {
  test("comes back from a service, whatever its size", async () => {
    const sizes = [1, 512, 1400, 1472, 1473, 8000, 32_000];
    const { same } = await call<{ same: boolean[] }>(lab, "udp", { host: echoAddress, port: 7000, sizes });
    expect(sizes.filter((_, index) => same[index] !== true)).toEqual([]);
  });
  test("hears that its port is closed", async () => {
    const result = await call<Dialled>(lab, "refusedDatagram", { host: podAddress, port: 9 });
    expect(result.outcome).toBe("ECONNREFUSED");
    figure("refusal of a datagram", result.ms);
  });
});

describe("what is not the cluster's", () => {
  test("goes where it went: public names and addresses, and the API server", async () => {
    const seen = `seen from ${laptopAddresses(1).address}`;
    expect(await curl("http://example.com/")).toContain(seen);
    expect(await curl(`http://${publicWebAddress}/`)).toContain(seen);
    expect((await lab.sh("kubectl get --raw=/readyz")).stdout).toBe("ok");
    expect((await lab.sh(`ip route get ${publicWebAddress}`)).stdout).toContain("dev eth0");
  });
  test("leaves the laptop's own name and loopback alone", async () => {
    expect((await lab.sh("getent ahostsv4 localhost")).stdout).toMatch(/^127\.0\.0\.1 /);
    await using server = lab.spawn(["/usr/bin/python3", "-m", "http.server", "18123", "--bind", "127.0.0.1"], {
      env: { PYTHONUNBUFFERED: "1" },
    });
    await server.says("Serving");
    expect(await curl("http://127.0.0.1:18123/")).toContain("Directory listing");
  });
});
