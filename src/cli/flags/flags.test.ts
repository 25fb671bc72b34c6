import { describe, expect, test } from "vitest";
import { isAppError } from "#base/error.ts";
import { softwareVersion } from "#base/version.ts";
import { parseCliEnvironment } from "#cli/config.ts";
import { emptyConfig } from "./config-file.ts";
import { connectOptions, namesPlace, outputMode, progressMode, type ConnectFlags } from "./flags.ts";

const attempt = (run: () => unknown): unknown => {
  try {
    return run();
  } catch (error) {
    return error;
  }
};

const plain = parseCliEnvironment({ HOME: "/home/a" }, "/work");

describe("connectOptions()", () => {
  const imageOf = (flag?: string, env: Record<string, string> = {}, config: object = {}): string | undefined =>
    connectOptions(flag === undefined ? {} : { image: flag }, parseCliEnvironment(env, "/"), {
      ...emptyConfig,
      ...config,
    }).image;

  test("takes the image from flag, environment, file, in this order", () => {
    expect(imageOf()).toBeUndefined();
    expect(imageOf(undefined, {}, { image: "file/i:1" })).toBe("file/i:1");
    expect(imageOf(undefined, { TELEPRESENCE_AGENT_IMAGE: "env/i:1" }, { image: "file/i:1" })).toBe("env/i:1");
    expect(imageOf(undefined, { TELEPRESENCE_MANAGER_IMAGE: "env/m:1" })).toBe("env/m:1");
    expect(imageOf("flag/i:1", { TELEPRESENCE_AGENT_IMAGE: "env/i:1" }, { image: "file/i:1" })).toBe("flag/i:1");
    expect(imageOf(undefined, { TELEPRESENCE_AGENT_IMAGE: "" })).toBeUndefined();
  });

  test("puts the registry before a bare name", () => {
    expect(imageOf("tp:2", { TELEPRESENCE_REGISTRY: "reg.example/team/" })).toBe("reg.example/team/tp:2");
    expect(imageOf("other/tp:2", { TELEPRESENCE_REGISTRY: "reg.example" })).toBe("other/tp:2");
    expect(imageOf(undefined, {}, { registry: "reg.example" })).toBe(`reg.example/telepresence:${softwareVersion}`);
  });

  test("sends where and in which environment the command ran", () => {
    expect(connectOptions({ context: "c" }, plain, emptyConfig).kube).toEqual({
      flags: { context: "c" },
      cwd: "/work",
      env: { HOME: "/home/a" },
    });
  });

  test("takes an empty text for none, as kubectl does", () => {
    const flags = { context: "", namespace: "", managerNamespace: "", image: "" };
    const { kube, managerNamespace, image } = connectOptions(flags, plain, emptyConfig);
    expect({ flags: kube.flags, managerNamespace, image }).toEqual({ flags: {} });
    expect(namesPlace(flags)).toBe(false);
  });

  test("takes the way of the link, and how it is made", () => {
    for (const direct of ["nodeport", "loadbalancer", "tp.example.com:443", "[2001:db8::1]:8444"]) {
      expect(connectOptions({ transport: "direct", direct }, plain, emptyConfig)).toMatchObject({
        transport: "direct",
        direct,
      });
    }
  });

  // Each was found out late: by the API server, after the daemon had started, or not at all.
  test.each([
    [{ managerNamespace: "a b" }, /^--manager-namespace is "a b", expected lower-case letters, digits and dashes, 63/],
    [{ managerNamespace: "a".repeat(64) }, /^--manager-namespace is "a+", expected .* 63 at most$/],
    [{ transport: "quic" }, /^--transport is "quic", expected one of auto, port-forward, direct$/],
    [{ direct: "yes" }, /^--direct is "yes", expected nodeport, loadbalancer or HOST:PORT$/],
    [{ mappedNamespaces: ["a", "b c"] }, /^--mapped-namespaces is "b c"/],
    [{ alsoProxy: ["notacidr"] }, /^--also-proxy has "notacidr", expected address ranges such as 10.0.0.0\/8$/],
    [{ neverProxy: ["10.0.0.0/8", "10.0.0.0/99"] }, /^--never-proxy has "10.0.0.0\/99"/],
    [{ neverProxy: ["fd00::/8", "fd00::/129"] }, /^--never-proxy has "fd00::\/129"/],
    [{ allowConflictingSubnets: ["vpn"] }, /^--allow-conflicting-subnets has "vpn"/],
    [{ vnat: ["service", "10.0.0.0/8", "services"] }, /^--vnat has "services"/],
    [{ imagePullPolicy: "Sometimes" }, /^--image-pull-policy is "Sometimes"/],
  ])("refuses %j as wrong usage", (flags, text) => {
    const error = attempt(() => connectOptions(flags, plain, emptyConfig));
    expect(isAppError(error, "usage") && error.message).toMatch(text);
  });

  test("takes a workload of any kind to connect by", () => {
    expect(connectOptions({ via: "sts/web" }, plain, emptyConfig).via).toEqual({ name: "web", kind: "StatefulSet" });
    expect(connectOptions({ via: "web" }, plain, emptyConfig).via).toEqual({ name: "web" });
    expect(connectOptions({ via: "" }, plain, emptyConfig).via).toBeUndefined();
  });

  test("takes workloads for subnets in both spellings", () => {
    const of = (flags: ConnectFlags): object => {
      const { via, proxyVia } = connectOptions(flags, plain, emptyConfig);
      return { via, proxyVia };
    };
    const web = { name: "web" };
    expect(of({ proxyVia: ["10.8.0.0/16=web", "pods=sts/db"] })).toEqual({
      via: undefined,
      proxyVia: [
        { subnet: "10.8.0.0/16", workload: web },
        { subnet: "pods", workload: { name: "db", kind: "StatefulSet" } },
      ],
    });
    expect(of({ via: "127.0.0.0/8=web" })).toEqual({
      via: undefined,
      proxyVia: [{ subnet: "127.0.0.0/8", workload: web }],
    });
    for (const wrong of ["10.8.0.0/16", "10.8.0.0/16=", "10.8.0.0/99=web", "node=web", "=web", "10.8.0.0/16=a=b"]) {
      expect(() => of({ proxyVia: [wrong] })).toThrow("--proxy-via has");
    }
  });

  test("takes ranges and single addresses of both families", () => {
    const alsoProxy = ["10.0.0.0/8", "192.0.2.1", "fd00::/8", "fd00::1", "0.0.0.0/0"];
    expect(connectOptions({ alsoProxy }, plain, emptyConfig).alsoProxy).toEqual(alsoProxy);
  });

  test("refuses a pull policy that does not exist", () => {
    const env = parseCliEnvironment({ TELEPRESENCE_IMAGE_PULL_POLICY: "Sometimes" }, "/");
    expect(() => connectOptions({}, env, emptyConfig)).toThrow(/TELEPRESENCE_IMAGE_PULL_POLICY is "Sometimes"/);
  });
});

test("namesPlace() is true for every flag that says where, and not for the namespace", () => {
  expect(namesPlace({})).toBe(false);
  expect(namesPlace({ namespace: "x", output: "json" })).toBe(false);
  expect(namesPlace({ as: "x" })).toBe(true);
  expect(namesPlace({ managerNamespace: "x" })).toBe(true);
});

test("outputMode() knows both families", () => {
  expect(outputMode({})).toEqual({ kind: "text" });
  expect(outputMode({ output: "default" })).toEqual({ kind: "text" });
  expect(outputMode({ output: "yaml" })).toEqual({ kind: "envelope", syntax: "yaml" });
  expect(outputMode({ format: "json-stream" })).toEqual({ kind: "object", syntax: "json-stream" });
  expect(() => outputMode({ output: "json", format: "json" })).toThrow(/exclude each other/);
});

test("progressMode() knows its words", () => {
  expect(
    [undefined, "auto", "tty", "plain", "quiet"].map((progress) =>
      progressMode(progress === undefined ? {} : { progress }),
    ),
  ).toEqual(["auto", "auto", "auto", "plain", "quiet"]);
  expect(() => progressMode({ progress: "loud" })).toThrow(/expected one of auto, plain, quiet/);
});
