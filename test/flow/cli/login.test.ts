// `login`, `logout` and `status` against a real server on loopback, with a browser that is played.
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import type { CommandContext } from "#cli/context.ts";
import { currentLogin } from "#login/current-login.ts";
import { parseCliEnvironment } from "#cli/config.ts";
import { Interrupts } from "#cli/interrupts.ts";
import { openLaptop } from "#cli/laptop.ts";
import { loginUse } from "#cli/cloud/login-use.ts";
import type { CloudPlaces, Machine } from "#cli/machine.ts";
import type { Cloud } from "#cloud/cloud.ts";
import { startCloud } from "#cloud/cloud.ts";
import { parseCloudConfig } from "#cloud/config.ts";
import type { Keyring } from "#host/keyring.ts";
import { runHere } from "./run-cli.ts";

let cloud: Cloud;
let url: string;
let home: string;
let env: Readonly<Record<string, string>>;
const visitor = { cookies: new Map<string, string>() };

/** What a browser does: keeps cookies, follows nothing by itself. */
async function visit(
  target: string,
  fields?: Readonly<Record<string, string>>,
): Promise<{ location: string; text: string }> {
  const cookie = [...visitor.cookies].map(([name, value]) => `${name}=${value}`).join("; ");
  const headers = { accept: "text/html", cookie, origin: url };
  const body = fields === undefined ? {} : { method: "POST", body: new URLSearchParams(fields) };
  const response = await fetch(target, { headers, redirect: "manual", ...body });
  for (const line of response.headers.getSetCookie()) {
    const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
    visitor.cookies.set(name, value);
  }
  return { location: response.headers.get("location") ?? "", text: await response.text() };
}
const hidden = (page: { readonly text: string }): Readonly<Record<string, string>> =>
  Object.fromEntries(
    [...page.text.matchAll(/<input type="hidden" name="([^"]*)" value="([^"]*)"/g)].map(([, name = "", value = ""]) => [
      name,
      value,
    ]),
  );

/** Answers the page that `login` opens. */
const answering = (answer: "yes" | "no") => async (target: string) => {
  const page = await visit(target);
  const { location } = await visit(`${url}/oauth/authorize`, { ...hidden(page), answer });
  void fetch(location).then((response) => response.text());
  return true;
};
const withBrowser =
  (openBrowser: CloudPlaces["openBrowser"], keyring?: Keyring) =>
  (real: Machine): Machine => ({
    ...real,
    openCloudPlaces: async () => ({ ...(await real.openCloudPlaces()), hasBrowser: true, openBrowser, keyring }),
  });
const file = (): string => join(home, ".config/telepresence/cloud.json");

beforeAll(async () => {
  const config = parseCloudConfig(
    ["serve", "--listen", "127.0.0.1:0", "--database", "sqlite::memory:"],
    () => undefined,
    {},
  );
  cloud = await startCloud({ config, clock: systemClock, log: silentLogger });
  url = `http://localhost:${cloud.port}`;
  const link = /http\S+\/invite\/\S+/.exec(cloud.greeting.join("\n"))?.[0] ?? "";
  const page = await visit(link);
  await visit(link, { ...hidden(page), "full-name": "Ann", name: "ann", password: "correct horse battery" });
});
afterAll(() => cloud[Symbol.asyncDispose]());
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "telepresence-login-"));
  env = { HOME: home, XDG_RUNTIME_DIR: home, PATH: "/usr/bin" };
  return () => rmSync(home, { recursive: true, force: true });
});

const contextOf = async (): Promise<CommandContext> => {
  const machine = await openLaptop(parseCliEnvironment(env, "/"));
  return { machine, clock: systemClock, interrupts: new Interrupts() } as unknown as CommandContext;
};

