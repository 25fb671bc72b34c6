// Stories this file keeps: intercepts that took everybody's traffic because a header's value was read as a pattern, and
// personal intercepts that were lost behind a service which hands on only standard tracing headers.
import fc from "fast-check";
import { RE2JS } from "re2js";
import { describe, expect, test } from "vitest";
import { isAppError } from "#base/error.ts";
import type { AppError } from "#base/error.ts";
import { anyText } from "./any-text.fake.ts";
import { compileFilter } from "./compile.ts";
import { compileFlags, quote } from "./flags.ts";
import type { FilterFlags } from "./flags.ts";
import { request } from "./requests.fake.ts";
import type { RequestOptions } from "./requests.fake.ts";
import { normalizePath } from "./text.ts";

const id = "0b5c7f3c-9a1e:echo";

function matches(flags: FilterFlags, options: RequestOptions): boolean {
  return compileFilter(compileFlags(flags, id)).evaluate(request(options));
}

describe("flags", () => {
  const auto = `request.headers["x-telepresence-intercept-id"] == "${id}" || request.baggage["x-telepresence-intercept-id"] == "${id}"`;
  const table: readonly (readonly [FilterFlags, string, RequestOptions[], RequestOptions[]])[] = [
    [{}, "true", [{}, { method: "POST" }], []],
    [{ httpHeader: ["all"] }, "true", [{}], []],
    [
      { httpHeader: ["X-User=jane"] },
      'request.headers["x-user"] == "jane"',
      [{ headers: { "x-user": "jane" } }, { headers: { "X-USER": "jane" } }],
      [{}, { headers: { "x-user": "jane2" } }, { headers: { "x-user": ["jane", "bob"] } }],
    ],
    [
      { httpHeader: ["x-user: jane", "x-env=(dev|test)-\\d+"] },
      String.raw`request.headers["x-user"] == "jane" && request.headers["x-env"].matches(r"^(?:(dev|test)-\d+)$")`,
      [{ headers: { "x-user": "jane", "x-env": "dev-12" } }],
      [{ headers: { "x-user": "jane" } }, { headers: { "x-user": "jane", "x-env": "xdev-12" } }],
    ],
    [
      { httpHeader: ["x-user=ja.*"] },
      'request.headers["x-user"].matches("^(?:ja.*)$")',
      [{ headers: { "x-user": "jane" } }],
      [{ headers: { "x-user": "xja" } }],
    ],
    [{ httpHeader: ["x-user=.*"] }, '"x-user" in request.headers', [{ headers: { "X-User": "" } }], [{}]],
    [{ httpHeader: ["x-q=a=b"] }, 'request.headers["x-q"] == "a=b"', [{ headers: { "x-q": "a=b" } }], [{}]],
    [
      { httpHeader: ["auto"] },
      auto,
      [
        { headers: { "x-telepresence-intercept-id": id } },
        { headers: { baggage: `a=b, x-telepresence-intercept-id=${id}` } },
        { headers: { Baggage: ["a=b", `x-telepresence-intercept-id = ${encodeURIComponent(id)};p=1;q`] } },
      ],
      [
        {},
        { headers: { "x-telepresence-intercept-id": "other:echo" } },
        { headers: { baggage: `y=${id},z;x-telepresence-intercept-id=${id}` } },
        { headers: { cookie: `x-telepresence-intercept-id=${id}` } },
      ],
    ],
    [
      { httpHeader: ["auto"], httpMethod: ["get"] },
      `request.method == "GET" && (${auto})`,
      [{ headers: { "x-telepresence-intercept-id": id } }],
      [{ method: "POST", headers: { "x-telepresence-intercept-id": id } }, {}],
    ],
    [
      { httpMethod: ["POST", "patch"] },
      'request.method in ["POST", "PATCH"]',
      [{ method: "PATCH" }],
      [{ method: "GET" }, { method: "patch" }],
    ],
    [
      { httpPathEqual: "/café au" },
      'request.path == "/caf%C3%A9%20au"',
      [{ target: "/caf%c3%a9%20au?x=1" }],
      [{ target: "/caf%c3%a9%20au/" }],
    ],
    [
      { httpPathPrefix: "/api/" },
      'request.path.startsWith("/api/")',
      [{ target: "/api/" }, { target: "/%61pi/x" }, { target: "http://shop/api/x" }],
      [{ target: "/api" }, { target: "/x?/api/" }],
    ],
    [
      { httpPathRegex: "/v[12]/.+" },
      'request.path.matches("^(?:/v[12]/.+)$")',
      [{ target: "/v2/x" }],
      [{ target: "/v3/x" }, { target: "/a/v2/x" }],
    ],
    [
      { httpQuery: ["user=jane", "n=\\d+"] },
      String.raw`request.query["user"].exists(v, v == "jane") && request.query["n"].exists(v, v.matches(r"^(?:\d+)$"))`,
      [{ target: "/?user=bob&user=jane&n=17" }, { target: "/?n=x&n=1&%75ser=%6aane" }],
      [{ target: "/?user=jane" }, { target: "/?user=janet&n=1" }, { target: "/" }],
    ],
    [
      { httpBody: '"user": *"jane"', httpMethod: ["POST"] },
      String.raw`request.method == "POST" && request.body.matches("\"user\": *\"jane\"")`,
      [{ method: "POST", body: '{"user":"jane"}' }],
      [{ method: "POST", body: "{}" }, { method: "POST" }, { method: "GET", body: '{"user":"jane"}' }],
    ],
    [
      { grpcMethod: ["shop.v1.Cart/Add"] },
      'request.grpc.service == "shop.v1.Cart" && request.grpc.method == "Add"',
      [{ target: "/shop.v1.Cart/Add", headers: { "content-type": "application/grpc" } }],
      [
        { target: "/shop.v1.Cart/Add" },
        { target: "/shop.v1.Cart/Drop", headers: { "content-type": "application/grpc" } },
      ],
    ],
    [
      { grpcMethod: ["/a.B/*", "c.D/E"], httpHeader: ["x=1"] },
      'request.headers["x"] == "1" && (request.grpc.service == "a.B" || request.grpc.service == "c.D" && request.grpc.method == "E")',
      [{ target: "/a.B/Any", headers: { "content-type": "application/grpc", x: "1" } }],
      [{ target: "/c.D/F", headers: { "content-type": "application/grpc", x: "1" } }],
    ],
    [
      { match: ['request.method == "GET" || request.method == "HEAD"', 'request.path != "/healthz"'] },
      '(request.method == "GET" || request.method == "HEAD") && request.path != "/healthz"',
      [{}, { method: "HEAD" }],
      [{ target: "/healthz" }, { method: "POST" }],
    ],
    [
      { match: ['request.path == "/a" // only this one'], httpMethod: ["GET"] },
      'request.method == "GET" && (request.path == "/a" // only this one\n)',
      [{ target: "/a" }],
      [{ target: "/b" }],
    ],
    [
      { httpHeader: ["x=\\Qa.b"] },
      String.raw`request.headers["x"].matches(r"^(?:\Qa.b\E)$")`,
      [{ headers: { x: "a.b" } }],
      [{ headers: { x: "axb" } }],
    ],
  ];
  test.each(table)("%j compile to %s", (flags, text, taken, left) => {
    expect(compileFlags(flags, id)).toBe(text);
    expect(taken.filter((options) => !matches(flags, options))).toEqual([]);
    expect(left.filter((options) => matches(flags, options))).toEqual([]);
  });

  test.each<readonly [FilterFlags, string]>([
    [{ httpHeader: ["x-user"] }, '--http-header is "x-user"; expected NAME=REGEX, auto or all'],
    [{ httpHeader: ["x user=1"] }, '--http-header is "x user=1"; expected NAME=REGEX, auto or all'],
    [{ httpHeader: ["=1"] }, '--http-header is "=1"; expected NAME=REGEX, auto or all'],
    [{ httpHeader: ["x=a)|(?:b"] }, "--http-header is wrong at column 3: the regular expression has an unexpected )"],
    [{ httpHeader: ["x=(?!a)"] }, "--http-header is wrong at column 3: look-ahead and look-behind cannot be matched"],
    [{ httpPathEqual: "api" }, '--http-path-equal is "api"; expected a path beginning with "/"'],
    [{ httpPathPrefix: "/a?b=c" }, '--http-path-prefix is "/a?b=c"; expected a path without a query; see --http-query'],
    [{ httpPathRegex: "/a(b" }, "--http-path-regex is wrong at column 1: the regular expression has no closing )"],
    [{ httpMethod: ["GET POST"] }, '--http-method is "GET POST"; expected a method such as GET'],
    [{ httpQuery: ["=x"] }, '--http-query is "=x"; expected NAME=REGEX'],
    [{ httpQuery: ["a=[z-a]"] }, "--http-query is wrong at column 4: the regular expression has an invalid character"],
    [{ httpBody: "(a)\\1" }, "--http-body is wrong at column 4: back-references cannot be matched in linear time"],
    [{ grpcMethod: ["Cart"] }, '--grpc-method is "Cart"; expected SERVICE/METHOD or SERVICE/*'],
    [{ grpcMethod: ["*/Add"] }, '--grpc-method is "*/Add"; expected SERVICE/METHOD or SERVICE/*'],
    [{ match: ['request.metod == "GET"'] }, "--match is wrong at column 9: a request has no field metod"],
    [{ match: ['true) || (request.method == "x"'] }, "--match is wrong at column 5"],
    [{ match: ["true //", 'request.method == "GET" || ('] }, "--match is wrong at column 29"],
    [{ httpHeader: ["x=\ud800"] }, "--http-header is"],
    [{ match: Array(200).fill('request.method == "GET"') }, "the filter of all flags together is wrong at column 1"],
  ])("%j is refused", (flags, message) => {
    const error = failure(flags);
    expect(error.message).toContain(message);
  });

  test("auto needs an id", () => {
    expect(() => compileFlags({ httpHeader: ["auto"] })).toThrow("an intercept that has an id already");
  });
});

