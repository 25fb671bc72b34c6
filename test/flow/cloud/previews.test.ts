// A preview from its visitor to the ingress and back, with a real cloud server, a real tunnel and a real manager.
import { once } from "node:events";
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { TestLaptop } from "#test/flow/manager/harness.ts";
import type { PreviewView } from "#wire/cloud-api.ts";
import { PreviewLab, clusterId, cookieOf } from "./preview-lab.ts";
import type { LoggedIn } from "./preview-lab.ts";

let lab: PreviewLab;
let ann: LoggedIn;
let eve: LoggedIn;
let laptop: TestLaptop;
let server: Server;
let port: number;
let answer: (request: IncomingMessage, response: ServerResponse) => void;
let preview: PreviewView;
/** The cookie of ann's visit. */
let cookie: string;

const echo = (request: IncomingMessage, response: ServerResponse): void => {
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify({ url: request.url, headers: request.headers }));
};

beforeAll(async () => {
  lab = await PreviewLab.open();
  [ann, eve] = [await lab.person("ann"), await lab.person("eve", "theirs")];
  laptop = await lab.laptop();
  await lab.join(laptop, ann);
  server = createServer((request, response) => answer(request, response));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  port = (server.address() as AddressInfo).port;
  answer = echo;
  preview = await lab.preview(laptop, ann, { port, headers: [{ name: "X-Stage", value: "preview" }] });
  cookie = await lab.enter(preview, await lab.session(ann));
});
afterAll(async () => {
  await lab[Symbol.asyncDispose]();
  server.closeAllConnections();
  server.close();
});

interface Echoed {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
}

test("a visitor's request is marked for the intercept, and ours is taken out of it", async () => {
  const { status, body } = await lab.visit(preview, "/shop?a=1&telepresence-share=tph_x", {
    headers: {
      accept: "*/*",
      cookie: `a=b; ${cookie}; telepresence-session=tps_stolen`,
      baggage: "user=1, x-telepresence-intercept-id=other",
      "x-telepresence-intercept-id": "other",
      "x-forwarded-for": "203.0.113.9",
      "x-forwarded-host": "evil.example",
      "x-real-ip": "203.0.113.9",
      referer: `http://${preview.host}/?telepresence-share=tph_x&b=2`,
      connection: "close, x-stage, x-secret",
      "x-secret": "hop",
    },
  });
  expect(status).toBe(200);
  const { url, headers } = JSON.parse(body) as Echoed;
  expect(url).toBe("/shop?a=1");
  expect(headers).toMatchObject({
    host: "hello.example.com",
    cookie: "a=b",
    "x-stage": "preview",
    "x-telepresence-intercept-id": preview.interceptId,
    baggage: `user=1,x-telepresence-intercept-id=${preview.interceptId}`,
    "x-forwarded-for": "127.0.0.1",
    "x-forwarded-host": `${preview.host}:${lab.cloud.port}`,
    "x-forwarded-proto": "http",
    referer: `http://${preview.host}/?b=2`,
  });
  expect(headers["x-real-ip"]).toBeUndefined();
  expect(headers["x-secret"]).toBeUndefined();
});

test("whoever has not logged in is sent to the login, a program is told", async () => {
  const away = await lab.visit(preview, "/a?b=c");
  expect([away.status, away.headers.location]).toEqual([303, expect.stringContaining(`${lab.url}/previews/enter?`)]);
  expect(away.headers["set-cookie"]).toEqual([
    expect.stringMatching(/^telepresence-entering=tpb_.*HttpOnly; SameSite=Lax/),
  ]);
  const program = await lab.visit(preview, "/", { headers: { accept: "*/*" } });
  expect([program.status, program.body]).toEqual([401, "This preview needs a login or a share link.\n"]);
  expect((await lab.visit(preview, "/", { method: "POST" })).status).toBe(401);
});

test("a code is good once, in one browser, for one preview, and the way back leads nowhere else", async () => {
  const session = await lab.session(ann);
  const away = await lab.visit(preview, "/a?b=c");
  const entering = cookieOf(away, "telepresence-entering");
  const back = await lab.visitBack(away, session);
  expect((await lab.visit(preview, back)).status).toBe(403);
  expect((await lab.visit(preview, back, { headers: { cookie: entering } })).status).toBe(403);

  const again = await lab.visitBack(away, session);
  const other = await lab.preview(laptop, ann, { port: port + 1 });
  expect((await lab.visit(other, again, { headers: { cookie: entering } })).status).toBe(403);

  const good = await lab.visitBack(away, session);
  const inside = await lab.visit(preview, good, { headers: { cookie: entering } });
  expect([inside.status, inside.headers.location]).toEqual([303, "/a?b=c"]);
  const visit = cookieOf(inside, "telepresence-preview");
  expect((await lab.visit(preview, "/", { headers: { cookie: visit } })).status).toBe(200);
  expect((await lab.visit(other, "/", { headers: { cookie: visit } })).status).toBe(303);
  expect((await lab.visit(preview, good, { headers: { cookie: entering } })).status).toBe(403);

  const elsewhere = good.replace(/to=[^&]*/, `to=${encodeURIComponent("//evil.example/")}`);
  const fresh = (await lab.visitBack(away, session)).replace(/to=[^&]*/, `to=${encodeURIComponent("//evil.example/")}`);
  expect(fresh).not.toBe(elsewhere);
  expect((await lab.visit(preview, fresh, { headers: { cookie: entering } })).headers.location).toBe("/");
});