describe("login by the browser", () => {
  test("ends with a login that status shows and logout revokes", async () => {
    const login = await runHere(["login", "--cloud-url", url], { env, machine: withBrowser(answering("yes")) });
    expect(login).toMatchObject({ code: 0, stderr: "" });
    expect(login.stdout).toMatch(/^Launching browser authentication flow\.\.\.\nIf no page opens, go to http:/);
    expect(login.stdout).toContain(`Login successful.\nLogged in as Ann at ${url}\n`);
    expect(statSync(file()).mode & 0o777).toBe(0o600);
    const status = await runHere(["status"], { env });
    expect(status.stdout).toContain(`\nCloud: Logged in as Ann at ${url}\n`);
    const { accessToken } = (JSON.parse(readFileSync(file(), "utf8")) as { secret: { accessToken: string } }).secret;
    const me = () => fetch(`${url}/api/me`, { headers: { authorization: `Bearer ${accessToken}` } });
    expect((await me()).status).toBe(200);
    expect(await runHere(["logout"], { env })).toEqual({ code: 0, stdout: "Logged out\n", stderr: "" });
    expect((await me()).status).toBe(401);
    expect((await runHere(["status"], { env })).stdout).not.toContain("Cloud:");
    expect(await runHere(["logout"], { env })).toEqual({ code: 0, stdout: "Nobody is logged in here\n", stderr: "" });
  });
  test("keeps its tokens in the keyring where there is one", async () => {
    const kept = new Map<string, string>();
    const keyring: Keyring = {
      store: async (name, secret) => kept.set(name, secret).has(name),
      read: async (name) => kept.get(name),
      remove: async (name) => void kept.delete(name),
    };
    const machine = withBrowser(answering("yes"), keyring);
    await runHere(["login", "--cloud-url", url], { env, machine });
    expect(readFileSync(file(), "utf8")).not.toContain("tpa_");
    expect(kept.get(url)).toContain("tpa_");
    await runHere(["logout"], { env, machine });
    expect(kept.size).toBe(0);
  });
  test("is told of a no", async () => {
    const login = await runHere(["login", "--cloud-url", url], { env, machine: withBrowser(answering("no")) });
    expect(login.code).toBe(1);
    expect(login.stderr).toBe("telepresence: error: Login aborted: it was refused in the browser\n");
  });
  test("takes no answer from whoever does not know its state", async () => {
    const machine = withBrowser(async (target) => {
      const { searchParams } = new URL(target);
      const callback = searchParams.get("redirect_uri");
      expect((await fetch(`${callback}?state=wrong&code=tpc_x`)).status).toBe(404);
      expect((await fetch(`${callback}/../other?state=${searchParams.get("state")}&code=x`)).status).toBe(404);
      return answering("yes")(target);
    });
    expect((await runHere(["login", "--cloud-url", url], { env, machine })).code).toBe(0);
  });
});

describe("one command at a time changes the login", () => {
  test("so a refresh brings nothing back that login or logout has removed", async () => {
    const stored: boolean[] = [];
    const machine = (real: Machine): Machine => {
      const browsing = withBrowser(answering("yes"))(real);
      const openCloudPlaces = async () => {
        const places = await browsing.openCloudPlaces();
        // another command has it when it is asked for the first time
        const tryLock = async () => (stored.push(existsSync(file())) % 2 === 1 ? undefined : places.tryLock());
        return { ...places, tryLock };
      };
      return { ...browsing, openCloudPlaces };
    };
    expect((await runHere(["login", "--cloud-url", url], { env, machine })).code).toBe(0);
    expect((await runHere(["logout"], { env, machine })).code).toBe(0);
    expect(stored).toEqual([false, false, true, true]);
  });
  test("and a login that another one replaces ends at its own server", async () => {
    const revoked = Promise.withResolvers<string>();
    const other = createHttpServer((request, response) => {
      void text(request).then((body) => revoked.resolve(`${request.url} ${new URLSearchParams(body).get("token")}`));
      response.end("{}");
    }).listen(0, "127.0.0.1");
    await once(other, "listening");
    const elsewhere = `http://127.0.0.1:${(other.address() as AddressInfo).port}`;
    mkdirSync(dirname(file()), { recursive: true });
    const secret = { accessToken: "tpa_old", refreshToken: "tpr_old", expiresMs: 0 };
    writeFileSync(file(), JSON.stringify({ url: elsewhere, name: "Ann", secret }));
    const machine = withBrowser(answering("yes"));
    expect((await runHere(["login", "--cloud-url", url], { env, machine })).code).toBe(0);
    expect(await revoked.promise).toBe("/oauth/revoke tpr_old");
    other.close();
    other.closeAllConnections();
  });
});

describe("login without a browser", () => {
  test("shows a code, which somebody enters elsewhere", async () => {
    const clock = { ...systemClock, sleep: async () => undefined };
    const shown = Promise.withResolvers<string>();
    const login = runHere(["login", "--device", "--cloud-url", url], {
      env,
      clock,
      onStdout: (text) => {
        const code = /enter the code (\S+)/.exec(text)?.[1];
        if (code !== undefined) shown.resolve(code);
      },
    });
    const page = await visit(`${url}/device?code=${await shown.promise}`);
    await visit(`${url}/device`, { ...hidden(page), answer: "yes" });
    expect((await login).stdout).toContain("Login successful.");
  });
});

