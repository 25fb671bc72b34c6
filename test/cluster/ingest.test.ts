// Environment and files of containers that nothing leads to, and ports of their pods' own loopback: a queue's consumer
// with a cache beside it, a Job, a container in which there is no program; without a trace in the cluster where the
// container can be read as it is, and none on the laptop whatever ends it.
import { randomBytes } from "node:crypto";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { imageReference } from "#scripts/image.ts";
import * as cluster from "#testbed/cluster.ts";
import { Lab, apply, field, kubectl, report, rolledOut, toolsImage, until, webApp, type Manifest } from "./lab.ts";
import { watchSecret } from "./secret-files.ts";
import { stage } from "./stage.ts";

const namespace = "it-ingest";
const manager = "it-ingest-manager";
const lab = new Lab({ managerNamespace: manager });
stage([lab], namespace);
const hush = `hush-${randomBytes(8).toString("hex")}`;
const { secretFiles, nothingLeft } = watchSecret(lab, () => hush);

const cachePort = 16_379;
const udpPort = 15_300;
/** A cache on the pod's loopback alone, and an echo of datagrams on all its addresses. */
const beside = `
import os, socket, threading
def udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("0.0.0.0", ${udpPort}))
    while True:
        data, sender = s.recvfrom(2000); s.sendto(b"udp " + data, sender)
threading.Thread(target=udp, daemon=True).start()
def serve(c):
    while True:
        data = c.recv(65536)
        if not data: break
        c.sendall((os.environ["POD_NAME"] + "\\n").encode() if data == b"WHO\\n" else data)
    c.close()
l = socket.create_server(("127.0.0.1", ${cachePort}))
while True: threading.Thread(target=serve, args=(l.accept()[0],), daemon=True).start()
`;
const podName = { name: "POD_NAME", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } };
const secretEnv = { name: "FROM_SECRET", valueFrom: { secretKeyRef: { name: "keys", key: "key" } } };
const volumes = [
  { name: "keys", secret: { secretName: "keys" } },
  { name: "settings", configMap: { name: "settings" } },
  { name: "info", downwardAPI: { items: [{ path: "name", fieldRef: { fieldPath: "metadata.name" } }] } },
];
const volumeMounts = [
  { name: "keys", mountPath: "/etc/keys" },
  { name: "settings", mountPath: "/etc/settings" },
  { name: "info", mountPath: "/etc/info" },
];
const objects: readonly Manifest[] = [
  { apiVersion: "v1", kind: "Secret", metadata: { name: "keys" }, stringData: { key: hush } },
  { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "settings" }, data: { mode: "one" } },
];
const sleeping = { image: toolsImage, command: ["sleep", "1000000"], volumeMounts };
/** Our own image: Node and nothing else. */
const programless = { image: imageReference, command: ["/usr/bin/node", "-e", "setInterval(() => {}, 1e6)"] };

function workload(name: string, containers: readonly Manifest[]): Manifest {
  const labels = { app: name };
  const template = { metadata: { labels }, spec: { terminationGracePeriodSeconds: 1, volumes, containers } };
  return {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: { name },
    spec: { replicas: 1, selector: { matchLabels: labels }, template },
  };
}

beforeAll(async () => {
  const queue = { name: "queue", ...sleeping, env: [podName, secretEnv] };
  const cache = { name: "cache", image: toolsImage, command: ["python3", "-u", "-c", beside], env: [podName] };
  const bare = { name: "bare", ...programless, volumeMounts, env: [podName, secretEnv] };
  const once = { name: "once", ...sleeping, env: [secretEnv] };
  const job = {
    apiVersion: "batch/v1",
    kind: "Job",
    metadata: { name: "once" },
    spec: { template: { spec: { restartPolicy: "Never", volumes, containers: [once] } } },
  };
  await apply(namespace, ...objects, workload("queue", [queue, cache]), workload("bare", [bare]), job);
  await apply(namespace, ...webApp({ name: "front" }));
  await rolledOut(namespace, "deployment/queue", "deployment/bare", "deployment/front");
  await kubectl("wait", "-n", namespace, "pod", "-l", "job-name=once", "--for=condition=Ready", "--timeout=60s");
});
afterEach(async () => await lab.quit());

const ingest = (...words: readonly string[]): readonly string[] => ["ingest", ...words, "-n", namespace];
const read = async (path: string): Promise<string> => (await lab.sh(`cat '${path}'`)).stdout;
const podOf = (name: string): Promise<string> =>
  kubectl("get", "pods", "-n", namespace, "-l", `app=${name}`, "-o", "jsonpath={.items[0].metadata.name}");
const ephemeralOf = (name: string): Promise<string> =>
  field(namespace, `pod/${name}`, ".spec.ephemeralContainers[*].name");
/** What answers on the laptop's loopback. */
const ask = async (port: number, text: string): Promise<string> =>
  (await lab.sh(`printf '${text}' | python3 -c '${client}' ${port}`)).stdout;
const client = `
import socket, sys
c = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5); c.settimeout(5)
c.sendall(sys.stdin.buffer.read())
try: print(c.recv(1000).decode(), end="")
except OSError as e: print(type(e).__name__)
`;

