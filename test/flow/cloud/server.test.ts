// The one port of the cloud server: TLS with HTTP/2, whose host a request is for, and what a laptop says of a
// certificate that it does not trust.
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:http2";
import { request } from "node:https";
import type { IncomingMessage } from "node:http";
import { connect as connectTcp } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { text } from "node:stream/consumers";
import { setImmediate as turn } from "node:timers/promises";
import { connect as connectTls } from "node:tls";
import { afterAll, beforeAll, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import type { Cloud } from "#cloud/cloud.ts";
import { startCloud } from "#cloud/cloud.ts";
import type { CloudConfig } from "#cloud/config.ts";
import { parseCloudConfig } from "#cloud/config.ts";
import { CloudServer } from "#cloud/web/server.ts";
import type { Handlers } from "#cloud/web/server.ts";
import { createIdentity } from "#tunnel/identity.ts";
import { runHere } from "#test/flow/cli/run-cli.ts";

let cloud: Cloud;
let config: CloudConfig;
let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "telepresence-cloud-server-"));
  const { certificatePem, privateKeyPem } = createIdentity("localhost");
  writeFileSync(join(folder, "cert.pem"), certificatePem);
  writeFileSync(join(folder, "key.pem"), privateKeyPem);
  const tls = ["--tls-cert", join(folder, "cert.pem"), "--tls-key", join(folder, "key.pem")];
  const words = ["serve", "--listen", "127.0.0.1:0", "--database", "sqlite::memory:", ...tls];
  config = parseCloudConfig(words, () => undefined, {});
  cloud = await startCloud({ config, clock: systemClock, log: silentLogger });
});
afterAll(async () => {
  await cloud[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

async function get(
  path: string,
  host: string,
): Promise<{ status: number | undefined; headers: IncomingMessage["headers"]; body: string }> {
  const options = { host: "127.0.0.1", port: cloud.port, path, headers: { host, accept: "text/html" }, agent: false };
  const sent = request({ ...options, rejectUnauthorized: false }).end();
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  return { status: response.statusCode, headers: response.headers, body: await text(response) };
}

test("its own host gets pages, over HTTPS with HSTS and cookies that no other host can set", async () => {
  const page = await get("/login", `localhost:${cloud.port}`);
  expect(page.status).toBe(200);
  expect(page.headers["strict-transport-security"]).toBe("max-age=31536000");
  expect(page.headers["set-cookie"]?.[0]).toMatch(
    /^__Host-telepresence-browser=tpb_[\w-]+; .*HttpOnly; Secure; SameSite=Lax/,
  );
});

test("says in its first lines where it is, for whom its previews are, and how the first person comes in", async () => {
  const words = ["serve", "--listen", "127.0.0.1:0", "--database", "sqlite::memory:"];
  const own = { clock: systemClock, log: silentLogger };
  await using toTryOut = await startCloud({ config: parseCloudConfig(words, () => undefined, {}), ...own });
  const url = `http://localhost:${toTryOut.port}`;
  const invited = (at: string): unknown =>
    expect.stringMatching(
      new RegExp(`^The first administrator comes in here, once, within a day: ${RegExp.escape(at)}/invite/[\\w-]+$`),
    );
  expect(toTryOut.greeting).toEqual([
    `Telepresence's cloud server is at ${url}`,
    `Previews are at http://NAME.preview.localhost:${toTryOut.port} (to try out, on this machine only)`,
    invited(url),
  ]);
  const real = ["--url", "https://tele.example.com", "--preview-domain", "preview.example.net"];
  await using forTeams = await startCloud({
    config: parseCloudConfig([...words, ...real], () => undefined, {}),
    ...own,
  });
  expect(forTeams.greeting).toEqual([
    "Telepresence's cloud server is at https://tele.example.com",
    "Previews are at https://NAME.preview.example.net",
    invited("https://tele.example.com"),
  ]);
});

test("another host name gets nothing but the server's address, and probes are answered by any name", async () => {
  expect(await get("/login", "evil.example")).toMatchObject({
    status: 421,
    body: expect.stringContaining("localhost") as string,
  });
  expect(await get("/login", `localhost:${cloud.port}.evil.example`)).toMatchObject({ status: 421 });
  expect(await get("/readyz", "10.0.0.7:8443")).toMatchObject({ status: 200, body: "ok\n" });
  expect(await get("/healthz", "10.0.0.7:8443")).toMatchObject({ status: 200 });
});

test("HTTP/2 is spoken", async () => {
  const session = connect(`https://localhost:${cloud.port}`, { rejectUnauthorized: false, host: "127.0.0.1" });
  const stream = session.request({ ":path": "/assets/style.css", ":authority": `localhost:${cloud.port}` }).end();
  const [headers] = (await once(stream, "response")) as [Readonly<Record<string, unknown>>];
  expect(headers[":status"]).toBe(200);
  expect(await text(stream)).toContain("prefers-color-scheme: dark");
  expect(session.remoteSettings).toMatchObject({ maxConcurrentStreams: 100, maxHeaderListSize: 32 * 1024 });
  session.close();
});

test("a caller that says nothing does not hold up its end", async () => {
  const server = await CloudServer.listen(config);
  const silent = connectTcp(server.port, "127.0.0.1");
  silent.on("error", () => undefined);
  const second = connectTls({ port: server.port, host: "127.0.0.1", rejectUnauthorized: false });
  await once(second, "secureConnect"); // so the one before has been accepted
  second.destroy();
  const ended = once(silent, "close");
  await server[Symbol.asyncDispose]();
  await ended;
});

/** A server whose `/slow` is answered when the test says so, and whose `/live` is upgraded. */
async function openSlow(tls: CloudConfig["tls"]) {
  const { tls: _tls, ...plain } = config;
  const own = { ...plain, tls, url: new URL("http://cloud.test") };
  const server = await CloudServer.listen(own);
  const asked = Promise.withResolvers<(text: string) => void>();
  const fetchSlow = () => new Promise<Response>((resolve) => asked.resolve((said) => resolve(new Response(said))));
  const upgrade = (_request: IncomingMessage, socket: Duplex) => {
    upgraded.push(socket);
    socket.write("HTTP/1.1 101 x\r\n\r\n");
  };
  const upgraded: Duplex[] = [];
  const app = { fetch: fetchSlow } as unknown as Handlers["app"];
  server.serve(own, { app, previews: undefined, upgrades: new Map([["/live", { upgrade }]]) });
  const dial = () =>
    tls === undefined
      ? connectTcp(server.port, "127.0.0.1")
      : connectTls({ port: server.port, host: "127.0.0.1", rejectUnauthorized: false });
  return { server, asked: asked.promise, upgraded, dial };
}

test.each(["TLS", "plain HTTP"])(
  "a request at shutdown is answered whole, also when an upgraded connection ends, and no idle one is waited for, by %s",
  async (by) => {
    const { server, asked, upgraded, dial } = await openSlow(by === "TLS" ? config.tls : undefined);
    const [slow, live, idle] = [dial(), dial(), dial()];
    idle.write("GET /another HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    await once(idle, "data");
    slow.write("GET /slow HTTP/1.1\r\nHost: cloud.test\r\n\r\n");
    live.write("GET /live HTTP/1.1\r\nHost: cloud.test\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    const answerIt = await asked;
    await once(live, "data");
    const ended = server.close(new Promise(() => undefined));
    const gone = once(live, "close");
    upgraded[0]?.destroy();
    await gone;
    await turn(); // whoever cuts would have done so
    answerIt("whole");
    expect(await text(slow)).toMatch(/^HTTP\/1.1 200[^]*whole/);
    await ended;
  },
);

test.each([["h2"], ["http/1.1"]])(
  "who is in the middle of TLS's greetings at shutdown, to speak %s, is not waited for",
  async (protocol) => {
    const { server, asked, dial } = await openSlow(config.tls);
    const [early, slow] = [connectTcp(server.port, "127.0.0.1"), dial()];
    slow.write("GET /slow HTTP/1.1\r\nHost: cloud.test\r\n\r\n");
    const answerIt = await asked; // so the one before has been accepted
    const ended = server.close(new Promise(() => undefined));
    const late = connectTls({ socket: early, ALPNProtocols: [protocol], rejectUnauthorized: false });
    late.on("error", () => undefined);
    const gone = once(late, "close");
    late.resume();
    await gone;
    answerIt("whole");
    expect(await text(slow)).toMatch(/whole/);
    await ended;
  },
);

test("a certificate that is not trusted is told in one sentence", async () => {
  const env = { HOME: folder, XDG_RUNTIME_DIR: folder };
  const login = await runHere(["login", "--cloud-url", `https://localhost:${cloud.port}`], { env });
  expect(login.code).toBe(1);
  expect(login.stderr).toMatch(
    /^telepresence: error: the certificate of https:\/\/localhost:\d+ is not trusted here: .*NODE_EXTRA_CA_CERTS.*\n$/,
  );
});
