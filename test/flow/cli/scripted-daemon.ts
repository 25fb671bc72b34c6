// A control server as the CLI sees it: the real JSON-RPC on a real Unix socket, with answers that a test scripts.
import { mkdtempSync, rmSync } from "node:fs";
import type { Server, Socket } from "node:net";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { AppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import { softwareVersion } from "#base/version.ts";
import type { Handlers } from "#tunnel/rpc.ts";
import { openRpc } from "#tunnel/rpc.ts";
import type { DaemonStatus, ListedWorkload } from "#wire/control-api.ts";
import { controlApi, controlCallerNotifications, controlNotifications } from "#wire/control-api.ts";
import type { IngestInfo } from "#wire/ingest.ts";
import { buildCloud } from "#installer/cloud-manifest.ts";
import type { InterceptInfo } from "#wire/manager-api.ts";

type Api = typeof controlApi;
export type Script = Partial<Handlers<Api>>;

export interface Call {
  readonly method: string;
  readonly params: unknown;
}

export const connection = {
  context: "kind-dev",
  server: "https://127.0.0.1:6443",
  namespace: "default",
  managerNamespace: "telepresence",
  managerVersion: softwareVersion,
  mappedNamespaces: [],
};

/** A short-lived XDG_RUNTIME_DIR with the product's directory in it. */
export function makeHome(): { readonly path: string; readonly env: Record<string, string> } & Disposable {
  const path = mkdtempSync(join(tmpdir(), "tp-cli-"));
  mkdirSync(join(path, "telepresence"), { mode: 0o700 });
  const env = {
    PATH: process.env["PATH"] ?? "/usr/bin:/bin",
    HOME: path,
    XDG_RUNTIME_DIR: path,
    KUBECONFIG: join(path, "kubeconfig"),
  };
  return { path, env, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

/** Where a connection has its sockets. */
export function runtimeFolder(runtime: string, connectionName: string | undefined): string {
  return join(runtime, "telepresence", ...(connectionName === undefined ? [] : ["by-name", connectionName]));
}

export class ScriptedDaemon implements AsyncDisposable {
  readonly calls: Call[] = [];
  readonly helperFailures: string[] = [];
  connected = false;
  helperRunning = true;
  intercepts: InterceptInfo[] = [];
  ingests: IngestInfo[] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #interceptEnded = new Set<(name: string) => void>();
  readonly #script: Script;
  readonly #onQuit: () => void;

  private constructor(server: Server, script: Script, onQuit: () => void) {
    this.#server = server;
    this.#script = script;
    this.#onQuit = onQuit;
  }

  /** `runtime` is XDG_RUNTIME_DIR. */
  static async start(
    runtime: string,
    script: Script = {},
    onQuit = (): void => undefined,
    connectionName?: string,
  ): Promise<ScriptedDaemon> {
    const folder = runtimeFolder(runtime, connectionName);
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const server = createServer();
    const daemon = new ScriptedDaemon(server, script, onQuit);
    server.on("connection", (socket) => daemon.#serve(socket));
    server.listen(join(folder, "daemon.sock"));
    await once(server, "listening");
    return daemon;
  }

  methods(): readonly string[] {
    return this.calls.map(({ method }) => method).filter((method) => method !== "hello");
  }

  /** As `leave` in another terminal. */
  endIntercept(name: string): void {
    this.intercepts = this.intercepts.filter(({ spec }) => spec.name !== name);
    for (const tell of this.#interceptEnded) tell(name);
  }

  paramsOf(method: string): never {
    return this.calls.findLast((call) => call.method === method)?.params as never;
  }

  /** As a daemon that is killed: every connection ends. */
  async kill(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await this[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  status(): DaemonStatus {
    const daemon = {
      version: softwareVersion,
      executable: "/usr/bin/telepresence",
      installId: "install-1",
      pid: 99_999_999,
    };
    if (!this.connected) return { ...daemon, state: "Not connected", intercepts: [] };
    return {
      ...daemon,
      state: "Connected",
      connection,
      roundTrip: { value: 0.741, ageMs: 1200 },
      transport: { name: "port-forward", protocol: "WebSocket" },
      linkChanges: { lost: 2, replaced: 1, renewed: 1 },
      helper: { version: softwareVersion, pid: 99_999_998, device: "tel-1000" },
      dns: {
        hook: "resolved",
        localAddress: "127.0.0.1:40053",
        upstreams: ["192.168.1.1"],
        clusterDomain: "cluster.local",
        suffix: "dev.telepresence",
        suffixOnly: true,
        excludeSuffixes: [".com", ".io"],
        includeSuffixes: [],
        excludes: ["printer"],
        mappings: [{ name: "db", aliasFor: "postgres.data" }],
        lookupTimeoutMs: 4000,
      },
      routing: {
        subnets: ["10.96.0.0/16", "10.244.0.0/24"],
        ageMs: 12_345,
        alsoProxy: [],
        neverProxy: ["172.18.0.2/32"],
      },
      manager: { version: softwareVersion, podName: "traffic-manager-abc", image: "telepresence/telepresence:0.1.0" },
      intercepts: this.intercepts,
      ...(this.ingests.length === 0 ? {} : { ingests: this.ingests }),
    };
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    socket.on("error", () => undefined);
    const rpc = openRpc({
      stream: socket,
      serves: { api: controlApi, handlers: this.#handlers((text) => rpc.notify("progress", { text })) },
      sends: controlNotifications,
      receives: controlCallerNotifications,
      log: silentLogger,
    });
    rpc.onNotification("helper.failed", ({ message }) => this.helperFailures.push(message));
    const tell = (name: string): void => rpc.notify("intercept.ended", { name });
    this.#interceptEnded.add(tell);
    socket.once("close", () => this.#interceptEnded.delete(tell));
  }

  #handlers(progress: (text: string) => void): Handlers<Api> {
    const defaults = this.#defaults();
    const wrapped = Object.keys(controlApi).map((method) => {
      const name = method as keyof Api;
      const handler = (this.#script[name] ?? defaults[name]) as (params: unknown, signal: AbortSignal) => unknown;
      return [
        method,
        (params: unknown, signal: AbortSignal) => {
          this.calls.push({ method, params });
          if (method === "connect") progress("Connecting to the cluster");
          return handler(params, signal);
        },
      ];
    });
    return Object.fromEntries(wrapped) as Handlers<Api>;
  }

  #defaults(): Handlers<Api> {
    return {
      hello: () => ({
        version: softwareVersion,
        pid: 99_999_999,
        executable: "/usr/bin/telepresence",
        installId: "install-1",
        connected: this.connected,
        helperRunning: this.helperRunning,
      }),
      callHelper: () => {
        this.helperRunning = true;
        return {};
      },
      connect: () => {
        const fresh = !this.connected;
        this.connected = true;
        return { fresh, installedManager: false, connection, warnings: [] };
      },
      disconnect: () => {
        const wasConnected = this.connected;
        this.connected = false;
        return { wasConnected };
      },
      status: () => this.status(),
      list: () => ({ workloads: [], warnings: [] }),
      intercept: ({ name, ports }) => {
        const info = interceptInfo(name, { targetPort: Number.parseInt(ports[0] ?? "0", 10) });
        this.intercepts = [...this.intercepts, info];
        return { info, environment: { GREETING: "hello from the pod", PORT: "8080" }, warnings: [] };
      },
      ingest: ({ name, container = "app", volumes }) => {
        const workload = { kind: "Deployment" as const, name, namespace: "default" };
        const root = volumes?.path ?? "/run/copies";
        this.ingests = [...this.ingests, { workload, containerName: container, podName: `${name}-1` }];
        return {
          info: { workload, containerName: container, podName: `${name}-1`, mountPoint: root },
          environment: { GREETING: "hello from the pod" },
          volumes: { root, mounts: ["/etc/app"] },
          warnings: [],
        };
      },
      localOnly: ({ name, namespace = "default" }) => ({ info: { name, namespace } }),
      findIngress: () => ({ cluster: "https://cluster.test/test", found: [] }),
      createPreview: ({ access = "team" }) => ({
        id: "p1",
        url: "https://calm-fox.preview.test/",
        access,
        warnings: [],
      }),
      removePreview: () => ({}),
      loginChanged: () => ({}),
      enter: () => ({ socket: "/nowhere", id: 1 }),
      leaveEntered: () => ({ quits: false }),
      leave: ({ name }) => {
        const left = this.intercepts.filter((info) => info.spec.name !== name);
        const kept = this.ingests.filter(({ workload }) => workload.name !== name);
        if (left.length + kept.length === this.intercepts.length + this.ingests.length) {
          throw new AppError("intercept_not_found", `there is no intercept ${name}`, {
            hint: "`telepresence list --intercepts` shows what there is",
          });
        }
        this.intercepts = left;
        this.ingests = kept;
        return {};
      },
      why: () => ({ workloads: [], warnings: [] }),
      revoke: ({ name }) => ({ info: interceptInfo(name) }),
      cloudInstall: ({ installation, onlyPrint }) => {
        const objects = buildCloud(installation, { image: "registry/telepresence:1" });
        return onlyPrint ? { objects: [...objects], done: [] } : { objects: [], done: objects.map(({ kind }) => kind) };
      },
      cloudUninstall: ({ namespace }) => ({ removed: [`Deployment in ${namespace}`], warnings: [] }),
      inspect: () => ({ url: "http://127.0.0.1:40000/#token" }),
      quit: () => {
        setImmediate(this.#onQuit);
        return { wasConnected: this.connected };
      },
      genyaml: ({ input = [] }) => ({
        objects: input,
        parts: { config: {}, container: { name: "traffic-agent" }, initcontainer: {}, annotations: {}, volume: [] },
        byHand: ["the agent takes the name http: call port 80 of container a tm-http, in its probes too"],
        warnings: [],
      }),
      uninstall: ({ workloads }) => ({
        removed: workloads.map((name) => `Deployment ${name}: traffic-agent removed`),
        warnings: [],
      }),
    };
  }
}

export function interceptInfo(name: string, port: { readonly targetPort?: number } = {}): InterceptInfo {
  return {
    id: `session-1:${name}`,
    spec: {
      name,
      workload: { kind: "Deployment", name, namespace: "default" },
      containerName: "app",
      ports: [
        {
          containerPort: 8080,
          protocol: "tcp",
          serviceName: name,
          serviceUid: "uid-1",
          servicePort: 80,
          servicePortName: "http",
          targetHost: "127.0.0.1",
          targetPort: port.targetPort ?? 8080,
        },
      ],
    },
    client: "alice@thinkpad",
    sessionId: "session-1",
    state: "active",
    message: "",
    pods: [{ name: `${name}-1`, uid: "pod-1", ip: "10.244.0.9" }],
    refusedByLaptop: 0,
    createdAtMs: 1_700_000_000_000,
  };
}

export function workload(name: string, more: Partial<ListedWorkload> = {}): ListedWorkload {
  return { name, namespace: "default", kind: "Deployment", intercepts: [], ...more };
}
