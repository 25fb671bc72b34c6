// A preview from the daemon's session to a visitor: the real cloud server, manager and agent in this process; the agent's
// port stands for the cluster's ingress. The server is on this machine's loopback, so its tunnel comes by the laptop.
import { createServer } from "node:http";
import type { Server } from "node:http";
import { once } from "node:events";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { get } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { describe, expect, test } from "vitest";
import type { Session } from "#daemon/session.ts";
import { joinTeam, provideTeam } from "#cloud/identity/people.ts";
import { compileFlags } from "#filter/flags.ts";
import type { LoginPlaces } from "#login/credentials.ts";
import { runHere } from "#test/flow/cli/run-cli.ts";
import { PreviewLab, type LoggedIn } from "#test/flow/cloud/preview-lab.ts";
import { anything, never, testAgent, testManager } from "#test/flow/manager/harness.ts";
import type { ExchangeView } from "#wire/inspector-api.ts";
import { unknownSessionId } from "#wire/control-api.ts";
import { Cluster, noNetwork, openSession, params, portOf, quiet, stack } from "./session-lab.ts";

async function answering(name: string): Promise<number> {
  const server: Server = createServer((request, response) => response.end(`${name} ${request.url?.split("?")[0]}`));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const close = (): Promise<void> =>
    new Promise((done) => {
      server.close(() => done());
      server.closeAllConnections();
    });
  stack.use({ [Symbol.asyncDispose]: close });
  return (server.address() as AddressInfo).port;
}

/** A login as `telepresence login` leaves it. */
function loginOf(url: string, { token, refreshToken }: LoggedIn): LoginPlaces & { readonly forget: () => void } {
  const folder = mkdtempSync(join(tmpdir(), "telepresence-login-"));
  stack.use({ [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) });
  const file = join(folder, "cloud.json");
  const secret = { accessToken: token, refreshToken, expiresMs: Date.now() + 3_600_000 };
  writeFileSync(file, JSON.stringify({ url, name: "Ann", secret }));
  return {
    file,
    keyring: undefined,
    replaceFile: (content) => Promise.resolve(writeFileSync(file, content)),
    tryLock: () => Promise.resolve({ [Symbol.dispose]: quiet }),
    forget: () => rmSync(file),
  };
}

async function previewLab() {
  const lab = stack.use(await PreviewLab.open());
  const cluster = new Cluster(lab.manager);
  const containerPort = await answering("application");
  const agent = stack.use(await testAgent({ number: 1, containerPort, doorName: cluster.doorOf("hello-1") }));
  cluster.agents.set("hello-1", agent);
  const resolve = cluster.resolve.bind(cluster);
  cluster.resolve = async (request) => {
    const resolved = await resolve(request);
    return { ...resolved, ports: resolved.ports.map((port) => ({ ...port, containerPort })) };
  };
  const ann = await lab.person("Ann");
  const login = loginOf(lab.url, ann);
  const session = stack.use(await openSession(cluster, "ann@laptop", noNetwork, { login }));
  const ingress = { host: "127.0.0.1", port: portOf(agent), tls: false };
  const filter = compileFlags({ httpHeader: ["auto"] }, `${unknownSessionId}:hello`);
  const wish = { ...params(await answering("laptop")), filter };
  return { lab, cluster, session, login, ann, ingress, wish };
}

const joined = (session: Session) =>
  expect.poll(() => session.cloud.membership.status?.state, { timeout: 10_000 }).toBe("connected");
const order = (ingress: { host: string; port: number; tls: boolean }) => ({
  intercept: "hello",
  ingress,
  banner: false,
  access: "public" as const,
});

