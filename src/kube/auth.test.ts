// Trap 57: credential plugins. The daemon runs them with the command's environment, not with its own.
import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import type { PluginCommand, PluginResult } from "./auth.ts";
import { FakeApiServer, sendJson, sendStatus } from "./api-server.fake.ts";
import { pods } from "./objects.ts";
import { openPortForward } from "#kube/streams/port-forward.ts";
import type { KubeUser } from "./target.ts";

const { signal } = new AbortController();
const pluginUser: KubeUser = {
  name: "plugin",
  certificate: undefined,
  key: undefined,
  token: undefined,
  tokenFile: undefined,
  basic: undefined,
  oidc: undefined,
  exec: {
    apiVersion: "client.authentication.k8s.io/v1",
    command: "get-token",
    args: ["--now"],
    env: { PROFILE: "dev" },
    installHint: "install it from example.com",
    provideClusterInfo: true,
    directory: "/",
    clusterConfig: undefined,
  },
};
const credential = (token: string, expirationTimestamp?: string): PluginResult => ({
  exitCode: 0,
  stderr: "",
  stdout: JSON.stringify({ kind: "ExecCredential", status: { token, expirationTimestamp } }),
});

describe("credential plugins", () => {
  test("run once for many requests, with the command's environment and the cluster's facts", async () => {
    await using server = await new FakeApiServer().listen();
    server.answer = (_request, response) => sendJson(response, {});
    const runs: PluginCommand[] = [];
    const kube = server.open(
      { user: pluginUser, env: { PATH: "/bin", HOME: "/home/alice" }, cwd: "/src" },
      {
        runCommand: (command) => {
          runs.push(command);
          return Promise.resolve(credential("fresh"));
        },
      },
    );
    await Promise.all([1, 2, 3].map(() => kube.get(pods, { name: "x" }, signal)));
    expect(runs).toHaveLength(1);
    expect(runs[0]).toMatchObject({
      file: "get-token",
      args: ["--now"],
      cwd: "/src",
      env: { PATH: "/bin", HOME: "/home/alice", PROFILE: "dev" },
    });
    expect(JSON.parse(runs[0]?.env["KUBERNETES_EXEC_INFO"] ?? "")).toMatchObject({
      kind: "ExecCredential",
      spec: { interactive: false, cluster: { server: `http://127.0.0.1:${server.port}` } },
    });
    expect(server.requests.map((request) => request.headers.authorization)).toEqual(Array(3).fill("Bearer fresh"));
  });
  test("run again when the server refuses the token, and only once", async () => {
    await using server = await new FakeApiServer().listen();
    server.answer = ({ headers }, response) => {
      if (headers.authorization === "Bearer 2") sendJson(response, {});
      else sendStatus(response, 401, "Unauthorized", "Unauthorized");
    };
    let runs = 0;
    const kube = server.open({ user: pluginUser }, { runCommand: () => Promise.resolve(credential(String(++runs))) });
    await kube.get(pods, { name: "x" }, signal);
    expect(runs).toBe(2);
  });
  test("run again before the credential expires", async () => {
    await using server = await new FakeApiServer().listen();
    server.answer = (_request, response) => sendJson(response, {});
    let runs = 0;
    const kube = server.open(
      { user: pluginUser },
      { runCommand: () => Promise.resolve(credential(String(++runs), new Date(Date.now() + 5000).toISOString())) },
    );
    await kube.get(pods, { name: "x" }, signal);
    await kube.get(pods, { name: "x" }, signal);
    expect(runs).toBe(2);
  });
  test("serve port-forwards of a long session: each new one has a token that holds", async () => {
    await using server = await new FakeApiServer().listen();
    const tokens: (string | undefined)[] = [];
    server.onUpgrade = (_socket, { headers }) => tokens.push(headers.authorization);
    const clock = new FakeClock();
    let runs = 0;
    const runCommand = (): Promise<PluginResult> =>
      Promise.resolve(credential(String(++runs), new Date(clock.wallMs() + 15 * 60_000).toISOString()));
    const kube = server.open({ user: pluginUser }, { clock, runCommand });
    const forward = async (): Promise<void> => {
      const stream = await openPortForward(kube, { namespace: "n", pod: "p", port: 1, signal });
      stream.on("error", () => undefined).destroy();
    };
    await forward();
    await clock.advance(14 * 60_000);
    await forward();
    await clock.advance(55_000); // 5 s are left: it could end on the way
    await forward();
    expect(tokens).toEqual(["Bearer 1", "Bearer 1", "Bearer 2"]);
  });
  test("run again when the server refuses a port-forward, as after a change of its keys", async () => {
    await using server = await new FakeApiServer().listen();
    let valid = "Bearer 1";
    server.refuseUpgrade = ({ headers }) =>
      headers.authorization === valid ? undefined : { code: 401, message: "Unauthorized" };
    let runs = 0;
    const kube = server.open({ user: pluginUser }, { runCommand: () => Promise.resolve(credential(String(++runs))) });
    const forward = async (): Promise<void> => {
      const stream = await openPortForward(kube, { namespace: "n", pod: "p", port: 1, signal });
      stream.on("error", () => undefined).destroy();
    };
    await forward();
    valid = "Bearer 2";
    await forward();
    expect(runs).toBe(2);
    valid = "nobody";
    await expect(forward()).rejects.toMatchObject({ code: "unauthorized" });
    expect(runs).toBe(3);
  });
  test("that are missing or fail are named", async () => {
    await using server = await new FakeApiServer().listen();
    const missing = server.open(
      { user: pluginUser },
      { runCommand: () => Promise.reject(Object.assign(new Error("spawn"), { code: "ENOENT" })) },
    );
    await expect(missing.get(pods, { name: "x" }, signal)).rejects.toMatchObject({
      code: "unauthorized",
      message: 'credential plugin "get-token" of the kubeconfig was not found',
      hint: "install it from example.com",
    });
    const failing = server.open(
      { user: pluginUser },
      { runCommand: () => Promise.resolve({ exitCode: 3, stdout: "", stderr: "session expired\n" }) },
    );
    await expect(failing.get(pods, { name: "x" }, signal)).rejects.toThrow(
      'credential plugin "get-token" failed with exit code 3: session expired',
    );
    const silent = server.open(
      { user: pluginUser },
      { runCommand: () => Promise.resolve({ exitCode: 0, stdout: "hi", stderr: "" }) },
    );
    await expect(silent.get(pods, { name: "x" }, signal)).rejects.toThrow("did not answer with an ExecCredential");
  });
});
