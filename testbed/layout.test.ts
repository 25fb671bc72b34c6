import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parseFamily, parseInstance } from "./layout.ts";

test("parseInstance() takes a short word and refuses what would not do as a name", () => {
  expect(parseInstance(undefined)).toBe("");
  expect(parseInstance("")).toBe("");
  expect(parseInstance("b2")).toBe("-b2");
  for (const bad of ["../x", "a b", "A", "-", "abcdefghijklm"])
    expect(() => parseInstance(bad)).toThrow("small letters");
});

test("parseFamily() takes one of three words, IPv4 where there is none", () => {
  expect([undefined, "", "ipv4", "dual", "ipv6"].map(parseFamily)).toEqual(["ipv4", "ipv4", "ipv4", "dual", "ipv6"]);
  expect(() => parseFamily("6")).toThrow("expected one of ipv4, dual, ipv6");
});

// Names are made while the file is loaded: what is wrong in one came with a stack of that.
test("a name that would not do is one sentence to whoever runs a command", () => {
  const env = { ...process.env, TELEPRESENCE_TESTBED: "a-b" };
  const run = spawnSync(process.execPath, [join(import.meta.dirname, "layout.ts")], { env, encoding: "utf8" });
  const said = 'TELEPRESENCE_TESTBED is "a-b", and a word of up to 12 small letters is expected\n';
  expect({ code: run.status, said: run.stderr }).toEqual({ code: 2, said });
});
