import { describe, expect, test } from "vitest";
import { currentUser, formatUserAtHost } from "./user.ts";

describe("currentUser()", () => {
  test("prefers HOME of the environment when it is a path", () => {
    expect(currentUser({ HOME: "/somewhere" }).home).toBe("/somewhere");
    expect(currentUser({ HOME: "relative" }).home).toMatch(/^\//);
  });
});

describe("formatUserAtHost()", () => {
  const user = (name: string): Parameters<typeof formatUserAtHost>[0] => ({ uid: 1, name, home: undefined });
  test.each([
    ["alice", "thinkpad.example.com", "alice@thinkpad"],
    ["al ice\n", "think pad", "al-ice-@think-pad"],
    ["", "", "unknown@unknown"],
    ["x".repeat(200), "h", `${"x".repeat(59)}@h`],
  ])("writes %j on %j", (name, host, text) => {
    expect(formatUserAtHost(user(name), host)).toBe(text);
  });
});
