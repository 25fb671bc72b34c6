// Trap 56: a namespaced user, a second manager, a race of two installations. Story of our own: `uninstall` and an
// immediate `connect` met a namespace that was still being removed.
import type { ServerResponse } from "node:http";
import { describe, expect, test } from "vitest";
import type { FakeRequest } from "#kube/api-server.fake.ts";
import { FakeApiServer, sendJson, sendStatus } from "#kube/api-server.fake.ts";
import type { Kube } from "#kube/client.ts";
import type { Pod } from "#kube/objects.ts";
import { ensureManager, removeManager } from "./manager.ts";
import type { ManagerPlace } from "./manager.ts";
import { managerHealthPort } from "#wire/manager-api.ts";
import { buildManager } from "./manifest.ts";
import { managerSelector } from "./marks.ts";

const { signal } = new AbortController();
const image = { image: "telepresence/telepresence:0.1.0" };

/** A cluster of namespaces that may hold a manager. What `allowed` leaves out is forbidden. */
class FakeCluster {
  readonly namespaces = new Map<string, Record<string, string>>();
  readonly managers = new Map<string, object>();
  readonly others: string[] = [];
  nodes: readonly object[] = [];
  allowed: (request: FakeRequest, namespace: string) => boolean = () => true;
  portForward = true;
  terminating = 0;
  ready = true;
  running = false;
  onCreate: () => void = () => undefined;

  handle(request: FakeRequest, response: ServerResponse): void {
    const { path, method } = request;
    const [, namespace = ""] = /\/namespaces\/([^/]+)/.exec(path) ?? [];
    if (path.endsWith("selfsubjectaccessreviews")) sendJson(response, { status: { allowed: this.portForward } });
    else if (!this.allowed(request, namespace)) {
      sendStatus(response, 403, "Forbidden", `User "alice" cannot ${method} in ${namespace}`);
    } else if (/\/namespaces(\/[^/]+)?$/.test(path)) this.#namespace(request, namespace, response);
    else if (path.includes("/deployments")) this.#deployment(request, namespace, response);
    else if (path.endsWith("/pods")) this.#pods(request, namespace, response);
    else if (path.endsWith("/nodes")) this.#list(request, this.nodes, response);
    else
      this.#list(
        request,
        path.endsWith("/services") ? this.others.map((name) => ({ metadata: { name } })) : [],
        response,
      );
  }

  #namespace({ method, body }: FakeRequest, name: string, response: ServerResponse): void {
    if (method === "POST") {
      const { metadata } = JSON.parse(body) as { metadata: { name: string; labels: Record<string, string> } };
      this.namespaces.set(metadata.name, metadata.labels);
      sendJson(response, { metadata }, 201);
    } else if (!this.namespaces.has(name)) sendStatus(response, 404, "NotFound", "no such namespace");
    else {
      if (method === "DELETE") this.namespaces.delete(name);
      sendJson(response, { metadata: { name, uid: name, labels: this.namespaces.get(name) ?? {} } });
    }
  }
  #deployment(request: FakeRequest, namespace: string, response: ServerResponse): void {
    const found = this.managers.get(namespace);
    if (request.method === "POST") this.#create(namespace, JSON.parse(request.body) as object, response);
    else if (request.path.endsWith("/deployments")) this.#list(request, found === undefined ? [] : [found], response);
    else if (found === undefined) sendStatus(response, 404, "NotFound", "none");
    else {
      if (request.method === "DELETE") this.managers.delete(namespace);
      sendJson(response, found);
    }
  }
  #create(namespace: string, object: object, response: ServerResponse): void {
    this.onCreate();
    if (this.terminating-- > 0) {
      sendStatus(
        response,
        403,
        "Forbidden",
        `unable to create new content in namespace ${namespace} because it is being terminated`,
      );
    } else if (!this.namespaces.has(namespace))
      sendStatus(response, 404, "NotFound", `namespaces "${namespace}" not found`);
    else if (this.managers.has(namespace)) sendStatus(response, 409, "AlreadyExists", "exists");
    else {
      this.managers.set(namespace, object);
      sendJson(response, object, 201);
    }
  }
  #pods(request: FakeRequest, namespace: string, response: ServerResponse): void {
    const pod: Pod = {
      metadata: { name: `manager-in-${namespace}`, uid: "u", labels: managerSelector },
      spec: { containers: [], nodeName: "node7" },
      status: {
        conditions: [{ type: "Ready", status: this.ready ? "True" : "False" }],
        ...(this.running
          ? { containerStatuses: [{ name: "manager", ready: this.ready, restartCount: 0, state: { running: {} } }] }
          : {}),
      },
    };
    this.#list(request, this.managers.has(namespace) ? [pod] : [], response);
  }
  #list({ query }: FakeRequest, items: readonly object[], response: ServerResponse): void {
    if (query.get("watch") === null) sendJson(response, { metadata: { resourceVersion: "1" }, items });
    else response.writeHead(200).flushHeaders();
  }
}

