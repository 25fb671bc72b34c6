import { describe, expect, test } from "vitest";
import { refuseForReplacement } from "./replace-flags.ts";

describe("refuseForReplacement()", () => {
  test("takes what any intercept has", () => {
    expect(() => refuseForReplacement({ agent: "sidecar", port: ["8000"], probes: "app" }, false)).not.toThrow();
  });
  test("says why an ephemeral agent cannot do it", () => {
    expect(() => refuseForReplacement({ agent: "ephemeral" }, false)).toThrow(
      "--agent ephemeral cannot replace a container: an ephemeral agent cannot stop the application",
    );
  });
  test("refuses what would leave requests to an application that is not there", () => {
    expect(() => refuseForReplacement({}, true)).toThrow("a filter has no meaning for a replacement");
    expect(() => refuseForReplacement({ allowOverlap: true }, false)).toThrow("--allow-overlap has no meaning");
    expect(() => refuseForReplacement({ existing: "drain" }, false)).toThrow("--existing has no meaning");
  });
});