describe("a preview of one's own intercept", () => {
  test("is answered by the laptop, everybody else by the pod, and ends with the intercept", async () => {
    const { lab, session, ingress, wish } = await previewLab();
    await joined(session);
    await session.intercept(wish, quiet, never);
    const made = await session.cloud.previews.create(order(ingress), quiet, never);
    expect(made.warnings).toEqual([]);
    const { host } = new URL(made.url);
    const visited = () => lab.visit({ host: host.replace(/:\d+$/, "") }, "/cart");
    expect((await visited()).body).toBe("laptop /cart");
    const direct = get({ host: ingress.host, port: ingress.port, path: "/cart", agent: false });
    expect(await text((await once(direct, "response"))[0] as NodeJS.ReadableStream)).toBe("application /cart");
    expect(session.intercepts[0]?.preview).toEqual({ id: made.id, url: made.url });
    expect((await session.cloud.previews.create(order(ingress), quiet, never)).url).toBe(made.url);
    await session.leave("hello", never);
    await expect.poll(async () => (await visited()).status, { timeout: 5000 }).toBe(404);
    expect(session.intercepts).toEqual([]);
  });

  test("has its host again at a new manager, and is forgotten when somebody else removes it", async () => {
    const { lab, cluster, session, ann, ingress, wish } = await previewLab();
    await session.intercept(wish, quiet, never);
    const made = await session.cloud.previews.create(order(ingress), quiet, never);
    const host = new URL(made.url).hostname;
    const body = async (): Promise<string> => (await lab.visit({ host }, "/")).body;
    await expect.poll(body, { timeout: 5000 }).toBe("laptop /");
    const { agentPort } = cluster.manager;
    await cluster.manager[Symbol.asyncDispose]();
    cluster.manager = stack.use(
      await testManager({
        guard: anything,
        lookup: () => Promise.resolve(["127.0.0.1"]),
        config: { ports: { laptop: 0, agent: agentPort, health: 0, direct: 0 } },
      }),
    );
    await expect.poll(body, { timeout: 15_000 }).toBe("laptop /");
    const id = session.intercepts[0]?.preview?.id ?? "";
    expect((await lab.api(ann, "DELETE", `/api/previews/${id}`)).status).toBeLessThan(300);
    session.cloud.membership.again(false);
    await expect.poll(() => session.intercepts[0]?.preview, { timeout: 5000 }).toBeUndefined();
  });

  test("is its team's, and one of another team is served beside it, until that team is left", async () => {
    const { lab, session, ann, ingress, wish } = await previewLab();
    const second = await provideTeam(lab.database, "second", 0);
    await joinTeam(lab.database, ann.personId, second.id);
    const live = async (): Promise<readonly string[]> =>
      (await lab.clusters(ann)).filter((cluster) => cluster.live).map(({ team }) => team.name);
    await session.intercept(wish, quiet, never);
    await session.cloud.membership.join("second", never);
    const made = await session.cloud.previews.create({ ...order(ingress), team: "ours" }, quiet, never);
    await expect.poll(live, { timeout: 5000 }).toEqual(["ours", "second"]);
    const visited = async () => (await lab.visit({ host: new URL(made.url).hostname }, "/")).body;
    await expect.poll(visited, { timeout: 5000 }).toBe("laptop /"); // a report may come later than the tunnel
    await lab.database.run("DELETE FROM members WHERE team_id = $1", [second.id]);
    session.cloud.membership.again(true);
    await expect.poll(live, { timeout: 15_000 }).toEqual(["ours"]);
    await expect.poll(visited, { timeout: 5000 }).toBe("laptop /");
  });

  test("is no wiretap's, and needs an intercept and a login", async () => {
    const { session, ingress, wish, login } = await previewLab();
    const { previews } = session.cloud;
    await expect(previews.create(order(ingress), quiet, never)).rejects.toThrow("you have no intercept named hello");
    const { filter: _filter, ...all } = wish;
    await session.intercept({ ...all, attachment: "wiretap" }, quiet, never);
    await expect(previews.create(order(ingress), quiet, never)).rejects.toThrow("hello is a wiretap");
    await session.leave("hello", never);
    await session.intercept(wish, quiet, never);
    login.forget();
    await expect(previews.create(order(ingress), quiet, never)).rejects.toThrow(
      "nobody is logged in at a cloud server here",
    );
    session.cloud.membership.again(true);
    await expect.poll(() => session.cloud.membership.status, { timeout: 5000 }).toBeUndefined();
  });
});

