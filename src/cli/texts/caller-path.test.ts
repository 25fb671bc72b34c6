import { expect, test } from "vitest";
import type { CallerPathState, InterceptInfo } from "#wire/manager-api.ts";
import { callerPathToJson, describeByPass, describeCallerPath } from "./caller-path.ts";

const infoWith = (callerPath?: CallerPathState): InterceptInfo => ({ callerPath }) as InterceptInfo;
const verified = (through: readonly string[]): InterceptInfo =>
  infoWith({ verdict: "verified", ageMs: 3000, through: [...through] });

test("says where callers were seen to reach the agents, and how long ago", () => {
  const places = ["10.1.2.3:8080", "10.1.2.4:8080", "hello (ClusterIP)", "10.1.2.5:8080", "10.1.2.6:8080"];
  expect([1, 2, 3, 5].map((count) => describeCallerPath(verified(places.slice(0, count)))[0])).toEqual([
    "verified 3 s ago through 10.1.2.3:8080",
    "verified 3 s ago through 10.1.2.3:8080 and 10.1.2.4:8080",
    "verified 3 s ago through 10.1.2.3:8080, 10.1.2.4:8080 and hello (ClusterIP)",
    "verified 3 s ago through 10.1.2.3:8080, 10.1.2.4:8080, hello (ClusterIP) and 2 more",
  ]);
  expect(describeByPass(verified(places))).toBeUndefined();
});

test("says why it is by-passed, or could not be tried", () => {
  const state = { ageMs: 200.4, through: [], reason: "Istio takes the port" };
  const info = infoWith({ verdict: "by-passed", ...state });
  expect(describeCallerPath(info)).toEqual(["by-passed, seen 200 ms ago: Istio takes the port"]);
  expect(describeByPass(info)).toBe("Istio takes the port");
  expect(callerPathToJson(info)).toEqual({
    verdict: "by-passed",
    age_ms: 200,
    through: [],
    reason: "Istio takes the port",
  });
  expect(describeCallerPath(infoWith({ verdict: "unknown", ...state }))).toEqual([
    "not verified: Istio takes the port",
  ]);
  expect([describeCallerPath(infoWith()), callerPathToJson(infoWith())]).toEqual([[], undefined]);
});
