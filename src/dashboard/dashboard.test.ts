import { execFileSync } from "node:child_process";
import { describe, expect, test } from "vitest";
import type { ExchangeSummary, ExchangeView } from "#wire/inspector-api.ts";
import { toCurl } from "./curl.ts";
import { difference } from "./difference.ts";
import { matches } from "./search.ts";

const summary: ExchangeSummary = {
  id: 1,
  revision: 1,
  intercept: "hello",
  podName: "hello-abc",
  caller: "10.0.0.9:1",
  method: "POST",
  target: "/cart?item=7",
  host: "hello.default",
  version: "HTTP/1.1",
  status: 503,
  state: "done",
  startedAt: 0,
  requestBytes: 0,
  answerBytes: 0,
  answeredBy: "laptop",
};

test.each([
  ["", true],
  ["cart", true],
  ["CART post", true],
  ["status:503", true],
  ["status:5xx method:post", true],
  ["status:2xx", false],
  ["-status:2xx pod:abc", true],
  ["-cart", false],
  ["by:pod", false],
])("the search %j finds it: %s", (query, found) => {
  expect(matches(summary, query)).toBe(found);
});

describe("the difference of two texts", () => {
  test("is the fewest lines", () => {
    const lines = difference("a\nb\nc\nd", "a\nx\nc\nd\ne");
    expect(lines.map(({ kind, text }) => `${kind} ${text}`)).toEqual([
      "same a",
      "left b",
      "right x",
      "same c",
      "same d",
      "right e",
    ]);
  });
  test("of long ones is found without a table that fills the memory", () => {
    const long = (mark: string): string => Array.from({ length: 3000 }, (_line, at) => `${mark}${at}`).join("\n");
    expect(difference(long("a"), long("b"))).toHaveLength(6000);
  });
});

test("curl's command line is what a shell makes it, whatever the request holds", () => {
  const view: ExchangeView = {
    ...summary,
    target: "/a?b='c d'&e=$HOME",
    processAddress: "127.0.0.1:8000",
    requestHeaders: [
      { name: "host", value: "hello.default" },
      { name: "x-quoted", value: `it's "$(id)" \`x\`` },
    ],
    requestBody: { bytes: 9, cut: false, hidden: false, text: "l'un\n$two" },
    answerHeaders: [],
    answerTrailers: [],
    answerBody: { bytes: 0, cut: false, hidden: false, text: "" },
  };
  const words = execFileSync("sh", ["-c", `curl() { printf '%s\\0' "$@"; }; ${toCurl(view)}`])
    .toString()
    .split("\0");
  expect(words.slice(0, -1)).toEqual([
    "-i",
    "--globoff",
    "-X",
    "POST",
    "-H",
    `x-quoted: it's "$(id)" \`x\``,
    "--data-raw", // a body that begins with `@` would else be a file of whoever copies the line
    "l'un\n$two",
    "http://hello.default/a?b='c d'&e=$HOME",
  ]);
});