test("login by a code goes on after a question that did not reach the server", async () => {
  let polls = 0;
  const answers: Readonly<Record<string, object>> = {
    "/oauth/device": {
      device_code: "tpd_x",
      user_code: "BCDF-GHJK",
      verification_uri: "http://127.0.0.1/device",
      verification_uri_complete: "http://127.0.0.1/device?code=BCDF-GHJK",
      expires_in: 600,
      interval: 5,
    },
    "/oauth/token": { access_token: "tpa_x", refresh_token: "tpr_x", token_type: "Bearer", expires_in: 900 },
    "/api/me": { name: "Ann\u001b[2J", admin: false, teams: [] },
  };
  const shaky = createHttpServer((request, response) => {
    if (request.url === "/oauth/token" && polls++ === 0) request.socket.destroy();
    else response.end(JSON.stringify(answers[request.url ?? ""]));
  }).listen(0, "127.0.0.1");
  await once(shaky, "listening");
  const where = `http://127.0.0.1:${(shaky.address() as AddressInfo).port}`;
  const clock = { ...systemClock, sleep: async () => undefined };
  const login = await runHere(["login", "--device", "--cloud-url", where], { env, clock });
  expect(login).toMatchObject({
    code: 0,
    stdout: expect.stringContaining(`Logged in as Ann[2J at ${where}\n`) as string,
  });
  expect(polls).toBe(2);
  shaky.close();
  shaky.closeAllConnections();
});

test("a keyring that stays shut is no login that has ended, and logout says what is left", async () => {
  const shut: Keyring = { store: async () => true, read: async () => undefined, remove: async () => undefined };
  const machine = withBrowser(answering("yes"), shut);
  await runHere(["login", "--cloud-url", url], { env, machine });
  const context = await contextOf();
  const asked = currentLogin(await loginUse({ ...context, machine: machine(context.machine) }));
  await expect(asked).rejects.toThrow("is in the desktop's keyring, which does not give it here");
  expect((await runHere(["logout"], { env, machine })).stderr).toContain("so the server was not told");
});

describe("login with a key", () => {
  const newKey = async (): Promise<string> => {
    const page = await visit(`${url}/keys`, { ...hidden(await visit(`${url}/`)), name: "ci" });
    return /tpk_[\w-]+/.exec(page.text)?.[0] ?? "";
  };
  test("takes it from the environment, and says when argv shows it", async () => {
    const key = await newKey();
    const quiet = await runHere(["login", "--cloud-url", url], { env: { ...env, TELEPRESENCE_API_KEY: key } });
    expect(quiet).toMatchObject({ code: 0, stderr: "" });
    const seen = await runHere(["login", "--cloud-url", url, "--api-key", key], { env });
    expect(seen.stderr).toContain("Warning: others on this machine can see the key");
    const logout = await runHere(["logout", "--format", "json"], { env });
    expect(JSON.parse(logout.stdout)).toEqual({ url, name: "Ann", revoked: false });
  });
  test("that is wrong is refused in one sentence", async () => {
    const wrong = { ...env, TELEPRESENCE_API_KEY: `tpk_${"x".repeat(43)}` };
    const login = await runHere(["login", "--cloud-url", url], { env: wrong });
    expect(login).toMatchObject({ code: 1, stderr: `telepresence: error: ${url} does not accept this login or key\n` });
    const odd = await runHere(["login", "--cloud-url", url, "--api-key", "x"], { env });
    expect(odd.code).toBe(2);
  });
});

describe("what goes wrong", () => {
  test.each([
    [["login"], 2, "telepresence login: no cloud server is known here; expected --cloud-url https://NAME\n"],
    [["login", "--cloud-url", "http://example.com"], 2, "would carry tokens in plain text"],
    [["login", "--device", "--api-key", "-"], 2, "exclude each other"],
  ])("%j", async (words, code, complaint) => {
    const login = await runHere(words, { env });
    expect([login.code, login.stderr.includes(complaint)]).toEqual([code, true]);
  });
});

describe("dashboard", () => {
  test("logs in where nobody is, and opens the page of the server", async () => {
    const opened: string[] = [];
    const machine = withBrowser(async (target) => {
      opened.push(target);
      return target.includes("/oauth/") ? answering("yes")(target) : true;
    });
    const server = { ...env, TELEPRESENCE_CLOUD_URL: url };
    const first = await runHere(["dashboard"], { env: server, machine });
    expect(first).toMatchObject({ code: 0, stderr: "" });
    expect(first.stdout).toContain(
      `Login successful.\nLogged in as Ann at ${url}\nOpened in your browser: ${url}/dashboard\n`,
    );
    const again = await runHere(["dashboard"], { env, machine });
    expect(again.stdout).toBe(`Opened in your browser: ${url}/dashboard\n`);
    expect(opened.filter((target) => target === `${url}/dashboard`)).toHaveLength(2);
    const json = await runHere(["dashboard", "--format", "json"], { env });
    expect(JSON.parse(json.stdout)).toEqual({ url: `${url}/dashboard` });
    expect((await runHere(["dashboard"], { env })).stdout).toBe(`No browser could be opened; go to ${url}/dashboard\n`);
  });
  test("says where a server comes from, and what works without one", async () => {
    const { code, stderr } = await runHere(["dashboard"], { env });
    expect([code, stderr]).toEqual([2, expect.stringContaining("telepresence dashboard --local") as string]);
  });
});