async function withCluster<T>(
  run: (cluster: FakeCluster, kube: Kube, server: FakeApiServer) => Promise<T>,
): Promise<T> {
  await using server = await new FakeApiServer().listen();
  const cluster = new FakeCluster();
  cluster.namespaces.set("own", {});
  server.answer = (request, response) => cluster.handle(request, response);
  return await run(cluster, server.open({ namespace: "own" }), server);
}

const ensure = (kube: Kube, more: object = {}): Promise<ManagerPlace> =>
  ensureManager(kube, { image, onProgress: () => undefined, signal, ...more });

describe("ensureManager()", () => {
  test("installs into namespace telepresence, making it, and finds it again", () =>
    withCluster(async (cluster, kube) => {
      expect(await ensure(kube)).toMatchObject({
        namespace: "telepresence",
        podName: "manager-in-telepresence",
        installed: true,
        warnings: [],
      });
      expect(cluster.namespaces.get("telepresence")).toMatchObject({ "telepresence.io/created-namespace": "true" });
      expect(await ensure(kube)).toMatchObject({ namespace: "telepresence", installed: false, warnings: [] });
    }));
  // Kubelet asks once a second, and first when Node is not up yet: a first `connect` took most of a second longer.
  test("takes the manager's own word for it while kubelet does not know yet", () =>
    withCluster(async (cluster, kube, server) => {
      cluster.ready = false; // nor that it runs
      const asked: string[] = [];
      server.onUpgrade = (socket, request) => {
        const port = Buffer.from([managerHealthPort & 255, managerHealthPort >> 8]);
        for (const channel of [0, 1]) socket.send(Buffer.concat([Buffer.from([channel]), port]));
        asked.push(request.url ?? "");
        if (asked.length === 1) {
          socket.send(Buffer.from("\u0001connection refused"));
          return;
        }
        socket.on("message", (data: Buffer) => {
          const answer = asked.length === 2 ? "503 Service Unavailable" : "200 OK";
          if (data.toString().startsWith("\0GET /readyz ")) socket.send(Buffer.from(`\0HTTP/1.1 ${answer}\r\n\r\n`));
        });
      };
      expect(await ensure(kube)).toMatchObject({ podName: "manager-in-telepresence", podUid: "u" });
      expect(asked).toEqual(
        Array(3).fill("/api/v1/namespaces/telepresence/pods/manager-in-telepresence/portforward?ports=8080"),
      );
    }));
  test("leaves it to kubelet after some questions", () =>
    withCluster(async (cluster, kube, server) => {
      [cluster.ready, cluster.running] = [false, true];
      let asked = 0;
      server.onUpgrade = (socket) => {
        asked += 1;
        socket.close();
      };
      await expect(ensure(kube, { timeoutMs: 4000 })).rejects.toThrow("waiting for the traffic-manager");
      expect(asked).toBe(20);
    }));
  // The manager has no permission to look nodes up, and knew its own only: kubelets of the others could be dialled.
  test("tells the manager the nodes' addresses, where they may be listed", () =>
    withCluster(async (cluster, kube) => {
      const addresses = [
        { type: "InternalIP", address: "10.0.0.7" },
        { type: "Hostname", address: "node7" },
        { type: "InternalIP", address: "fd00::7" },
      ];
      cluster.nodes = [{ metadata: { name: "node7" }, status: { addresses } }];
      await ensure(kube);
      expect(JSON.stringify(cluster.managers.get("telepresence"))).toContain(
        '{"name":"TELEPRESENCE_OTHER_NODE_IPS","value":"10.0.0.7,fd00::7"}',
      );
    }));
  test("installs into the connection's own namespace where the user may not make the first, and says so", () =>
    withCluster(async (cluster, kube) => {
      cluster.allowed = (_request, namespace) => namespace === "own";
      expect(await ensure(kube)).toMatchObject({
        namespace: "own",
        installed: true,
        warnings: [
          'the traffic-manager was installed in namespace own, because user "alice" may not create deployments.apps in namespace telepresence',
        ],
      });
    }));
  test("tries only the namespace that was named", () =>
    withCluster(async (cluster, kube) => {
      cluster.allowed = (_request, namespace) => namespace === "own";
      await expect(ensure(kube, { namespace: "tools" })).rejects.toMatchObject({
        code: "forbidden",
        message: expect.stringContaining("namespace tools has a traffic-manager cannot be seen") as string,
      });
    }));
  test("calls a manager missing only where it would be seen", () =>
    withCluster(async (cluster, kube) => {
      cluster.namespaces.set("telepresence", {});
      cluster.allowed = ({ method }) => method !== "POST";
      await expect(ensure(kube)).rejects.toMatchObject({
        message: expect.stringContaining("the traffic-manager is missing and cannot be installed") as string,
        hint: expect.stringContaining("auth can-i create deployments.apps -n telepresence") as string,
      });
      cluster.allowed = () => false; // there may be one: no word of "missing"
      await expect(ensure(kube)).rejects.toMatchObject({
        code: "forbidden",
        message:
          'whether namespace telepresence has a traffic-manager cannot be seen by this user, and none can be installed: user "alice" may not create deployments.apps in namespace telepresence',
        hint: expect.stringMatching(
          /`list` on pods and deployments.*pods\/portforward, in namespace telepresence/,
        ) as string,
      });
    }));
  test("uses a manager that the user may see and not change", () =>
    withCluster(async (cluster, kube) => {
      cluster.namespaces.set("telepresence", {});
      cluster.managers.set("telepresence", {});
      cluster.allowed = ({ path }, namespace) => namespace === "telepresence" && path.endsWith("/pods");
      expect(await ensure(kube)).toMatchObject({ namespace: "telepresence", installed: false });
    }));
  test("passes by a manager to which the user may not forward a port", () =>
    withCluster(async (cluster, kube) => {
      cluster.namespaces.set("telepresence", {});
      cluster.managers.set(
        "telepresence",
        buildManager({ namespace: "telepresence", image, version: "0.1.0", env: {} }),
      );
      cluster.managers.set("own", buildManager({ namespace: "own", image, version: "0.1.0", env: {} }));
      cluster.portForward = false;
      expect(await ensure(kube)).toMatchObject({ namespace: "own", installed: false });
    }));
  test("takes the manager of a laptop that was faster", () =>
    withCluster(async (cluster, kube) => {
      cluster.namespaces.set("telepresence", {});
      cluster.onCreate = () =>
        cluster.managers.set(
          "telepresence",
          buildManager({ namespace: "telepresence", image, version: "0.1.0", env: {} }),
        );
      expect((await ensure(kube)).namespace).toBe("telepresence");
    }));
  test("removes again what never came up, but not another laptop's", () =>
    withCluster(async (cluster, kube) => {
      cluster.namespaces.set("telepresence", {});
      cluster.ready = false;
      await expect(ensure(kube, { timeoutMs: 50 })).rejects.toMatchObject({ code: "timeout" });
      expect(cluster.managers.size).toBe(0);
      const theirs = buildManager({ namespace: "telepresence", image, version: "0.1.0", env: {} });
      cluster.onCreate = () => cluster.managers.set("telepresence", theirs);
      await expect(ensure(kube, { timeoutMs: 50 })).rejects.toMatchObject({ code: "timeout" });
      expect(cluster.managers.size).toBe(1);
    }));
  test("waits for a namespace that is still being removed", () =>
    withCluster(async (cluster, kube) => {
      cluster.terminating = 1;
      const said: string[] = [];
      expect((await ensure(kube, { onProgress: (text: string) => said.push(text) })).installed).toBe(true);
      expect(said).toContain("namespace telepresence is still being removed");
    }));
  test("warns of another version and leaves it", () =>
    withCluster(async (cluster, kube) => {
      cluster.namespaces.set("telepresence", {});
      cluster.managers.set(
        "telepresence",
        buildManager({ namespace: "telepresence", image, version: "9.9.9", env: {} }),
      );
      const { warnings } = await ensure(kube);
      expect(warnings).toHaveLength(1);
      expect(warnings[0]).toContain("has version 9.9.9");
    }));
  test("refuses a stranger of the same name", () =>
    withCluster(async (cluster, kube) => {
      cluster.namespaces.set("telepresence", {});
      cluster.managers.set("telepresence", {
        metadata: { name: "traffic-manager", labels: { app: "traffic-manager" } },
      });
      await expect(ensure(kube)).rejects.toThrow("is not this product's");
      expect((await removeManager(kube, { signal })).namespaces).toEqual([]);
      expect(cluster.managers.size).toBe(1);
    }));
});

