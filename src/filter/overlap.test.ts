// The story this file keeps: two intercepts whose headers differed were told to be in conflict, or, because maps have no
// order, one of two that did overlap won by chance.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { randomInputs } from "#base/random-inputs.fake.ts";
import { compileFilter } from "./compile.ts";
import { compileFlags } from "./flags.ts";
import { mayOverlap } from "./overlap.ts";
import { request } from "./requests.fake.ts";

const auto = (id: string): string => compileFlags({ httpHeader: ["auto"] }, id);

describe("two filters are apart", () => {
  test.each([
    [auto("a:echo"), auto("b:echo"), `the intercept's id is "a:echo" here and is "b:echo" in the other filter`],
    [auto("a:echo"), 'request.headers["X-Telepresence-Intercept-Id"] == "b"', "the intercept's id"],
    ['request.headers["x-user"] == "jane"', '"bob" == request.headers["X-User"]', "header x-user"],
    ['request.headers.user == "jane"', 'request.headers["user"].matches("^(?:b.*)$")', "header user"],
    ['request.method == "GET"', 'request.method in ["POST", "PUT"]', `the method is "GET" here and is "POST" or "PUT"`],
    ['request.method == "GET"', 'request.method != "GET" && request.path == "/"', "the method"],
    ['request.method == "GET"', '!(request.method in ["GET", "HEAD"])', "the method"],
    ['request.path == "/a"', 'request.path == "/b"', "the path"],
    ['request.path == "/api"', 'request.path.startsWith("/api/")', "the path"],
    ['request.path.startsWith("/a/")', 'request.path.startsWith("/b")', `begins with "/a/" here and begins with "/b"`],
    ['request.path == "/v1/x"', 'request.path.matches("^/v2/")', "the path"],
    ['request.host == "a"', 'request.host == "b"', "the host"],
    ['request.cookies["s"] == "1"', 'request.cookies.s == "2"', "cookie s"],
    ['request.baggage["s"] == "1"', 'request.baggage.s == "2"', "baggage s"],
    ['request.grpc.service == "a"', 'request.grpc.service == "b"', "the gRPC service"],
    ['"x" in request.headers', '!("x" in request.headers)', "header x"],
    ['request.headers.x == "1"', '!("X" in request.headers) || request.headers.x == "2"', "header x"],
    ['request.path == "/a" || request.path == "/b"', 'request.path == "/c" || request.path == "/d"', "the path"],
    [
      '(request.path == "/a" || request.path == "/b") && request.method == "GET"',
      'request.method == "PUT"',
      "the method",
    ],
    ['!(request.path == "/a" || request.method == "GET")', 'request.path == "/a"', "the path"],
    ['!(request.path != "/a")', 'request.path == "/b"', "the path"],
    ["false", 'request.path == "/b"', "takes no request"],
  ])("%s | %s", (one, other, reason) => {
    const found = mayOverlap(compileFilter(one), compileFilter(other));
    expect(found).toMatchObject({ mayOverlap: false });
    expect(found.reason).toContain(reason);
    expect(mayOverlap(compileFilter(other), compileFilter(one)).mayOverlap).toBe(false);
  });
});