test("a server that is not there is named with the reason", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  const login = await runHere(["login", "--cloud-url", `http://127.0.0.1:${port}`], { env });
  const reason = `http://127.0.0.1:${port} cannot be reached: nothing listens there`;
  expect(login).toMatchObject({ code: 1, stderr: expect.stringContaining(reason) as string });
});

describe("the token of a command", () => {
  const expire = (): void => {
    const login = JSON.parse(readFileSync(file(), "utf8")) as { secret: { expiresMs: number } };
    login.secret.expiresMs = 0;
    writeFileSync(file(), JSON.stringify(login), { mode: 0o600 });
  };
  test("is refreshed once, whoever asks at the same time", async () => {
    await runHere(["login", "--cloud-url", url], { env, machine: withBrowser(answering("yes")) });
    expire();
    const all = await Promise.all([1, 2, 3].map(async () => currentLogin(await loginUse(await contextOf()))));
    expect(new Set(all.map((login) => login?.token)).size).toBe(1);
    const me = await fetch(`${url}/api/me`, { headers: { authorization: `Bearer ${all[0]?.token}` } });
    expect(me.status).toBe(200);
  });
  test("is refreshed by one command, however long its server takes", async () => {
    let [requests, asked] = [0, 0];
    const answers: (() => void)[] = [];
    const answerWhenAsked = (): void => {
      if (requests > 1 || asked > 2) for (const answer of answers.splice(0)) answer();
    };
    const slow = createHttpServer((_request, response) => {
      requests++;
      const tokens = { access_token: "tpa_new", refresh_token: "tpr_new", token_type: "Bearer", expires_in: 900 };
      answers.push(() => response.end(JSON.stringify(tokens)));
      answerWhenAsked();
    }).listen(0, "127.0.0.1");
    await once(slow, "listening");
    mkdirSync(dirname(file()), { recursive: true });
    const secret = { accessToken: "tpa_old", refreshToken: "tpr_old", expiresMs: 0 };
    const where = `http://127.0.0.1:${(slow.address() as AddressInfo).port}`;
    writeFileSync(file(), JSON.stringify({ url: where, name: "Ann", secret }));
    const context = await contextOf();
    const places = await context.machine.openCloudPlaces();
    const tryLock = async () => {
      asked++;
      answerWhenAsked();
      return places.tryLock();
    };
    const machine: Machine = { ...context.machine, openCloudPlaces: async () => ({ ...places, tryLock }) };
    const all = await Promise.all([1, 2].map(async () => currentLogin(await loginUse({ ...context, machine }))));
    expect([all.map((login) => login?.token), requests]).toEqual([["tpa_new", "tpa_new"], 1]);
    slow.close();
    slow.closeAllConnections();
  });
  test("is not there when the server has ended the login, and status says so", async () => {
    await runHere(["login", "--cloud-url", url], { env, machine: withBrowser(answering("yes")) });
    const { refreshToken } = (JSON.parse(readFileSync(file(), "utf8")) as { secret: { refreshToken: string } }).secret;
    await fetch(`${url}/oauth/revoke`, { method: "POST", body: new URLSearchParams({ token: refreshToken }) });
    expire();
    await expect(currentLogin(await loginUse(await contextOf()))).rejects.toMatchObject({
      message: `the login at ${url} has expired`,
    });
    expect((await runHere(["status"], { env })).stdout).toContain(`Cloud: Login expired (Ann at ${url})`);
  });
  test("may be good still when the server says something else, and is kept", async () => {
    const refusing = createHttpServer((_request, response) => {
      response
        .writeHead(400)
        .end(JSON.stringify({ error: "temporarily_unavailable", error_description: "not now\u001b\u009b" }));
    }).listen(0, "127.0.0.1");
    await once(refusing, "listening");
    mkdirSync(dirname(file()), { recursive: true });
    const secret = { accessToken: "tpa_old", refreshToken: "tpr_old", expiresMs: 0 };
    const where = `http://127.0.0.1:${(refusing.address() as AddressInfo).port}`;
    writeFileSync(file(), JSON.stringify({ url: where, name: "Ann", secret }));
    const asking = currentLogin(await loginUse(await contextOf()));
    await expect(asking).rejects.toMatchObject({ message: `${where} did not renew the login: not now` });
    expect(JSON.parse(readFileSync(file(), "utf8"))).toMatchObject({ secret });
    refusing.close();
    refusing.closeAllConnections();
  });
  test("nobody is nobody", async () => {
    expect(await currentLogin(await loginUse(await contextOf()))).toBeUndefined();
  });
});
