// The test cluster itself: what every other test of this tier takes for granted. Order matters little; each test puts
// back what it changed.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import * as cluster from "#testbed/cluster.ts";
import { run } from "#testbed/exec.ts";
import {
  checkoutRoot,
  clusterDnsAddress,
  homeDir,
  laptopAddresses,
  ordinaryUser,
  publicWebAddress,
} from "#testbed/layout.ts";
import { report } from "./lab.ts";

beforeAll(async () => await cluster.up());
afterAll(async () => {
  await cluster.restoreWire(1);
  await cluster.readdress(laptopAddresses(1).address, 1);
});

const quick = ["curl", "-sS", "--max-time", "2"];

async function podAddress(app: string): Promise<string> {
  const { stdout } = await cluster.kubectl([
    "get",
    "pods",
    "-l",
    `app=${app}`,
    "-o",
    "jsonpath={.items[0].status.podIP}",
  ]);
  return stdout;
}

describe("a laptop", () => {
  test("reaches the API server, as its ordinary user and as root", async () => {
    for (const user of [ordinaryUser.name, "root"] as const) {
      const { stdout } = await cluster.onLaptop(["kubectl", "get", "nodes", "-o", "name"], { user });
      expect(stdout).toBe("node/node1\n");
    }
  });
  test("works with an environment that holds PATH and HOME only", async () => {
    const env = { HOME: homeDir(ordinaryUser.name, 1) };
    const { stdout } = await cluster.onLaptop(
      ["kubectl", "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"],
      {
        environment: "bare",
        env,
      },
    );
    expect(stdout).toBe("admin");
  });
  test("resolves public names over UDP and TCP, and no name of the cluster", async () => {
    const { stdout } = await cluster.onLaptop(["getent", "hosts", "example.com"]);
    expect(stdout).toContain(publicWebAddress);
    const tcp = await cluster.onLaptop(["env", "RES_OPTIONS=use-vc", "getent", "hosts", "example.com"]);
    expect(tcp.stdout).toContain(publicWebAddress);
    const name = "hello.default.svc.cluster.local";
    expect((await cluster.onLaptop(["getent", "hosts", name], { allowFailure: true })).code).toBe(2);
    expect((await cluster.onLaptop([...quick, "http://example.com/"])).stdout).toContain("seen from 192.168.77.2");
  });
  test("reaches neither pods nor services nor the node's other ports", async () => {
    const pod = await podAddress("hello");
    for (const target of [`${pod}:8000`, `${clusterDnsAddress}:53`, "172.31.77.10:10250", "172.31.77.10:2379"]) {
      const { code } = await cluster.onLaptop([...quick, `http://${target}/`], { allowFailure: true });
      expect({ target, reached: ![7, 28].includes(code) }).toEqual({ target, reached: false });
    }
  });
  test("has an ordinary user who may do nothing else as root", async () => {
    const { code, stderr } = await cluster.onLaptop(["sudo", "-n", "id"], { allowFailure: true });
    expect(code).toBe(1);
    expect(stderr).toBe("sudo: a password is required\n");
    const { stdout } = await cluster.onLaptop(["sudo", "-n", "-l"]);
    expect(stdout).toMatch(/NOPASSWD: \S+dist\/bin\/telepresence helper,/);
  });
  test("gets the signal that its caller is sent, and gives back its exit code", async () => {
    const spec = cluster.laptop(["sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"]);
    const child = spawn(spec.file, [...spec.args], { stdio: ["ignore", "pipe", "inherit"] });
    await once(child.stdout, "data");
    child.kill("SIGTERM");
    expect(await once(child, "exit")).toEqual([7, null]);
  });
  test("has a twin with another address and another home", async () => {
    const { stdout } = await cluster.onLaptop(["sh", "-c", "ip -4 -o addr show eth0; echo $HOME"], { laptop: 2 });
    expect(stdout).toContain(laptopAddresses(2).address);
    expect(stdout).toContain("/laptop/2/home/dev");
    expect((await cluster.onLaptop(["kubectl", "get", "ns", "solo"], { laptop: 2 })).code).toBe(0);
  });
});

describe("the wire", () => {
  const ask = [...quick, "http://example.com/"];
  test("can be cut and restored", async () => {
    await cluster.cutWire();
    expect((await cluster.onLaptop(ask, { allowFailure: true })).code).not.toBe(0);
    await cluster.restoreWire();
    expect((await cluster.onLaptop([...ask, "--retry", "5", "--retry-all-errors"])).code).toBe(0);
  });
  test("can become a black hole, in which nothing is refused", async () => {
    await cluster.blackHole();
    await cluster.blackHole(); // twice is harmless
    const { code } = await cluster.onLaptop([...quick, `http://${publicWebAddress}/`], { allowFailure: true });
    expect(code).toBe(28); // curl: timed out
    await cluster.restoreWire();
    expect((await cluster.onLaptop(ask)).code).toBe(0);
  });
  test("can get another address", async () => {
    await cluster.readdress("192.168.77.99");
    expect((await cluster.onLaptop(ask)).stdout).toContain("seen from 192.168.77.99");
    await cluster.readdress(laptopAddresses(1).address);
  });
});

