import { describe, expect, test } from "vitest";
import { sumOlder } from "./older-connections.ts";

const port = { containerPort: 8080, protocol: "tcp", connections: 4, callers: 2 } as const;

describe("sumOlder()", () => {
  test("says nothing while no agent has", () => {
    expect(sumOlder([])).toBeUndefined();
  });
  test("counts a caller of two pods once", () => {
    const one = { ...port, addresses: ["10.0.0.1", "10.0.0.2"] };
    const two = { ...port, addresses: ["10.0.0.2", "10.0.0.3"] };
    expect(sumOlder([one, two])).toEqual({ connections: 8, callers: 3 });
  });
  test("counts callers that were too many to be named, and gives a reason when there is one", () => {
    const many = { ...port, callers: 100, addresses: ["10.0.0.1"], reason: "this kernel is too old" };
    const told = { connections: 8, callers: 101, reason: "this kernel is too old" };
    expect(sumOlder([{ ...port, addresses: ["10.0.0.1", "10.0.0.2"] }, many])).toEqual(told);
  });
});
