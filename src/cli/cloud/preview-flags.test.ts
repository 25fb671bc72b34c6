import { describe, expect, test } from "vitest";
import { isHost, readAddedHeaders, readExpiry, readIngressCa, readIngressFlags } from "./preview-flags.ts";

const usage = expect.objectContaining({ code: "usage" }) as Error;

describe("readIngressFlags()", () => {
  test("reads what is given, and nothing else", () => {
    expect(readIngressFlags({})).toEqual({});
    expect(
      readIngressFlags({ ingressHost: "edge.infra", ingressPort: "8443", ingressTls: true, ingressL5: "shop.example" }),
    ).toEqual({ host: "edge.infra", port: 8443, tls: true, l5host: "shop.example" });
  });
  test.each([{ ingressHost: "http://edge" }, { ingressPort: "0" }, { ingressPort: "https" }, { ingressL5: "a b" }])(
    "refuses %j",
    (flags) => {
      expect(() => readIngressFlags(flags)).toThrow(usage);
    },
  );
});

test.each([
  ["of-nobody.pem", "which cannot be read: there is no such file or directory"],
  ["/", "which cannot be read: it is a directory"],
  ["status", "expected PEM certificates, 32000 bytes at most"],
])("readIngressCa() says what is wrong with %s", (ingressCa, why) => {
  const error = expect.objectContaining({ code: "usage", message: `--ingress-ca is ${ingressCa}, ${why}` }) as Error;
  expect(() => readIngressCa({ ingressCa }, "/proc/self")).toThrow(error);
});

test.each([
  ["edge.infra", true],
  ["10.0.0.1", true],
  ["fd00::1", true],
  ["edge_1.infra", true],
  ["-edge", false],
  ["edge.", false],
  ["edge:80", false],
  ["", false],
])("isHost(%j) is %j", (text, is) => {
  expect(isHost(text)).toBe(is);
});

test("readAddedHeaders() takes a value with an equals sign, and no line of its own", () => {
  expect(readAddedHeaders({ addRequestHeaders: ["x-user=ann=1", "x-env: dev"] })).toEqual([
    { name: "x-user", value: "ann=1" },
    { name: "x-env", value: "dev" },
  ]);
  for (const pair of ["x-user", "x user=1", "x=a\r\ny: b"])
    expect(() => readAddedHeaders({ addRequestHeaders: [pair] })).toThrow(usage);
});

test("readExpiry() takes a minute to thirty days", () => {
  expect(["90s", "30m", "24h", "7d"].map(readExpiry)).toEqual([90, 1800, 86_400, 604_800]);
  for (const text of ["59s", "31d", "24", "1w", ""]) expect(() => readExpiry(text)).toThrow(usage);
});
