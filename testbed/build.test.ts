import { expect, test } from "vitest";
import { moduleKey } from "./build.ts";

test("moduleKey() depends on every source, on the flags and on the machine, and not on the order of listing", () => {
  const sources = new Map([
    ["go.mod", "module x"],
    ["main.go", "package main"],
  ]);
  const key = moduleKey(sources, "-s", "x64");
  expect(key).toMatch(/^[0-9a-f]{16}$/);
  expect(moduleKey(new Map([...sources].reverse()), "-s", "x64")).toBe(key);
  expect(moduleKey(new Map([...sources, ["go.sum", ""]]), "-s", "x64")).not.toBe(key);
  expect(moduleKey(sources, "-w", "x64")).not.toBe(key);
  expect(moduleKey(sources, "-s", "arm64")).not.toBe(key);
});
