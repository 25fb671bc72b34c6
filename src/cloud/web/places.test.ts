// Which host a request is for, and where a redirect may lead, as those write them who mean to lead somebody elsewhere.
import type { IncomingMessage } from "node:http";
import { describe, expect, test } from "vitest";
import type { CloudConfig } from "#cloud/config.ts";
import { localPath } from "./browser.ts";
import { placeOf } from "./server.ts";

const config = { url: new URL("https://cloud.test"), previewDomain: "preview.test" } as CloudConfig;
const place = (host: string | undefined, more: object = {}, url = "/people"): string =>
  placeOf({ url, headers: { host, ...more } } as unknown as IncomingMessage, config);

describe("a request is", () => {
  test.each([
    ["cloud.test", "own"],
    ["CLOUD.test", "own"],
    ["one.preview.test", "preview"],
    ["one.preview.test:8443", "preview"],
    ["preview.test", "nobody"],
    ["cloud.test:8443", "nobody"],
    ["cloud.test.", "nobody"],
    ["cloud.test.evil.example", "nobody"],
    ["evil.example:@cloud.test", "nobody"],
    ["cloud.test@evil.example", "nobody"],
    ["cloud.test/", "nobody"],
    ["cloud.test, evil.example", "nobody"],
    ["one.preview.test.evil.example", "nobody"],
    ["127.0.0.1", "nobody"],
    ["localhost", "nobody"],
    ["", "nobody"],
    [undefined, "nobody"],
  ])("for the host %s: %s's", (host, whose) => expect(place(host)).toBe(whose));

  test("for the host that HTTP/2 names, whatever a proxy's headers say", () => {
    expect(place("cloud.test", { ":authority": "evil.example" })).toBe("nobody");
    expect(place("evil.example", { "x-forwarded-host": "cloud.test", forwarded: "host=cloud.test" })).toBe("nobody");
  });

  test("a probe's by its exact path alone", () => {
    expect([place("10.0.0.7:8443", {}, "/readyz"), place("10.0.0.7:8443", {}, "/healthz")]).toEqual(["own", "own"]);
    for (const path of ["/readyz/../people", "/readyz?", "//readyz", "/people", "/api/me"]) {
      expect(place("10.0.0.7:8443", {}, path)).toBe("nobody");
    }
  });
});

describe("after a login leads", () => {
  test.each(["/", "/device", "/dashboard?a=b#c", "/a//b", "/%2f%2fevil.example"])("%s to itself", (path) =>
    expect(localPath(path)).toBe(path),
  );
  test.each([
    "//evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/a\\..\\..\\evil.example",
    "https://evil.example",
    "https:evil.example",
    "javascript:alert(1)",
    "evil.example",
    " //evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "/a\r\nset-cookie: a=b",
    "/ü",
    "",
    undefined,
  ])("%j to the first page", (path) => expect(localPath(path)).toBe("/"));
});
