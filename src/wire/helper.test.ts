import { describe, expect, test } from "vitest";
import { AppError } from "#base/error.ts";
import { decodeHelperError, encodeHelperError, helperApi, helperErrorSchema, helperReplySchema } from "./helper.ts";

describe("helperReplySchema", () => {
  test("tells a result from an error", () => {
    expect(helperReplySchema.parse({ id: 1, result: {} })).toEqual({ id: 1, result: {} });
    const error = { code: "denied", message: "no" };
    expect(helperReplySchema.parse({ id: 1, error })).toEqual({ id: 1, error });
    expect(helperReplySchema.safeParse({ result: {} }).success).toBe(false);
  });
});

describe("errors", () => {
  test("cross with code, message and hint, and an unknown code becomes helper_failed", () => {
    const error = new AppError("route_conflict", "10.0.0.0/8 overlaps", { hint: "leave it out" });
    expect(decodeHelperError(encodeHelperError(error))).toMatchObject({
      code: "route_conflict",
      message: "10.0.0.0/8 overlaps",
      hint: "leave it out",
    });
    expect(decodeHelperError({ code: "toString", message: "?" }).code).toBe("helper_failed");
  });
  test("are cut to what the schema takes", () => {
    const error = new AppError("internal", "x".repeat(10_000), { hint: "y".repeat(10_000) });
    expect(helperErrorSchema.safeParse(encodeHelperError(error)).success).toBe(true);
  });
});

describe("helperApi", () => {
  const nft = { mode: "nft", port: 53, nameservers: ["10.0.0.1"], upstreamSourcePorts: [1] };
  test.each([
    ["dns.hook", nft, true],
    ["dns.hook", { ...nft, mode: "other" }, false],
    ["dns.hook", { ...nft, nameservers: [] }, false],
    ["dns.hook", { ...nft, port: 65_536 }, false],
    ["dns.hook", { mode: "resolved", server: "246.246.0.1", port: 5353, domains: ["cluster.local"] }, true],
    ["device.open", { addresses: ["246.246.0.1/30"], mtu: 65_535 }, true],
    ["device.open", { addresses: [], mtu: 65_535 }, false],
    ["device.open", { addresses: ["246.246.0.1/30"], mtu: 100 }, false],
    ["routes.set", { routes: Array.from({ length: 2049 }, () => "10.0.0.0/8"), never: [] }, false],
    ["routes.set", { routes: [7], never: [] }, false],
  ] as const)("%s takes %j: %s", (verb, params, valid) => {
    expect(helperApi[verb].params.safeParse(params).success).toBe(valid);
  });
});