describe("two filters may overlap", () => {
  test.each([
    ["true", 'request.path == "/a"', "this filter takes every request"],
    ['request.path == "/a"', "true", "the other filter takes every request"],
    [auto("a"), auto("a"), "both filters are the same"],
    ['request.headers.user == "jane"', 'request.headers.team == "red"', "nothing in the two filters"],
    ['request.headers.user == "jane"', 'request.cookies.user == "bob"', "nothing"],
    ['request.path.startsWith("/a")', 'request.path.startsWith("/a/b")', "nothing"],
    ['request.path.matches("^/a")', 'request.path.matches("^/b")', "nothing"],
    ['request.path == "/a" || request.method == "GET"', 'request.path == "/b"', "nothing"],
    ['request.query.u.exists(v, v == "1")', 'request.query.u.exists(v, v == "2")', "nothing"],
    ['request.headers[request.method] == "a"', 'request.headers["x"] == "b"', "nothing"],
    ['request.headers.x != "a"', 'request.headers.x != "b"', "nothing"],
    [auto("a"), 'request.headers["x-telepresence-intercept-id"] != "a"', "nothing"],
    [auto("a"), '!("x-telepresence-intercept-id" in request.headers)', "nothing"],
    ['request.path == "/a" ? true : false', 'request.path == "/b"', "nothing"],
    [`request.path in [${Array(60).fill('"/a"').join(",")}]`, 'request.path == "/a"', "nothing"],
    [Array.from({ length: 40 }, (_, n) => `request.path == "/${n}"`).join(" || "), 'request.path == "/x"', "nothing"],
  ])("%s | %s", (one, other, reason) => {
    const found = mayOverlap(compileFilter(one), compileFilter(other));
    expect(found).toMatchObject({ mayOverlap: true });
    expect(found.reason).toContain(reason);
    expect(mayOverlap(compileFilter(other), compileFilter(one)).mayOverlap).toBe(true);
  });

  test("whenever some request satisfies both", () => {
    const atom = fc.constantFrom(
      'request.method == "GET"',
      'request.method in ["PUT", "GET"]',
      'request.method != "PUT"',
      'request.path == "/a"',
      'request.path.startsWith("/a")',
      'request.path.matches("^/[ab]$")',
      'request.headers.x == "1"',
      'request.headers["X"] != "1"',
      '"x" in request.headers',
      'request.grpc.method == ""',
      'request.cookies.c == "1"',
      "true",
      "false",
    );
    const { filter: expression } = fc.letrec<{ filter: string }>((tie) => ({
      filter: fc.oneof(
        { depthSize: "small" },
        atom,
        fc.tuple(tie("filter"), tie("filter")).map(([a, b]) => `(${a} && ${b})`),
        fc.tuple(tie("filter"), tie("filter")).map(([a, b]) => `(${a} || ${b})`),
        tie("filter").map((a) => `!(${a})`),
        fc.tuple(tie("filter"), tie("filter")).map(([a, b]) => `(${a} ? ${b} : ${a})`),
      ),
    }));
    const requests = ["GET", "PUT", "POST"].flatMap((method) =>
      ["/a", "/b", "/c"].flatMap((target) =>
        [{}, { x: "1" }, { x: "2", cookie: "c=1" }].map((headers) => request({ method, target, headers })),
      ),
    );
    const inputs = randomInputs(3000);
    let apart = 0;
    fc.assert(
      fc.property(expression, expression, (one, other) => {
        fc.pre(one.length + other.length < 4000);
        const a = compileFilter(one);
        const b = compileFilter(other);
        if (mayOverlap(a, b).mayOverlap) return;
        apart++;
        const both = requests.find((each) => a.evaluate(each) && b.evaluate(each));
        expect(both, `${one} | ${other}`).toBeUndefined();
      }),
      { numRuns: inputs },
    );
    expect(apart).toBeGreaterThan(inputs / 30);
  });

  // Each pattern had a budget of its own: many of them held up a manager, and with it everybody's heart-beats.
  test("gives a hostile comparison up as an overlap, on one budget for all its patterns", () => {
    const values = Array.from({ length: 60 }, (_, index) => `"${"ab".repeat(20)}${index}"`).join(",");
    const one = compileFilter(`request.path in [${values}]`);
    const patterns = Array.from(
      { length: 18 },
      (_, index) => `request.path.matches("(a|b|ab)*(a|b){${index}}z[a-z]{20}")`,
    );
    expect(mayOverlap(one, compileFilter(patterns.join(" || "))).mayOverlap).toBe(true);
    // One of them alone is within the budget, and is told apart.
    expect(mayOverlap(compileFilter(`request.path == "ab"`), compileFilter(patterns[0] ?? "")).mayOverlap).toBe(false);
  });
});
