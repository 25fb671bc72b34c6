import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { emptyConfig, parseClientConfig, parsePullPolicy, readConfigFile } from "./config-file.ts";

const folder = mkdtempSync(join(tmpdir(), "telepresence-config-"));
afterAll(() => rmSync(folder, { recursive: true }));
const write = (text: string): string => {
  const path = join(folder, "config.yml");
  writeFileSync(path, text);
  return path;
};

describe("readConfigFile()", () => {
  // An empty config.yml once kept the original from starting (2.23.1).
  test.each(["", "\n", "# nothing but a comment\n", "---\n", "images:\n"])("takes %j for nothing set", async (text) => {
    expect(await readConfigFile(write(text), true)).toEqual(emptyConfig);
  });

  test("does not need the file, unless the user named it", async () => {
    expect(await readConfigFile(join(folder, "absent.yml"), false)).toBe(emptyConfig);
    await expect(readConfigFile(join(folder, "absent.yml"), true)).rejects.toThrow(/cannot be read/);
    await expect(readConfigFile(folder, false)).rejects.toThrow(/cannot be read/);
  });

  test("says where the YAML is broken", async () => {
    await expect(readConfigFile(write("a: [1\nb: 2\n"), true)).rejects.toThrow(/config\.yml is not YAML: .*line 2/);
  });

  test("reads each key that has an effect", async () => {
    const text = `
images: {registry: reg.example/team, agentImage: tp:2, pullPolicy: always}
cluster: {defaultManagerNamespace: ambassador, mappedNamespaces: [a, b]}
intercept: {defaultPort: 9000}
routing: {alsoProxySubnets: [10.1.0.0/16], neverProxySubnets: [], allowConflictingSubnets: [10.1.0.0/24], virtualSubnet: 246.0.0.0/8, autoResolveConflicts: false}
timeouts: {clusterConnect: 5, trafficManagerConnect: 1m30s, agentInstall: 2m}
grpc: {maxReceiveSize: 4Mi}
dns:
  includeSuffixes: [.corp]
  excludeSuffixes: [.com]
  excludes: [printer]
  mappings: [{name: db, aliasFor: postgres.data}]
  lookupTimeout: 8s
  localIP: 192.0.2.53
  recursionCheck: true
`;
    expect(await readConfigFile(write(text), true)).toEqual({
      registry: "reg.example/team",
      image: "tp:2",
      pullPolicy: "Always",
      managerNamespace: "ambassador",
      mappedNamespaces: ["a", "b"],
      alsoProxy: ["10.1.0.0/16"],
      neverProxy: [],
      allowConflictingSubnets: ["10.1.0.0/24"],
      vnat: ["off"],
      virtualSubnet: "246.0.0.0/8",
      defaultPort: 9000,
      connectTimeoutMs: 95_000,
      interceptTimeoutMs: 150_000,
      dns: {
        includeSuffixes: [".corp"],
        excludeSuffixes: [".com"],
        excludes: ["printer"],
        mappings: [{ name: "db", aliasFor: "postgres.data" }],
        lookupTimeoutMs: 8000,
        localAddresses: ["192.0.2.53"],
      },
      withoutEffect: ["grpc.maxReceiveSize", "dns.recursionCheck"],
    });
  });
});

describe("parseClientConfig()", () => {
  test.each([
    [{ image: {} }, "c.yml has the unknown key image", "did you mean images?"],
    [
      { images: { pullpolicy: "Always" } },
      "c.yml has the unknown key images.pullpolicy",
      "did you mean images.pullPolicy?",
    ],
    [{ constructor: {} }, "c.yml has the unknown key constructor", expect.stringContaining("known keys: images")],
    [{ images: { toString: "x" } }, "c.yml has the unknown key images.toString", expect.any(String)],
    [{ images: [] }, "c.yml: images is a list, expected a mapping of keys", undefined],
    [[], "c.yml holds a list, expected a mapping of keys", undefined],
    ["root:x:0:0 ".repeat(9), "c.yml holds a long text, expected a mapping of keys", undefined], // of another file
    [
      { dns: { mappings: { "db.corp.example.com": "postgres.data", "cache.corp.example.com": "redis.data" } } },
      "c.yml: dns.mappings is a mapping, expected a list of name and aliasFor",
      undefined,
    ],
    [
      { routing: { virtualSubnet: "fd00::/8" } },
      'c.yml: routing.virtualSubnet is "fd00::/8", expected an IPv4 range such as 240.0.0.0/4',
      undefined,
    ],
    [
      { intercept: { defaultPort: 0 } },
      "c.yml: intercept.defaultPort is 0, expected a port from 1 to 65535",
      undefined,
    ],
    [
      { intercept: { defaultPort: "80" } },
      'c.yml: intercept.defaultPort is "80", expected a port from 1 to 65535',
      undefined,
    ],
    [
      { cluster: { mappedNamespaces: "a" } },
      'c.yml: cluster.mappedNamespaces is "a", expected a list of texts',
      undefined,
    ],
    [
      { timeouts: { intercept: "soon" } },
      'c.yml: timeouts.intercept is "soon", expected seconds or a duration such as 30s or 1m30s',
      undefined,
    ],
    [
      { images: { pullPolicy: "x" } },
      'c.yml: images.pullPolicy is "x", expected one of Always, IfNotPresent, Never',
      undefined,
    ],
  ])("refuses %j", (root, message, hint) => {
    expect(() => parseClientConfig(root, "c.yml")).toThrow(
      expect.objectContaining({ code: "invalid_config", message, hint }),
    );
  });
});

test("parsePullPolicy() takes any case", () => {
  expect(parsePullPolicy("ifnotpresent", "--image-pull-policy")).toBe("IfNotPresent");
});