test("a cookie does not count for what another preview's page asks", async () => {
  const own = `http://${preview.host}:${lab.cloud.port}`;
  const ask = async (headers: Readonly<Record<string, string>>) =>
    (await lab.visit(preview, "/", { method: "POST", headers: { cookie, accept: "*/*", ...headers } })).status;
  expect(await ask({ origin: own, "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors" })).toBe(200);
  expect(await ask({ origin: own.replace("http://", "http://another-") })).toBe(401);
  expect(await ask({ origin: "https://evil.example" })).toBe(401);
  expect(await ask({ "sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors" })).toBe(401);
  const led = { "sec-fetch-site": "same-site", "sec-fetch-mode": "navigate" };
  expect(await ask({ ...led, "sec-fetch-dest": "iframe" })).toBe(401);
  expect(await ask({ ...led, "sec-fetch-dest": "document" })).toBe(200);
});

test("another team's people are told that it is not theirs", async () => {
  const away = await lab.visit(preview);
  const page = await lab.ask(away.headers.location ?? "", await lab.session(eve));
  expect([page.status, page.body]).toEqual([403, expect.stringContaining("this preview is another team&#39;s")]);
});

test("a share link lets in until it is revoked, and leaves the address", async () => {
  const path = `/api/previews/${preview.id}/shares`;
  const shared = (await (await lab.api(ann, "POST", path, { expiresInSeconds: 60 })).json()) as {
    id: string;
    url: string;
  };
  const { search } = new URL(shared.url);
  const first = await lab.visit(preview, `/x${search}&a=1`);
  expect([first.status, first.headers.location]).toEqual([303, "/x?a=1"]);
  const visit = cookieOf(first, "telepresence-preview");
  expect((await lab.visit(preview, "/", { headers: { cookie: visit } })).status).toBe(200);
  const program = await lab.visit(preview, `/x${search}`, { headers: { accept: "*/*" } });
  expect([program.status, (JSON.parse(program.body) as Echoed).url]).toEqual([200, "/x"]);
  expect((await lab.api(ann, "DELETE", `${path}/${shared.id}`)).status).toBe(200);
  expect((await lab.visit(preview, "/", { headers: { cookie: visit } })).status).toBe(303);
  expect((await lab.visit(preview, `/x${search}`)).status).toBe(403);
});

test("a public preview is everybody's until it is not", async () => {
  await lab.api(ann, "POST", `/api/previews/${preview.id}/access`, { access: "public" });
  expect((await lab.visit(preview)).status).toBe(200);
  await lab.api(ann, "POST", `/api/previews/${preview.id}/access`, { access: "team" });
  expect((await lab.visit(preview)).status).toBe(303);
});

test("the audit log has it when a preview is made public, also where it is made anew", async () => {
  const { id, interceptId, intercept, workload, ingress } = await lab.preview(laptop, ann, { port });
  const wish = { clusterId, interceptId, intercept, workload, ingress, banner: false, access: "public" };
  const again = (await (await lab.api(ann, "POST", "/api/previews", wish)).json()) as PreviewView;
  expect([again.id, again.access]).toEqual([id, "public"]);
  const [last] = await lab.database.all<{ action: string }>("SELECT action FROM audit ORDER BY at_ms DESC LIMIT 1");
  expect(last?.action).toBe("preview.public");
});

test("an answer speaks of the preview's host, and its cookies are that host's", async () => {
  const headersOf = async (set: Readonly<Record<string, string | string[]>>) => {
    answer = (_request, response) => response.writeHead(302, set as never).end();
    return (await lab.visit(preview, "/", { headers: { cookie } })).headers;
  };
  const origin = `http://${preview.host}:${lab.cloud.port}`;
  const headers = await headersOf({
    location: "https://hello.example.com/a?b#c",
    "content-location": "//hello.example.com/d",
    refresh: "5; url=http://hello.example.com:80/e",
    "access-control-allow-origin": "https://hello.example.com",
    "set-cookie": ["a=b; Domain=.example.com; Path=/; Secure", "telepresence-preview=x; Path=/"],
    "content-security-policy": "default-src hello.example.com",
    "alt-svc": 'h3=":443"',
  });
  expect(headers).toMatchObject({
    location: `${origin}/a?b#c`,
    "content-location": `//${preview.host}:${lab.cloud.port}/d`,
    refresh: `5; url=${origin}/e`,
    "access-control-allow-origin": origin,
    "set-cookie": ["a=b; Path=/; Secure"],
    "content-security-policy": "default-src hello.example.com",
  });
  expect(headers["alt-svc"]).toBeUndefined();
  expect((await headersOf({ location: "https://elsewhere.example/x" })).location).toBe("https://elsewhere.example/x");
  expect((await headersOf({ location: "https://hello.example.com.evil.example/x" })).location).toContain("evil");
  answer = echo;
});
