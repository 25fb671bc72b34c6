import { describe, expect, test } from "vitest";
import { agentConfigVariable } from "#wire/agent-api.ts";
import { applicationEnvironment, parseAgentSettings } from "./config.ts";

const config = {
  workload: { kind: "Deployment", name: "hello", namespace: "shop" },
  ports: [
    { agentPort: 9900, containerPort: 80, containerName: "app", protocol: "tcp", takeover: "name", portName: "http" },
  ],
  containerName: "app",
};

describe("parseAgentSettings()", () => {
  test("reads what the installer writes", () => {
    const settings = parseAgentSettings({
      [agentConfigVariable]: JSON.stringify(config),
      TELEPRESENCE_POD_NAME: "hello-1",
      TELEPRESENCE_POD_UID: "uid",
      TELEPRESENCE_POD_IPS: "10.0.0.1,fd00::1",
      TELEPRESENCE_DRAIN_SECONDS: "5",
    });
    expect(settings).toMatchObject({
      config,
      podName: "hello-1",
      podIps: ["10.0.0.1", "fd00::1"],
      drainMs: 5000,
      ports: { introduction: 24_899, health: 24_898 },
    });
  });
  test.each([
    [{}, "is not set"],
    [{ [agentConfigVariable]: "{" }, "is not JSON"],
    [{ [agentConfigVariable]: JSON.stringify({ ...config, ports: 1 }) }, 'at "ports"'],
    [{ [agentConfigVariable]: JSON.stringify(config), TELEPRESENCE_DRAIN_SECONDS: "soon" }, '"soon"'],
    [{ [agentConfigVariable]: JSON.stringify(config), TELEPRESENCE_LOG_LEVEL: "loud" }, '"loud"'],
  ])("names what is wrong in %j", (env, message) => {
    expect(() => parseAgentSettings(env)).toThrow(message);
  });
});

describe("applicationEnvironment()", () => {
  test("is the application's alone, under its own names", () => {
    expect(
      applicationEnvironment({
        PATH: "/bin",
        [agentConfigVariable]: "{}",
        _TEL_APP_GREETING: "hello\nworld",
        _TEL_APP_EMPTY: "",
        _TEL_APP_PATH: "/app/bin",
        _TEL_APP_HOME: "/root",
        _TEL_APP_HOSTNAME: "x",
        [`_TEL_APP_${agentConfigVariable}`]: "{}",
        _TEL_APP_: "nameless",
        _TEL_APP_TELEPRESENCE_X: "the application's own",
        _TEL_APP_OPEN: "$(_TEL_APP_NOBODY) $(_TEL_APP_",
      }),
    ).toEqual({ GREETING: "hello\nworld", EMPTY: "", TELEPRESENCE_X: "the application's own", OPEN: "$(NOBODY) $(" });
  });
});