describe("users", () => {
  const can = async (user: cluster.ClusterUser, kind: cluster.CredentialKind, ...question: readonly string[]) => {
    const argv = ["kubectl", "--kubeconfig", cluster.kubeconfigFor(user, kind), "auth", "can-i", ...question];
    return (await cluster.onLaptop(argv, { allowFailure: true })).stdout.trim();
  };
  test("solo may do everything in one namespace, by every kind of credential", async () => {
    for (const kind of ["certificate", "token", "exec"] as const) {
      expect(await can("solo", kind, "create", "deployments")).toBe("yes");
      expect(await can("solo", kind, "list", "pods", "-n", "default")).toBe("no");
    }
  });
  test("small may look and forward ports, and no more", async () => {
    expect(await can("small", "certificate", "get", "pods", "--subresource=portforward")).toBe("yes");
    expect(await can("small", "certificate", "create", "pods", "--subresource=portforward")).toBe("no");
    for (const denied of ["secrets", "configmaps"]) expect(await can("small", "certificate", "get", denied)).toBe("no");
    expect(await can("small", "certificate", "create", "pods", "--subresource=exec")).toBe("no");
    expect(await can("small", "certificate", "patch", "deployments")).toBe("no");
  });
  test("a restricted namespace refuses a pod that asks for more than it may", async () => {
    const image = ["--image=docker.io/testbed/tools:1", "--dry-run=server", "--restart=Never"];
    const { code, stderr } = await cluster.kubectl(["run", "x", "-n", "restricted", ...image], { allowFailure: true });
    expect(code).toBe(1);
    expect(stderr).toContain('violates PodSecurity "restricted');
  });
});

describe("the cluster", () => {
  test("answers its names to pods, and public ones too", async () => {
    const inPod = async (...argv: readonly string[]) =>
      (await cluster.kubectl(["exec", "deploy/visitor", "--", ...argv])).stdout;
    expect(await inPod("curl", "-s", "http://hello.default/")).toContain("Hello from the cluster");
    expect(await inPod("curl", "-s", "http://example.com/")).toContain("This is example.com");
  });
  test("forwards ports to a laptop", async () => {
    const spec = cluster.laptop(["kubectl", "port-forward", "deploy/hello", "18000:8000"]);
    const child = spawn(spec.file, [...spec.args], { stdio: ["ignore", "pipe", "inherit"] });
    await once(child.stdout, "data");
    const { stdout } = await cluster.onLaptop([...quick, "http://127.0.0.1:18000/"]);
    expect(stdout).toContain("Hello from the cluster");
    child.kill();
    await once(child, "exit");
  });
  test("runs the samples in the restricted namespace as they are", async () => {
    await cluster.deploySamples("restricted", ["hello", "echo"]);
    const { stdout } = await cluster.kubectl(["get", "deployments", "-n", "restricted", "-o", "name"]);
    expect(stdout).toBe("deployment.apps/echo\ndeployment.apps/hello\n");
    await cluster.kubectl(["delete", "-n", "restricted", "deployment,service", "hello", "echo", "--wait=false"]);
  });
  test("loses no request when hello is rolled out", async () => {
    const visitor = async (path: string, method = "GET") => {
      const argv = ["exec", "deploy/visitor", "--", "curl", "-s", "-X", method, `http://127.0.0.1:8080${path}`];
      return JSON.parse((await cluster.kubectl(argv)).stdout) as { total: number; failed: number; errors: unknown[] };
    };
    await visitor("/reset", "POST");
    await cluster.kubectl(["rollout", "restart", "deploy/hello"]);
    await cluster.kubectl(["rollout", "status", "deploy/hello", "--timeout=60s"]);
    const old = ["wait", "pod", "-l", "app=hello", "--for=delete", "--field-selector=status.phase!=Running"];
    await cluster.kubectl([...old, "--timeout=20s"], { allowFailure: true });
    const { total, failed, errors } = await visitor("/stats");
    expect(total).toBeGreaterThan(5);
    expect(errors).toEqual([]);
    expect(failed).toBe(0);
  });
  test("can have its API server restarted", async () => {
    await cluster.restartApiServer();
    expect((await cluster.onLaptop(["kubectl", "get", "--raw=/readyz"])).stdout).toBe("ok");
  });
  test("leaves nothing behind when up is killed, and comes up afterwards: one beside it", async () => {
    const env = { ...process.env, TELEPRESENCE_TESTBED: "killed" };
    const ofAnother = (...args: readonly string[]): ReturnType<typeof run> =>
      run(process.execPath, [join(checkoutRoot, "testbed/cluster.ts"), ...args], {
        env,
        allowFailure: true,
        timeoutMs: 240_000,
      });
    try {
      const { code, stdout, stderr } = await ofAnother("kill-check", "2");
      report("kill-check", stdout.trim());
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      expect(stdout.match(/then down: as before/g)).toHaveLength(2);
      expect(stdout).toContain("killed once more, then up: the cluster answers");
    } finally {
      await ofAnother("down");
    }
  }, 300_000);
  test("is left as it is by a second up", async () => {
    const uid = async () =>
      (await cluster.kubectl(["get", "ns", "kube-system", "-o", "jsonpath={.metadata.uid}"])).stdout;
    const before = await uid();
    await cluster.up();
    expect(await uid()).toBe(before);
  });
});
