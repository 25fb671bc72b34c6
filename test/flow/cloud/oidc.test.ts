// Logging in by an outside OpenID Connect provider: a real one (oidc-provider) on loopback, visited over HTTP.
import { once } from "node:events";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { createServer } from "node:http";
import { Provider } from "oidc-provider";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import type { Cloud } from "#cloud/cloud.ts";
import { startCloud } from "#cloud/cloud.ts";
import type { CloudConfig } from "#cloud/config.ts";
import { parseCloudConfig } from "#cloud/config.ts";

/** Groups of whoever logs in under a name. */
const groups: Record<string, readonly string[]> = { ann: ["blue", "ops"], bob: ["red"], eve: [] };
let providerServer: Server;
let cloud: Cloud;
let url: string;

beforeAll(async () => {
  providerServer = createServer();
  providerServer.listen(0, "127.0.0.1");
  await once(providerServer, "listening");
  const issuer = `http://127.0.0.1:${(providerServer.address() as AddressInfo).port}`;
  const given = parseCloudConfig(
    ["serve", "--listen", "127.0.0.1:0", "--database", "sqlite::memory:"],
    () => undefined,
    {},
  );
  const config: CloudConfig = {
    ...given,
    oidc: {
      issuer: new URL(issuer),
      clientId: "telepresence",
      clientSecret: "a secret of both",
      groupsClaim: "groups",
      adminGroup: "ops",
    },
  };
  cloud = await startCloud({ config, clock: systemClock, log: silentLogger });
  url = `http://localhost:${cloud.port}`;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: "telepresence",
        client_secret: "a secret of both",
        redirect_uris: [`${url}/login/oidc/callback`],
        grant_types: ["authorization_code"],
      },
    ],
    claims: { openid: ["sub"], profile: ["name", "groups"], email: ["email"] },
    findAccount: (_context, id) => ({
      accountId: id,
      claims: () => ({ sub: id, name: `Person ${id}`, email: `${id}@example.com`, groups: [...(groups[id] ?? [])] }),
    }),
    cookies: { keys: ["of the test"] },
    features: { devInteractions: { enabled: true } },
  });
  providerServer.on("request", provider.callback());
});
afterAll(async () => {
  await cloud[Symbol.asyncDispose]();
  providerServer.closeAllConnections();
  providerServer.close();
});

/** Follows redirects by itself, with the cookies of each host. */
class Visitor {
  readonly #cookies = new Map<string, Map<string, string>>();

  async visit(
    target: string,
    fields?: Readonly<Record<string, string>>,
  ): Promise<{ url: string; status: number; text: string }> {
    const { host } = new URL(target);
    const jar = this.#cookies.get(host) ?? new Map<string, string>();
    this.#cookies.set(host, jar);
    const headers = { accept: "text/html", cookie: [...jar].map(([name, value]) => `${name}=${value}`).join("; ") };
    const body = fields === undefined ? {} : { method: "POST", body: new URLSearchParams(fields) };
    const response = await fetch(target, { headers, redirect: "manual", ...body });
    for (const line of response.headers.getSetCookie()) {
      const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
      if (value === "") jar.delete(name);
      else jar.set(name, value);
    }
    const location = response.headers.get("location");
    const text = await response.text();
    if (location !== null) return this.visit(new URL(location, target).href);
    return { url: target, status: response.status, text };
  }

  /** As far as the page that comes after the provider's. */
  async logIn(name: string, path = "/login/oidc") {
    let page = await this.visit(`${url}${path}`);
    for (const prompt of ["login", "consent"]) {
      const form = /<form[^>]*action="([^"]+)"/.exec(page.text)?.[1] ?? "";
      if (!page.text.includes(`name="prompt" value="${prompt}"`)) continue;
      page = await this.visit(new URL(form, page.url).href, { prompt, login: name, password: "any" });
    }
    return page;
  }

  async me(): Promise<unknown> {
    const { text } = await this.visit(`${url}/api/me`);
    return JSON.parse(text) as unknown;
  }
}

describe("a person of the provider", () => {
  test("is known by it: name, groups as teams, administrators by their group", async () => {
    const ann = new Visitor();
    expect(await ann.logIn("ann")).toMatchObject({ url: `${url}/`, status: 200 });
    expect(await ann.me()).toEqual({
      name: "Person ann",
      email: "ann@example.com",
      admin: true,
      teams: [
        { id: expect.any(String) as string, name: "blue" },
        { id: expect.any(String) as string, name: "ops" },
      ],
    });
  });
  test("loses what the provider took away, at the next login", async () => {
    groups["ann"] = ["blue"];
    const ann = new Visitor();
    await ann.logIn("ann");
    expect(await ann.me()).toMatchObject({ admin: false, teams: [{ name: "blue" }] });
  });
  test("without groups is in the team of everyone", async () => {
    const eve = new Visitor();
    await eve.logIn("eve");
    expect(await eve.me()).toMatchObject({ admin: false, teams: [{ name: "everyone" }] });
  });
  test("comes to the page that asked for the login, and to no other site", async () => {
    const bob = new Visitor();
    expect((await bob.logIn("bob", "/login/oidc?next=/device")).url).toBe(`${url}/device`);
    expect((await new Visitor().logIn("bob", "/login/oidc?next=//evil.example")).url).toBe(`${url}/`);
  });
  test("has no password here, and needs no account made", async () => {
    const visitor = new Visitor();
    const page = await visitor.visit(`${url}/login`);
    expect(page.text).not.toContain('type="password"');
    expect(page.text).toContain('href="/login/oidc?next=%2F"');
  });
});

test("no link makes an administrator where the provider says who is one", () => {
  expect(cloud.greeting.join()).not.toContain("/invite/");
});

describe("an answer", () => {
  test("that this browser did not ask for is refused", async () => {
    const stranger = await new Visitor().visit(`${url}/login/oidc/callback?code=x&state=y`);
    expect([stranger.status, stranger.text.includes("was not begun in this browser")]).toEqual([403, true]);
  });
  test("with another state is refused", async () => {
    const visitor = new Visitor();
    await visitor.visit(`${url}/login/oidc`); // leaves the cookie
    const answer = await visitor.visit(`${url}/login/oidc/callback?code=x&state=y`);
    expect([answer.status, answer.text.includes("did not log this browser in")]).toEqual([403, true]);
  });
});
