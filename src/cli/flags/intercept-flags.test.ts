import { describe, expect, test } from "vitest";
import { checkInterceptFlags, readTls } from "./intercept-flags.ts";

describe("checkInterceptFlags()", () => {
  test.each(["8080", "8080:http", "1:80", "65535:9090"])("takes --port %s", (port) => {
    expect(checkInterceptFlags({ port: [port] })).toEqual([]);
  });
  test.each(["", "0", "65536", "http", "8080:", "8080:a:b", "-1", "80 80", "1e3"])("refuses --port %j", (port) => {
    expect(() => checkInterceptFlags({ port: [port] })).toThrow(expect.objectContaining({ code: "usage" }));
  });
  test("refuses what is not there, and a mechanism without what it chooses by", () => {
    expect(checkInterceptFlags({ mechanism: "tcp", previewUrl: false })).toEqual([]);
    expect(checkInterceptFlags({ mechanism: "http", httpHeader: ["auto"] })).toEqual([]);
    expect(() => checkInterceptFlags({ mechanism: "http" })).toThrow(expect.objectContaining({ code: "usage" }));
    expect(() => checkInterceptFlags({ mechanism: "magic" })).toThrow(
      expect.objectContaining({
        code: "usage",
        message: '--mechanism is "magic", expected tcp, or http with a filter',
      }),
    );
    const wiretap = { previewUrl: true, attachment: "wiretap" } as const;
    expect(() => checkInterceptFlags(wiretap)).toThrow(expect.objectContaining({ code: "usage" }));
  });
  test("has nothing to say against --grpc-method, which chooses calls over HTTP/2 as well", () => {
    expect(checkInterceptFlags({ grpcMethod: ["shop.Cart/*"] })).toEqual([]);
  });
  test.each([{ mount: "false", copyVolume: ["data"] }, { copyLimit: "much" }, { envSyntax: "fish" }])(
    "refuses %j",
    (flags) => expect(() => checkInterceptFlags(flags)).toThrow(expect.objectContaining({ code: "usage" })),
  );
  test.each(["keep", "drain", "reset"])("takes --existing %s", (existing) => {
    expect(checkInterceptFlags({ existing })).toEqual([]);
  });
  test("refuses any other --existing", () => {
    expect(() => checkInterceptFlags({ existing: "close" })).toThrow(
      '--existing is "close", expected one of keep, drain, reset',
    );
  });
  test("takes hosts and addresses as --address, and nothing else", () => {
    for (const address of ["127.0.0.1", "::1", "fe80::1%eth0", "my-box.lan"]) {
      expect(checkInterceptFlags({ address })).toEqual([]);
    }
    for (const address of ["", "no such host", "http://x", "[::1]"]) {
      expect(() => checkInterceptFlags({ address })).toThrow(`--address is "${address}", expected a host name`);
    }
  });
  test("takes --on-refused app and fail, and nothing else", () => {
    expect(checkInterceptFlags({ onRefused: "app" })).toEqual([]);
    expect(checkInterceptFlags({ onRefused: "fail" })).toEqual([]);
    expect(() => checkInterceptFlags({ onRefused: "reset" })).toThrow(
      '--on-refused is "reset", expected one of app, fail',
    );
  });
  test("takes --probes app, agent and laptop, and says what the last one means", () => {
    expect(checkInterceptFlags({ probes: "app" })).toEqual([]);
    expect(checkInterceptFlags({ probes: "agent" })).toEqual([]);
    expect(checkInterceptFlags({ probes: "laptop" })).toEqual([expect.stringContaining("the pods become unready")]);
    expect(() => checkInterceptFlags({ probes: "none" })).toThrow(
      '--probes is "none", expected one of app, agent, laptop',
    );
  });
  test("takes --tls-cert and --plaintext with a filter only", () => {
    const filter = { httpMethod: ["GET"] };
    expect(readTls({ ...filter, tlsCert: "web-tls:server.pem,server.key" })).toEqual({
      certificate: { volume: "web-tls", certificateFile: "server.pem", keyFile: "server.key" },
    });
    expect(readTls({ ...filter, httpPlaintext: true })).toEqual({ plaintext: true });
    expect(readTls(filter)).toBeUndefined();
    for (const flags of [{ tlsCert: "web-tls" }, { plaintext: true }]) {
      expect(() => checkInterceptFlags(flags)).toThrow(/goes with a filter/);
    }
    expect(() => checkInterceptFlags({ ...filter, tlsCert: "../x" })).toThrow(
      '--tls-cert is "../x", expected VOLUME[:CERTIFICATE,KEY]',
    );
  });
  test("refuses two different workloads", () => {
    expect(() => checkInterceptFlags({ workload: "a", deployment: "b" })).toThrow(/exclude each other/);
  });
});