interface Given {
  readonly container: string;
  readonly pod_name: string;
  readonly environment: Record<string, string>;
  readonly mount: { readonly local_dir: string; readonly mounts: readonly string[] };
}

describe("a queue's consumer, which no service leads to", () => {
  test("gives its environment and files, kept in step, and nothing changes in the cluster", async () => {
    const startMs = performance.now();
    const given = await lab.json<Given>(...ingest("queue", "-c", "queue", "--detailed-output"));
    const tookMs = Math.round(performance.now() - startMs);
    expect(given).toMatchObject({
      workload_name: "queue",
      workload_kind: "Deployment",
      container: "queue",
      environment: { FROM_SECRET: hush, POD_NAME: given.pod_name, TELEPRESENCE_CONTAINER: "queue" },
    });
    const root = given.mount.local_dir;
    expect(await read(`${root}/etc/keys/key`)).toBe(hush);
    expect((await lab.sh(`stat -Lc %a '${root}/etc/keys/key'`)).stdout).toBe("600\n");
    await kubectl("patch", "configmap", "settings", "-n", namespace, "-p", '{"data":{"mode":"two"}}');
    await until("the change on the laptop", async () => (await read(`${root}/etc/settings/mode`)) === "two");
    expect(await field(namespace, "deployment/queue", ".metadata.generation")).toBe("1");
    expect(await ephemeralOf(given.pod_name)).toBe("");
    expect(await lab.ok("list", "--ingests", "-n", namespace)).toMatch(/^queue: ingested\n +Container name +: queue\n/);
    report("queue: ingest with a connection, ms; ephemeral containers, rollouts", [tookMs, 0, 0]);
    const before = await secretFiles();
    await lab.ok("leave", "queue");
    await nothingLeft(before);
  });

  test("has two containers, which are ingested at once and left one by one", async () => {
    await lab.ok(...ingest("queue"));
    await lab.ok(...ingest("queue", "--container", "cache"));
    const twice = await lab.cli(ingest("queue", "--container", "cache"));
    expect({ code: twice.code, stderr: twice.stderr }).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("container cache of Deployment queue is ingested already") as string,
    });
    const containers = async (): Promise<readonly string[]> =>
      (await lab.json<{ user_daemon: { ingests?: { container: string }[] } }>("status")).user_daemon.ingests?.map(
        ({ container }) => container,
      ) ?? [];
    expect(await containers()).toEqual(["queue", "cache"]);
    await lab.ok("leave", "queue", "--container", "queue");
    expect(await containers()).toEqual(["cache"]);
    await lab.ok("leave", "queue");
    expect(await containers()).toEqual([]);
  });
});

describe("other containers", () => {
  test("a Job's that runs", async () => {
    const { environment, mount } = await lab.json<Given>(...ingest("job/once", "--detailed-output"));
    expect(environment["FROM_SECRET"]).toBe(hush);
    expect(await read(`${mount.local_dir}/etc/keys/key`)).toBe(hush);
  });
  test("one without programs gets an agent without ports to be read with", async () => {
    const pod = await podOf("bare");
    const startMs = performance.now();
    const given = await lab.json<Given>(...ingest("bare", "--detailed-output"));
    const tookMs = Math.round(performance.now() - startMs);
    expect(given.environment).toMatchObject({ FROM_SECRET: hush, POD_NAME: pod });
    expect(await read(`${given.mount.local_dir}/etc/keys/key`)).toBe(hush);
    expect(await ephemeralOf(pod)).toBe("traffic-agent-1");
    const context = ".spec.ephemeralContainers[0].securityContext.runAsNonRoot";
    expect(await field(namespace, `pod/${pod}`, context)).toBe("true");
    expect(await field(namespace, `pod/${pod}`, ".status.containerStatuses[0].restartCount")).toBe("0");
    report("bare: ingest with an agent, ms", tookMs);
  });
});

