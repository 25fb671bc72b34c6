// kubectl refused what `cloud install --print` printed (an annotation that is `off` was a boolean to it), and a volume of
// mode 0400 came out of `genyaml` with mode 0620.
import { expect, test } from "vitest";
import { parseManifests, stringify } from "./yaml.ts";

test("texts that YAML 1.1 takes for something else are quoted", () => {
  const texts = ["off", "yes", "NO", "0o17", "1_000", "1:30", "2001-12-14", "3600", "true", "<<"];
  expect(stringify(texts).trim().split("\n")).toEqual(texts.map((text) => `- "${text}"`));
  expect(stringify({ plain: "text" })).toBe("plain: text\n");
});

test("manifests are read as kubectl reads them", () => {
  const text = "mode: 0400\non-off: off\nbase: &base {a: 1}\nmerged:\n  <<: *base\ntime: 1:30\nday: 2001-12-14\n";
  expect(parseManifests(`${text}---\nb: 2\n`).map((document) => document.toJS() as object)).toEqual([
    { mode: 0o400, "on-off": false, base: { a: 1 }, merged: { a: 1 }, time: "1:30", day: "2001-12-14" },
    { b: 2 },
  ]);
});
