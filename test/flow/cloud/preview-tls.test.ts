// Previews where everything is encrypted: visitors by HTTP/2 with `__Host-` cookies, the manager by a certificate that the
// laptop named, the ingress by one that is verified unless it was said otherwise.
import { once } from "node:events";
import { connect } from "node:http2";
import type { ClientHttp2Session, IncomingHttpHeaders } from "node:http2";
import { createServer } from "node:https";
import type { Server } from "node:https";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import type { TLSSocket } from "node:tls";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { TestLaptop } from "#test/flow/manager/harness.ts";
import { createIdentity } from "#tunnel/identity.ts";
import type { PreviewView } from "#wire/cloud-api.ts";
import { PreviewLab } from "./preview-lab.ts";
import type { LoggedIn } from "./preview-lab.ts";

let lab: PreviewLab;
let ann: LoggedIn;
let laptop: TestLaptop;
let ingress: Server;
let visitor: ClientHttp2Session;
let preview: PreviewView;
let port: number;
/** Of the ingress, signed by nobody else. */
let cert: string;

beforeAll(async () => {
  lab = await PreviewLab.open({ tls: true });
  ann = await lab.person("ann");
  laptop = await lab.laptop();
  await lab.join(laptop, ann);
  const { certificatePem, privateKeyPem: key } = createIdentity("hello.example.com");
  cert = certificatePem;
  ingress = createServer({ cert, key }, (request, response) => {
    const { servername } = request.socket as TLSSocket & { servername?: string };
    response.writeHead(200, { "x-sni": String(servername), "x-host": String(request.headers.host) });
    response.write("first,");
    if (request.url === "/broken") response.write("half", () => request.socket.destroy());
    else request.pipe(response);
  });
  ingress.listen(0, "127.0.0.1");
  await once(ingress, "listening");
  port = (ingress.address() as AddressInfo).port;
  preview = await makePreview(true);
  visitor = connect(`https://127.0.0.1:${lab.cloud.port}`, { rejectUnauthorized: false });
});
afterAll(async () => {
  visitor.destroy();
  await lab[Symbol.asyncDispose]();
  ingress.closeAllConnections();
  ingress.close();
});

const makePreview = (insecure: boolean, ingressCa?: string, l5host = "hello.example.com"): Promise<PreviewView> =>
  lab.preview(laptop, ann, {
    port,
    ingress: { host: "ingress.shop", port, tls: true, l5host },
    insecure,
    ...(ingressCa === undefined ? {} : { ingressCa }),
  });

async function visit(
  headers: Readonly<Record<string, string>>,
  body = "",
): Promise<{ readonly headers: IncomingHttpHeaders; readonly body: string }> {
  const authority = `${preview.host}:${lab.cloud.port}`;
  const stream = visitor.request(
    { ":authority": authority, ":path": "/", accept: "text/html", ...headers },
    { endStream: body === "" },
  );
  if (body !== "") stream.end(body);
  const [answer] = (await once(stream, "response")) as [IncomingHttpHeaders];
  return { headers: answer, body: await text(stream) };
}

test("a visitor by HTTP/2 comes in with a cookie that is that host's alone, and through to the ingress's name", async () => {
  const away = await visit({});
  expect(away.headers).toMatchObject({
    ":status": 303,
    "set-cookie": [expect.stringMatching(/^__Host-telepresence-entering=.*; Path=\/; .*; Secure$/)],
  });
  const cookie = await lab.enter(preview, await lab.session(ann));
  expect(cookie).toMatch(/^__Host-telepresence-preview=tpv_/);
  const answer = await visit({ cookie, ":method": "POST" }, "second");
  expect(answer).toMatchObject({
    headers: { ":status": 200, "x-sni": "hello.example.com", "x-host": "hello.example.com" },
    body: "first,second",
  });
  expect(answer.headers.connection).toBeUndefined();
  const plain = await visit({ cookie: cookie.replace("__Host-", "") });
  expect(plain.headers[":status"]).toBe(303);
  await expect(visit({ cookie, ":path": "/broken" })).rejects.toThrow();
  expect((await visit({ cookie })).body).toBe("first,");
});

test.each([
  [{ ":authority": "evil.example" }, 421],
  [{ host: "evil.example" }, 400],
  [{ ":path": "//evil.example/%0d%0a" }, 303],
  [{ ":method": "TRACE" }, 400],
])("what HTTP/2 can say of a host or a path is held to one meaning: %j", async (headers, status) => {
  const { headers: answer } = await visit(headers as unknown as Record<string, string>);
  expect(answer[":status"]).toBe(status);
  if (status === 303) expect(new URL(answer.location ?? "").searchParams.get("to")).toBe("/");
});

test.each([
  ["nothing", undefined, 401],
  ["a body of unknown length", "grant_type=x", 411],
])("our own pages are asked by HTTP/2 with %s", async (_what, body, status) => {
  const stream = visitor.request(
    {
      ":authority": new URL(lab.url).host,
      ":path": "/oauth/token",
      ":method": "POST",
      "content-type": "application/x-www-form-urlencoded",
    },
    { endStream: body === undefined },
  );
  if (body !== undefined) stream.end(body);
  const [headers] = (await once(stream, "response")) as [IncomingHttpHeaders];
  expect(headers[":status"]).toBe(status);
  stream.close();
});

test("an ingress whose certificate does not hold is not spoken to", async () => {
  const verified = await makePreview(false);
  const cookie = await lab.enter(verified, await lab.session(ann));
  const refused = await lab.visit(verified, "/", { headers: { cookie, accept: "*/*" } });
  expect([refused.status, refused.body]).toEqual([
    502,
    "The cluster's ingress did not answer: TLS with the ingress failed: self-signed certificate; its owner makes the preview again with --ingress-ca FILE, the authority that signed the certificate, or with --ingress-insecure.\n",
  ]);
});

test.each([
  { what: "the one that was named", ca: "own", name: "hello.example.com", status: 200, said: "first," },
  { what: "another one", ca: "another", name: "hello.example.com", status: 502, said: "self-signed certificate" },
  { what: "another host's", ca: "own", name: "other.example.com", status: 502, said: "match certificate's altnames" },
])("an ingress with a certificate of an authority of its own is judged: $what", async ({ ca, name, status, said }) => {
  const named = ca === "own" ? cert : createIdentity("hello.example.com").certificatePem;
  const verified = await makePreview(false, named, name);
  const cookie = await lab.enter(verified, await lab.session(ann));
  const answer = await lab.visit(verified, "/", { headers: { cookie, accept: "*/*" } });
  expect([answer.status, answer.body]).toEqual([status, expect.stringContaining(said)]);
  if (status === 200) expect(answer.headers).toMatchObject({ "x-sni": name, "x-host": name });
  expect(JSON.stringify(verified)).not.toContain("BEGIN CERTIFICATE"); // not in each dashboard
});
