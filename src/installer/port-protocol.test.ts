import { describe, expect, test } from "vitest";
import type { Service, ServicePort } from "#kube/objects.ts";
import type { PortRoute } from "#kube/workloads/service-ports.ts";
import { speaksHttp, speaksTls } from "./port-protocol.ts";

const route = (port: Partial<ServicePort>, portName?: string): PortRoute => ({
  service: { metadata: { name: "hello" }, spec: {} } as Service,
  servicePort: { port: 80, ...port },
  containerName: "app",
  containerPort: 8080,
  protocol: "tcp",
  portName,
  headless: false,
});

describe("speaksHttp()", () => {
  test.each([
    [{ appProtocol: "http" }, undefined, true],
    [{ appProtocol: "HTTP" }, undefined, true],
    [{ appProtocol: "kubernetes.io/ws" }, undefined, true],
    [{ appProtocol: "kubernetes.io/h2c", name: "tls" }, undefined, true],
    [{ appProtocol: "grpc" }, undefined, true],
    [{ appProtocol: "http2" }, undefined, true],
    [{ appProtocol: "https" }, undefined, false],
    [{ appProtocol: "example.com/own", name: "http" }, undefined, undefined],
    [{ appProtocol: "constructor" }, undefined, undefined],
    [{ name: "http" }, undefined, true],
    [{ name: "http-metrics" }, undefined, true],
    [{ name: "admin-http" }, undefined, true],
    [{ name: "web" }, "http", true],
    [{}, "http", true],
    [{ name: "https" }, undefined, false],
    [{ name: "http2-api" }, undefined, true],
    [{ name: "grpc" }, undefined, true],
    [{ name: "api-h2c" }, undefined, true],
    [{ name: "httpd" }, undefined, undefined],
    [{ name: "web" }, "web", undefined],
  ] as const)("of %j, found by %j, is %s", (port, portName, expected) => {
    expect(speaksHttp([route(port, portName)])).toBe(expected);
  });

  test("leaves it to the first bytes where services contradict each other", () => {
    expect(speaksHttp([route({ name: "http" }), route({ name: "tls" })])).toBe(undefined);
    expect(speaksHttp([route({ name: "http" }), route({ name: "grpc" })])).toBe(true);
    expect(speaksHttp([route({ name: "http" }), route({ name: "web" })])).toBe(true);
  });
});

describe("speaksTls()", () => {
  test.each([
    [{ appProtocol: "https", name: "http" }, undefined, true],
    [{ appProtocol: "kubernetes.io/wss" }, undefined, true],
    [{ appProtocol: "http", name: "https", port: 443 }, undefined, false],
    [{ name: "https" }, undefined, true],
    [{ name: "tls-api" }, undefined, true],
    [{ name: "web" }, "web-https", true],
    [{ port: 443 }, undefined, true],
    [{ port: 443, name: "web" }, undefined, true],
    [{ port: 443, name: "http" }, undefined, false],
    [{ port: 443, name: "grpc" }, undefined, false],
    [{ name: "web" }, "web", false],
    [{ name: "httpsd" }, undefined, false],
  ] as const)("of %j, found by %j, is %s", (port, portName, expected) => {
    expect(speaksTls([route(port, portName)])).toBe(expected);
  });

  test("is no where services contradict each other", () => {
    expect(speaksTls([route({ name: "https" }), route({ name: "http" })])).toBe(false);
    expect(speaksTls([route({ name: "https" }), route({ name: "web" })])).toBe(true);
  });
});