test("the commands that need no daemon agree with the server", async () => {
  const { lab, session, login, ingress, wish } = await previewLab();
  await joined(session);
  await session.intercept(wish, quiet, never);
  const made = await session.cloud.previews.create({ ...order(ingress), access: "team" }, quiet, never);
  const host = new URL(made.url).hostname;
  const home = mkdtempSync(join(tmpdir(), "telepresence-home-"));
  stack.use({ [Symbol.dispose]: () => rmSync(home, { recursive: true, force: true }) });
  mkdirSync(join(home, "telepresence"), { mode: 0o700 });
  copyFileSync(login.file, join(home, "telepresence", "cloud.json"));
  const env = { HOME: home, XDG_CONFIG_HOME: home, XDG_CACHE_HOME: home, XDG_RUNTIME_DIR: home, PATH: "/usr/bin:/bin" };
  const run = async (...words: string[]): Promise<unknown> => {
    const { stdout, stderr } = await runHere(["preview", ...words, "--format", "json"], { env });
    return JSON.parse(stdout === "" ? JSON.stringify(stderr) : stdout) as unknown;
  };
  expect(await run("list")).toMatchObject([{ intercept: "hello", access: "team", owner: "Ann", state: "live" }]);
  const { url } = (await run("share", "hello", "--expires", "1h")) as { readonly url: string };
  const { search } = new URL(url);
  const shared = (): Promise<number> =>
    lab.visit({ host }, `/${search}`, { headers: { accept: "*/*" } }).then(({ status }) => status);
  expect(await shared()).toBe(200);
  expect(await run("share", "hello", "--list")).toMatchObject([{ by: "Ann" }]);
  expect(await run("share", "hello", "--revoke")).toMatchObject({ revoked: [expect.any(String)] });
  expect(await shared()).not.toBe(200);
  expect(await run("public", "hello")).toMatchObject({ access: "public" });
  expect(await lab.visit({ host })).toMatchObject({ status: 200, body: "laptop /" });
  expect(await run("private", "hello")).toMatchObject({ access: "team" });
  expect(await run("remove", "hello")).toMatchObject({ removed: { intercept: "hello" } });
  expect(await run("list")).toEqual([]);
});

test("a cloud server that is away is told in status, and holds up nothing", async () => {
  const port = await answering("not a cloud server");
  const lab = stack.use(await PreviewLab.open());
  const login = loginOf(`http://127.0.0.1:${port}`, await lab.person("Ann"));
  const cluster = new Cluster(lab.manager);
  cluster.agents.set("hello-1", stack.use(await testAgent({ number: 1, containerPort: 8000 })));
  const session = stack.use(await openSession(cluster, "ann@laptop", noNetwork, { login }));
  expect((await session.intercept(params(port), quiet, never)).info.state).toBe("active");
  await expect.poll(() => session.cloud.membership.status?.state, { timeout: 5000 }).toBe("away");
  expect((await session.status(never)).cloud?.message).toContain("which no cloud server of Telepresence does");
});

/** Where the requests of the one intercept that there is are read. */
async function inspected(lab: PreviewLab, who: LoggedIn): Promise<string> {
  const [cluster] = await lab.until(
    () => lab.clusters(who),
    ([first]) => first?.intercepts.length === 1,
  );
  const id = encodeURIComponent(cluster?.intercepts[0]?.id ?? "");
  return `/api/clusters/${cluster?.id}/intercepts/${id}/inspect/api`;
}

describe("team mates", () => {
  test("see the requests with secrets hidden, and cannot send one again; the owner can", async () => {
    const { lab, session, ann, ingress, wish } = await previewLab();
    const bob = await lab.person("Bob");
    await joined(session);
    await session.intercept(wish, quiet, never);
    const made = await session.cloud.previews.create(order(ingress), quiet, never);
    const base = await inspected(lab, bob);
    const looking = await fetch(`${lab.url}${base}/events`, { headers: { authorization: `Bearer ${bob.token}` } });
    const events = looking.body?.getReader();
    expect(Buffer.from((await events?.read())?.value ?? []).toString()).toContain('{"kind":"exchanges"');
    const headers = { authorization: "Bearer x" };
    await lab.visit({ host: new URL(made.url).hostname }, "/cart?token=s3cr3t", { headers });
    const read = await lab.api(bob, "GET", `${base}/exchanges/1?reveal=1`);
    const view = (await read.json()) as ExchangeView;
    expect(view).toMatchObject({ intercept: "hello", target: "/cart?token=•••" });
    expect(JSON.stringify(view)).not.toContain("Bearer x");
    const replay = `${base}/exchanges/1/replay?to=laptop`;
    expect((await lab.api(bob, "POST", replay)).status).toBe(403);
    expect((await lab.api(ann, "POST", replay)).status).toBe(200);
    await events?.cancel();
  });

  test("see nothing of an intercept whose owner says so", async () => {
    const { lab, session, ann, wish } = await previewLab();
    await joined(session);
    await session.intercept({ ...wish, inspect: false }, quiet, never);
    const answer = await lab.api(ann, "GET", `${await inspected(lab, ann)}/events`);
    expect([answer.status, JSON.stringify(await answer.json())]).toEqual([
      403,
      expect.stringContaining("are not shared"),
    ]);
  });
});