describe("--to-pod", () => {
  const toPod = ["--to-pod", String(cachePort)];
  const listeners = async (): Promise<string> => (await lab.rootSh(`ss -Hlntu 'sport = :${cachePort}'`)).trim();

  test("brings the cache beside the application, on 127.0.0.1 alone, and follows the pod", async () => {
    const { mount } = await lab.json<Given>(...ingest("queue", "-c", "queue", ...toPod));
    const [first, startMs] = [await podOf("queue"), performance.now()];
    expect(await ask(cachePort, "WHO\\n")).toBe(`${first}\n`);
    const tookMs = Math.round(performance.now() - startMs);
    expect(await listeners()).toMatch(new RegExp(`^tcp\\s.*\\s127\\.0\\.0\\.1:${cachePort}\\s`));
    expect((await listeners()).split("\n")).toHaveLength(1);
    const many = await lab.sh(
      `for i in $(seq 20); do (printf 'WHO\\n' | python3 -c '${client}' ${cachePort}) & done; wait`,
    );
    expect(many.stdout).toBe(`${first}\n`.repeat(20));
    await kubectl("delete", "pod", "-n", namespace, first, "--wait=false");
    await rolledOut(namespace, "deployment/queue");
    const deletedMs = performance.now();
    const next = await until("the next pod's answer", async () => {
      const who = (await ask(cachePort, "WHO\\n")).trim();
      return who.startsWith("queue-") && who !== first && who;
    });
    report("to-pod: first answer, ms; after the pod was replaced, ms", [
      tookMs,
      Math.round(performance.now() - deletedMs),
    ]);
    const named = await kubectl("get", "pods", "-n", namespace, "-l", "app=queue", "-o", "name");
    expect(named.split("\n")).toContain(`pod/${next}`);
    await until("the next pod's files", async () => (await read(`${mount.local_dir}/etc/info/name`)) === next);
    await lab.ok("leave", "queue");
    expect(await listeners()).toBe("");
  });

  test("carries bytes both ways, and datagrams through the traffic-manager, which is said", async () => {
    const { code, stderr } = await lab.cli(ingest("queue", "-c", "queue", ...toPod, "--to-pod", `${udpPort}/udp`));
    expect({ code, stderr }).toMatchObject({
      code: 0,
      stderr: expect.stringContaining(`UDP port ${udpPort} is reached at the pod's own address`) as string,
    });
    const echo = `
import hashlib, os, socket, threading
c = socket.create_connection(("127.0.0.1", ${cachePort})); sent = os.urandom(20_000_000)
t = threading.Thread(target=lambda: c.sendall(sent)); t.start()
got = b""
while len(got) < len(sent): got += c.recv(1 << 20)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(5)
u.sendto(b"hello", ("127.0.0.1", ${udpPort}))
print(got == sent, u.recvfrom(100)[0].decode())`;
    const startMs = performance.now();
    expect((await lab.sh(`python3 -c '${echo}'`)).stdout).toBe("True udp hello\n");
    report("to-pod: 20 MB there and back, ms", Math.round(performance.now() - startMs));
  });

  test("is refused for a port that is in use, before anything is touched", async () => {
    await using taken = lab.spawn(["python3", "-m", "http.server", String(cachePort), "--bind", "127.0.0.1"]);
    await until("the port to be taken", async () => (await listeners()) !== "");
    const { code, stderr } = await lab.cli(["intercept", "front", "--port", "18950", "-n", namespace, ...toPod]);
    expect({ code, stderr }).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(`127.0.0.1:${cachePort}/TCP is in use by another program`) as string,
    });
    expect(await ephemeralOf(await podOf("front"))).toBe("");
    expect(await field(namespace, "deployment/front", ".metadata.generation")).toBe("1");
    taken.kill();
  });

  for (const victim of ["cli", "daemon"] as const) {
    test(`and the files are gone after kill -9 of the ${victim}`, async () => {
      const waiting = ["sh", "-c", 'cat "$TELEPRESENCE_ROOT/etc/keys/key"; exec sleep 1000'];
      await using started = lab.start([...ingest("queue", "-c", "queue", ...toPod), "--", ...waiting]);
      await started.says(hush);
      expect(await listeners()).not.toBe("");
      const before = await secretFiles();
      for (const pid of lab.pids(victim)) process.kill(pid, "SIGKILL");
      await started.ends();
      await nothingLeft(before);
      await until("no listener", async () => (await listeners()) === "", { limitMs: 10_000 });
    });
  }
});

describe("a user without pods/exec", () => {
  const small = new Lab({ managerNamespace: manager, clusterUser: "small" });
  test("is told the verb", async () => {
    await lab.ok("connect", "-n", namespace);
    await lab.quit();
    await cluster.grantSmall(namespace);
    await cluster.grantSmall(manager);
    const { stderr } = await small.cli(ingest("queue", "-c", "queue", "--env-file", "/tmp/it-ingest.env"));
    report("small, what is said", stderr);
    expect(stderr).toMatch(/user "small" may not \w+ pods\/exec in namespace it-ingest/);
    await small.sh("rm -f /tmp/it-ingest.env");
    await small.quit();
  });
});

describe("intercept --local-only", () => {
  const found = async (): Promise<string> => (await lab.sh("curl -sS --max-time 5 http://front/ 2>&1")).stdout;
  test("has the short names of a namespace resolve until it is left", async () => {
    await lab.ok("connect", "-n", "default");
    expect(await found()).toContain("Could not resolve host");
    const localOnly = `telepresence intercept here --local-only -n ${namespace}`;
    const { stdout, stderr, code } = await lab.sh(localOnly);
    report("local-only", `${stdout}${stderr}`);
    expect(code).toBe(0);
    await until("the name to resolve", async () => (await found()).includes("Hello from the cluster"));
    expect(await lab.ok("list", "-n", namespace)).toMatch(/^here: local-only intercept\n/);
    await lab.ok("leave", "here");
    await until("the name to be gone", async () => (await found()).includes("Could not resolve host"));
    const { stdout: during } = await lab.sh(`${localOnly} -- sh -c 'sleep 1; curl -sS http://front/'`);
    expect(during).toContain("Hello from the cluster");
    await until("the name to be gone again", async () => (await found()).includes("Could not resolve host"));
  });
});