describe("any text in a flag means exactly itself", () => {
  const encode = (text: string): string => encodeURIComponent(text);

  test("quoted", () => {
    fc.assert(
      fc.property(anyText, anyText, (text, other) => {
        const filter = compileFilter(`request.body == ${quote(text)}`);
        expect(filter.evaluate(request({ body: text }))).toBe(true);
        expect(filter.evaluate(request({ body: other }))).toBe(other === text);
        expect(quote(text)).not.toMatch(/[\p{Cc}\p{Cf}\u2028]/u);
      }),
      { numRuns: 1000 },
    );
  });

  test("as a path or its beginning", () => {
    const path = anyText.map((text) => `/${text.replaceAll("?", "")}`);
    fc.assert(
      fc.property(path, path, (value, other) => {
        const same = normalizePath(value) === normalizePath(other);
        expect(matches({ httpPathEqual: value }, { target: normalizePath(value) })).toBe(true);
        expect(matches({ httpPathEqual: value }, { target: normalizePath(other) })).toBe(same);
        expect(matches({ httpPathPrefix: value }, { target: `${normalizePath(value)}z?q` })).toBe(true);
        expect(matches({ httpPathPrefix: value }, { target: normalizePath(other) })).toBe(
          normalizePath(other).startsWith(normalizePath(value)),
        );
        expect(matches({ httpPathRegex: RE2JS.quote(normalizePath(value)) }, { target: normalizePath(other) })).toBe(
          same,
        );
      }),
    );
  });

  test("as a header, a parameter or a body", () => {
    fc.assert(
      fc.property(anyText, anyText, anyText, (name, value, other) => {
        const regex = RE2JS.quote(value);
        const header = { httpHeader: [`x-a=${regex}`] };
        expect(matches(header, { headers: { "X-A": value } })).toBe(true);
        expect(matches(header, { headers: { "X-A": other } })).toBe(other === value);
        const query = { httpQuery: [`n${name.replaceAll("=", "")}=${regex}`] };
        const target = (text: string): string => `/?n${encode(name.replaceAll("=", ""))}=${encode(text)}`;
        expect(matches(query, { target: target(value) })).toBe(true);
        expect(matches(query, { target: target(other) })).toBe(other === value);
        expect(matches({ httpBody: regex }, { body: `x${value}y` })).toBe(true);
        expect(matches({ httpBody: regex }, { body: other })).toBe(other.includes(value));
      }),
      { numRuns: 300 },
    );
  });

  test("as an intercept's id, in the header and in baggage", () => {
    fc.assert(
      fc.property(anyText, anyText, (value, other) => {
        const flags = { httpHeader: ["auto"] };
        const own = `i${value}`;
        const filter = compileFilter(compileFlags(flags, own));
        const name = "x-telepresence-intercept-id";
        expect(filter.evaluate(request({ headers: { [name]: own } }))).toBe(true);
        expect(filter.evaluate(request({ headers: { baggage: `${name}=${encode(own)}` } }))).toBe(true);
        expect(filter.evaluate(request({ headers: { baggage: `${name}=${encode(`i${other}`)}` } }))).toBe(
          value === other,
        );
      }),
    );
  });

  test("as a gRPC method", () => {
    const part = anyText.map((text) => `m${text.replace(/[/\s?]/g, "")}`);
    fc.assert(
      fc.property(part, part, (service, method) => {
        const target = `/${normalizePath(service)}/${normalizePath(method)}`;
        const headers = { "content-type": "application/grpc" };
        expect(matches({ grpcMethod: [`${service}/${method}`] }, { target, headers })).toBe(true);
        expect(matches({ grpcMethod: [`${service}/${method}x`] }, { target, headers })).toBe(false);
      }),
    );
  });

  test("and whatever stands there, the answer is a filter or an error of use", () => {
    const flags = fc.record<FilterFlags>(
      {
        httpHeader: fc.array(anyText, { maxLength: 2 }),
        httpPathEqual: anyText,
        httpPathPrefix: anyText,
        httpPathRegex: anyText,
        httpMethod: fc.array(anyText, { maxLength: 2 }),
        httpQuery: fc.array(anyText, { maxLength: 2 }),
        httpBody: anyText,
        grpcMethod: fc.array(anyText, { maxLength: 2 }),
        match: fc.array(anyText, { maxLength: 1 }),
      },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(flags, (chosen) => {
        try {
          compileFilter(compileFlags(chosen, id)).evaluate(request());
        } catch (error) {
          if (!isAppError(error, "usage")) throw error;
        }
      }),
      { numRuns: 2000 },
    );
  });
});

function failure(flags: FilterFlags): AppError {
  try {
    compileFlags(flags, id);
  } catch (error) {
    if (isAppError(error, "usage")) return error;
    throw error;
  }
  throw new Error(`${JSON.stringify(flags)} compiled`);
}