describe("removeManager()", () => {
  test("takes the namespace only when we made it and nobody else uses it", () =>
    withCluster(async (cluster, kube) => {
      await ensure(kube);
      cluster.others.push("someone");
      expect(await removeManager(kube, { signal })).toEqual({
        namespaces: ["telepresence"],
        notes: ["namespace telepresence was left: it holds service someone, which is not ours"],
      });
      cluster.others.pop();
      expect(await removeManager(kube, { signal })).toEqual({ namespaces: [], notes: [] });
      expect([...cluster.namespaces.keys()]).toEqual(["own"]);
    }));
  // Traps 45, 46: a webhook that refused pods, or let them by uninjected. There is none, and nothing else of the cluster's.
  test("installation and removal touch a namespace and what is in it, no webhook and no right", async () => {
    const touched = new Set<string>();
    await using server = await new FakeApiServer().listen();
    const cluster = new FakeCluster();
    server.answer = (request, response) => {
      const { method, path } = request;
      if (method !== "GET" && !path.startsWith("/apis/authorization.k8s.io/")) touched.add(path);
      cluster.handle(request, response);
    };
    const kube = server.open({ namespace: "own" });
    await ensure(kube);
    await removeManager(kube, { signal });
    const within = "/namespaces/telepresence";
    expect([...touched].filter((path) => path !== "/api/v1/namespaces" && !path.includes(within))).toEqual([]);
    expect([...touched].filter((path) => /webhook|role|serviceaccount|secret/i.test(path))).toEqual([]);
    expect(touched).toContain(`/apis/apps/v1${within}/deployments`);
  });
  test("leaves a namespace that existed before", () =>
    withCluster(async (cluster, kube) => {
      cluster.namespaces.set("telepresence", {});
      await ensure(kube);
      expect((await removeManager(kube, { signal })).namespaces).toEqual(["telepresence"]);
      expect(cluster.namespaces.has("telepresence")).toBe(true);
    }));
});

describe("buildManager()", () => {
  const spec = buildManager({
    namespace: "n",
    image,
    version: "1.0.0+dev",
    env: { TELEPRESENCE_ALLOW_NODES: "true" },
  }).spec;
  test("fits pod security level restricted and holds no token", () => {
    expect(spec).toMatchObject({
      replicas: 1,
      strategy: { type: "Recreate" },
      template: {
        metadata: { labels: { "app.kubernetes.io/version": "1.0.0_dev" } },
        spec: {
          automountServiceAccountToken: false,
          securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
          containers: [
            {
              args: ["traffic-manager"],
              securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } },
            },
          ],
        },
      },
    });
    expect(JSON.stringify(spec)).not.toContain("serviceAccountName");
    expect(JSON.stringify(spec)).not.toContain("runAsUser"); // the cluster's choice, or the image's
  });
});
