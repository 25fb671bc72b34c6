// What is rewritten on the way to the ingress and back, where a visitor or an application may mean to trick it.
import { expect, test } from "vitest";
import { answerHeaders, takesBanner } from "./answer-headers.ts";
import type { Preview } from "./previews.ts";
import { mayAdd, requestHeaders, shareTokenOf, withoutShareToken } from "./request-headers.ts";

const preview = {
  interceptId: "s-1:hello,world",
  headers: [],
  ingress: { host: "ingress.shop", port: 8443, tls: true },
} as unknown as Preview;
const origin = new URL("https://brave-otter.preview.example.com:8443");
const sent = (...rawHeaders: readonly string[]) =>
  requestHeaders(preview, { rawHeaders, address: "192.0.2.1", origin, plainBody: false });
const location = (value: string) => answerHeaders(["Location", value], preview, origin)["location"];

test("a path without the share token is otherwise as it came", () => {
  expect(withoutShareToken("/a?telepresence-share=x")).toBe("/a");
  expect(withoutShareToken("/a?b=%20&telepresence-share=x&c")).toBe("/a?b=%20&c");
  expect(withoutShareToken("/a?telepresence%2Dshare=x&d")).toBe("/a?d");
  expect(withoutShareToken("https://h/a?telepresence-share=x#f?")).toBe("https://h/a#f?");
  expect(withoutShareToken("/telepresence-share=x")).toBe("/telepresence-share=x");
  expect([shareTokenOf("/a?b&telepresence-share=tph_1"), shareTokenOf("/a")]).toEqual(["tph_1", undefined]);
});

test("the mark of the intercept stands in both places, whatever stood there", () => {
  const headers = sent(
    "Baggage",
    "a=1;p=2",
    "baggage",
    "X-Telepresence-Intercept-Id = evil,b=2",
    "X-TELEPRESENCE-X",
    "1",
  );
  expect(headers).toMatchObject({
    baggage: "a=1;p=2,b=2,x-telepresence-intercept-id=s-1:hello%2Cworld",
    "x-telepresence-intercept-id": "s-1:hello,world",
    host: "ingress.shop:8443",
  });
  expect(headers["x-telepresence-x"]).toBeUndefined();
});

test("cookies of ours go, of HTTP/2's many fields too, and an empty one is none", () => {
  expect(sent("cookie", "a=b", "cookie", "__Host-telepresence-preview=x", "cookie", "c=d")["cookie"]).toBe("a=b; c=d");
  expect(sent("Cookie", "telepresence-session=x")["cookie"]).toBeUndefined();
});

test("what a visitor pretends with an underscore, which many servers read as a dash, goes as well", () => {
  const headers = sent(
    "X_Forwarded_For",
    "203.0.113.9",
    "x_telepresence_intercept_id",
    "other",
    "a_b",
    "c",
    "constructor",
    "d",
  );
  expect(Object.keys(headers).filter((name) => name.includes("_"))).toEqual(["a_b"]);
  expect(headers["constructor"]).toBe("d");
});

test.each([
  ['"cookies"', undefined],
  ['"cache", "cookies"', '"cache"'],
  ['"*"', '"cache", "storage"'],
])("an application's wish to clear %s leaves the site's cookies alone", (value, passed) => {
  expect(answerHeaders(["Clear-Site-Data", value], preview, origin)["clear-site-data"]).toBe(passed);
});

test("of headers that stand once the first counts, and what is for the proxy before goes no further", () => {
  const raw = [
    "Location",
    "/a",
    "Location",
    "/b",
    "Set-Cookie",
    "a=b",
    "set-cookie",
    "c=d",
    "X-Accel-Redirect",
    "/secret",
  ];
  expect({ ...answerHeaders(raw, preview, origin) }).toEqual({ location: "/a", "set-cookie": ["a=b", "c=d"] });
});

test.each(["Host", "connection", "X-Forwarded-For", "Content-Length", "Cookie", "x-telepresence-intercept-id", "TE"])(
  "a preview cannot add %s",
  (name) => expect([mayAdd(name), mayAdd(`x-${name.toLowerCase()}-x`)]).toEqual([false, true]),
);

test.each([
  ["https://ingress.shop:8443/a", "https://brave-otter.preview.example.com:8443/a"],
  ["http://INGRESS.shop/a", "https://brave-otter.preview.example.com:8443/a"],
  ["//ingress.shop", "//brave-otter.preview.example.com:8443"],
  ["/a", "/a"],
  ["https://ingress.shop:9999/a", "https://ingress.shop:9999/a"],
  ["https://ingress.shop@evil.example/", "https://ingress.shop@evil.example/"],
  ["https://ingress.shop.evil.example/", "https://ingress.shop.evil.example/"],
  ["https://evil.example/https://ingress.shop/", "https://evil.example/https://ingress.shop/"],
])("a redirect to %s leads to %s", (from, to) => expect(location(from)).toBe(to));

test.each([
  [{}, 200, true],
  [{ "content-encoding": "br" }, 200, false],
  [{ "content-range": "bytes 0-1/2" }, 206, false],
  [{ "cache-control": "public, no-transform" }, 200, false],
  [{ "content-type": "text/html; charset=utf-16" }, 200, false],
  [{ "content-type": "application/xhtml+xml" }, 200, false],
  [{}, 404, true],
  [{}, 304, false],
])("a banner to %j with %i: %s", (headers, status, takes) => {
  expect(takesBanner({ "content-type": "text/html; charset=utf-8", ...headers }, status)).toBe(takes);
});
