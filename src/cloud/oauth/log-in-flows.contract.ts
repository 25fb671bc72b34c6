// The ways in, as people and their laptops go them: the first administrator, an invitation, the code by the browser,
// the code that is typed, refreshing, and what ends a login. On each kind of database.
import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { inviteFirstAdmin } from "#cloud/identity/invites.ts";
import { FakeCloud } from "#cloud/visitors.fake.ts";
import type { Database, Queries, SqlValue } from "#cloud/storage/database.ts";
import { cloudClientId, deviceGrantType } from "#wire/cloud-api.ts";
import type { DeviceAnswer, TokenAnswer } from "#wire/cloud-api.ts";
import { findLogin } from "./logins.ts";

const verifier = "v".repeat(50);
const challenge = createHash("sha256").update(verifier).digest("base64url");
const redirectUri = "http://127.0.0.1:4711/callback";
const query = (change: Readonly<Record<string, string>> = {}): string =>
  `/oauth/authorize?${new URLSearchParams({
    client_id: cloudClientId,
    response_type: "code",
    redirect_uri: redirectUri,
    state: "s&1",
    code_challenge: challenge,
    code_challenge_method: "S256",
    device: "ann@laptop",
    ...change,
  })}`;
const token = (cloud: FakeCloud, fields: Readonly<Record<string, string>>) =>
  cloud.post("/oauth/token", { client_id: cloudClientId, ...fields });
const errorOf = async (answer: Response) => ((await answer.json()) as { error: string }).error;
const whoIs = async (cloud: FakeCloud, accessToken: string) => {
  const answer = await cloud.ask("/api/me", { headers: { authorization: `Bearer ${accessToken}` } });
  return answer.status === 200 ? ((await answer.json()) as { name: string }).name : answer.status;
};

/** The code that a yes in the browser brings. */
async function approve(cloud: FakeCloud, personId: string): Promise<string> {
  const browser = await cloud.browserOf(personId);
  const answer = await browser.submit(query(), { answer: "yes" }, "/oauth/authorize");
  return new URL(answer.location ?? "").searchParams.get("code") ?? "";
}
async function logIn(cloud: FakeCloud, personId: string): Promise<TokenAnswer> {
  const code = await approve(cloud, personId);
  const fields = { grant_type: "authorization_code", code, code_verifier: verifier, redirect_uri: redirectUri };
  return (await (await token(cloud, fields)).json()) as TokenAnswer;
}

/** `openDatabase` gives an empty one of its own, migrated. */
export function logInContract(name: string, openDatabase: () => Promise<Database>): void {
  const open = async (): Promise<FakeCloud> => FakeCloud.open({}, await openDatabase());
  describe(`logging in with ${name}`, () => {
    describe("the first administrator", () => {
      test("comes in by the printed link, once, and no link is made afterwards", async () => {
        await using cloud = await open();
        const link = await inviteFirstAdmin(cloud.database, cloud.clock.wallMs());
        const browser = cloud.browser();
        const account = { "full-name": "Ann", name: "ann", password: "correct horse battery" };
        expect((await browser.submit(`/invite/${link}`, account)).location).toBe("/");
        expect((await browser.get("/")).text).toContain("<strong>Ann</strong>, an administrator");
        expect((await cloud.browser().get(`/invite/${link}`)).status).toBe(404);
        expect(await inviteFirstAdmin(cloud.database, cloud.clock.wallMs())).toBeUndefined();
      });
      test("a link that was printed before the last start is of no use", async () => {
        await using cloud = await open();
        const first = await inviteFirstAdmin(cloud.database, cloud.clock.wallMs());
        await inviteFirstAdmin(cloud.database, cloud.clock.wallMs());
        expect((await cloud.browser().get(`/invite/${first}`)).status).toBe(404);
      });
      test("of two servers that started at once one link is of no more use when the other was used", async () => {
        await using cloud = await open();
        const nowMs = cloud.clock.wallMs();
        const first = await inviteFirstAdmin(cloud.database, nowMs);
        const kept = await cloud.database.all("SELECT hash, expires_ms FROM invites");
        const second = await inviteFirstAdmin(cloud.database, nowMs);
        const again = `INSERT INTO invites (hash, admin, created_ms, expires_ms) VALUES ($1, 1, $2, $3)`;
        await cloud.database.run(again, [String(kept[0]?.["hash"]), nowMs, Number(kept[0]?.["expires_ms"])]);
        const account = { "full-name": "Ann", name: "ann", password: "correct horse battery" };
        const late = cloud.browser();
        const { hidden } = await late.get(`/invite/${second}`);
        expect((await cloud.browser().submit(`/invite/${first}`, account)).status).toBe(303);
        expect((await late.get(`/invite/${second}`)).status).toBe(404);
        expect((await late.post(`/invite/${second}`, { ...hidden, ...account, name: "eve" })).status).toBe(404);
      });
      test("a link is good for a day", async () => {
        await using cloud = await open();
        const link = await inviteFirstAdmin(cloud.database, cloud.clock.wallMs());
        cloud.clock.suspend(24 * 3600_000 + 1);
        expect((await cloud.browser().get(`/invite/${link}`)).status).toBe(404);
      });
    });

    describe("an invited person", () => {
      test("chooses a name and a password, and logs in with them again", async () => {
        await using cloud = await open();
        const link = await cloud.invite();
        const account = { "full-name": 'Bob <b>"', name: "Bob", password: "correct horse battery" };
        const browser = cloud.browser();
        await browser.submit(`/invite/${link}`, account);
        const home = await browser.get("/");
        expect(home.text).toContain("Bob &lt;b&gt;&quot;");
        expect(home.text).not.toContain("an administrator");
        await browser.post("/logout", home.hidden);
        expect((await browser.get("/")).location).toBe("/login?next=%2F");
        const back = await browser.submit(
          "/login?next=/device",
          { name: "BOB", password: "correct horse battery" },
          "/login",
        );
        expect(back.location).toBe("/device");
      });
      test("needs a host who is an administrator still", async () => {
        await using cloud = await open();
        const link = await cloud.invite(true);
        expect((await cloud.browser().get(`/invite/${link}`)).status).toBe(200);
        await cloud.database.run("UPDATE people SET admin = 0");
        expect((await cloud.browser().get(`/invite/${link}`)).status).toBe(404);
      });
      test("keeps the link when the name is taken or the password too short", async () => {
        await using cloud = await open();
        const link = await cloud.invite();
        const browser = cloud.browser();
        const taken = await browser.submit(`/invite/${link}`, {
          "full-name": "H",
          name: "host",
          password: "long enough 1",
        });
        expect([taken.status, taken.text.includes("the name host is taken")]).toEqual([403, true]);
        const short = await browser.submit(`/invite/${link}`, { "full-name": "B", name: "bob", password: "short" });
        expect(short.text).toContain("the password has 5 characters");
        expect(
          (await browser.submit(`/invite/${link}`, { "full-name": "B", name: "bob", password: "long enough 1" }))
            .status,
        ).toBe(303);
      });
    });

    describe("passwords", () => {
      test("are not guessed: after ten wrong ones the name waits, the right one included, from wherever", async () => {
        await using cloud = await open();
        await cloud.person("ann", { password: true });
        const page = cloud.browser();
        const send = (password: string) => page.submit("/login", { name: "ann", password });
        for (let tries = 0; tries < 10; tries++) expect((await send("wrong")).status).toBe(403);
        expect((await send("password of ann")).status).toBe(429);
        await cloud.clock.advance(61_000);
        expect((await send("password of ann")).status).toBe(303);
      }, 15_000);
      test("are not guessed faster by guessing all at once, and right ones do not count", async () => {
        await using cloud = await open();
        await cloud.person("ann", { password: true });
        const page = cloud.browser();
        const right = { name: "ann", password: "password of ann" };
        for (let times = 0; times < 3; times++) expect((await page.submit("/login", right)).status).toBe(303);
        const { csrf = "" } = (await page.get("/login")).hidden;
        const answers = await Promise.all(
          Array.from({ length: 14 }, () => page.post("/login", { csrf, name: "ann", password: "wrong" })),
        );
        expect(answers.filter(({ status }) => status === 403)).toHaveLength(10);
        expect(answers.filter(({ status }) => status === 429)).toHaveLength(4);
      }, 15_000);
      test("lead to no other site", async () => {
        await using cloud = await open();
        await cloud.person("ann", { password: true });
        for (const next of ["https://evil.example", "//evil.example", "/\\evil.example", "/a\nb", "javascript:1"]) {
          const answer = await cloud.browser().submit("/login", { name: "ann", password: "password of ann", next });
          expect([next, answer.location]).toEqual([next, "/"]);
        }
      });
    });

    describe("a laptop with a browser", () => {
      test("gets tokens for the code, its verifier and its own address", async () => {
        await using cloud = await open();
        const ann = await cloud.person("ann");
        const browser = await cloud.browserOf(ann);
        const page = await browser.get(query());
        expect(page.text).toContain("<strong>ann@laptop</strong>");
        expect(page.headers.get("content-security-policy")).toContain("form-action 'self' http://127.0.0.1:4711");
        const answer = await browser.post("/oauth/authorize", { ...page.hidden, answer: "yes" });
        const target = new URL(answer.location ?? "");
        expect([target.origin + target.pathname, target.searchParams.get("state")]).toEqual([redirectUri, "s&1"]);
        const code = target.searchParams.get("code") ?? "";
        const fields = { grant_type: "authorization_code", code, code_verifier: verifier, redirect_uri: redirectUri };
        const tokens = (await (await token(cloud, fields)).json()) as TokenAnswer;
        expect(await whoIs(cloud, tokens.access_token)).toBe("ann");
        expect(await errorOf(await token(cloud, fields))).toBe("invalid_grant");
        cloud.clock.suspend(15 * 60_000 + 1);
        expect(await whoIs(cloud, tokens.access_token)).toBe(401);
      });
      test("is told of a no", async () => {
        await using cloud = await open();
        const browser = await cloud.browserOf(await cloud.person("ann"));
        const answer = await browser.submit(query(), { answer: "no" }, "/oauth/authorize");
        expect(answer.location).toBe(`${redirectUri}?state=s%261&error=access_denied`);
      });
      test.each([
        ["another verifier", { code_verifier: "w".repeat(50) }],
        ["another address", { redirect_uri: "http://127.0.0.1:4712/callback" }],
        ["another client", { client_id: "other" }],
      ])("gets nothing with %s", async (_, change) => {
        await using cloud = await open();
        const code = await approve(cloud, await cloud.person("ann"));
        const fields = { grant_type: "authorization_code", code, code_verifier: verifier, redirect_uri: redirectUri };
        expect((await token(cloud, { ...fields, ...change })).status).toBeGreaterThanOrEqual(400);
      });
      test("gets nothing a minute later", async () => {
        await using cloud = await open();
        const code = await approve(cloud, await cloud.person("ann"));
        cloud.clock.suspend(60_001);
        const fields = { grant_type: "authorization_code", code, code_verifier: verifier, redirect_uri: redirectUri };
        expect(await errorOf(await token(cloud, fields))).toBe("invalid_grant");
      });
      test.each([
        ["https://evil.example/callback"],
        ["http://127.0.0.1:80@evil.example/callback"],
        ["http://127.0.0.1.evil.example:80/callback"],
        ["http://localhost:4711/callback"],
        ["http://127.0.0.1:4711/callback?x"],
        ["http://127.0.0.1:99999/callback"],
      ])("is never %s", async (uri) => {
        await using cloud = await open();
        const browser = await cloud.browserOf(await cloud.person("ann"));
        const page = await browser.get(query({ redirect_uri: uri }));
        expect([page.status, page.location]).toEqual([400, undefined]);
      });
    });

    describe("a refresh token", () => {
      const refresh = (cloud: FakeCloud, refreshToken: string) =>
        token(cloud, { grant_type: "refresh_token", refresh_token: refreshToken });

      test("is good once; who sends it again ends the login for both", async () => {
        await using cloud = await open();
        const first = await logIn(cloud, await cloud.person("ann"));
        const second = (await (await refresh(cloud, first.refresh_token)).json()) as TokenAnswer;
        expect(await whoIs(cloud, first.access_token)).toBe(401);
        expect(await whoIs(cloud, second.access_token)).toBe("ann");
        expect(await errorOf(await refresh(cloud, first.refresh_token))).toBe("invalid_grant");
        expect(await whoIs(cloud, second.access_token)).toBe(401);
        expect(await errorOf(await refresh(cloud, second.refresh_token))).toBe("invalid_grant");
        const entries = await cloud.database.all("SELECT action FROM audit WHERE action = 'login.reused'");
        expect(entries).toHaveLength(1);
      });
      test("is good once more when the answer was lost, and then the lost one is not", async () => {
        await using cloud = await open();
        const first = await logIn(cloud, await cloud.person("ann"));
        await whoIs(cloud, first.access_token);
        const lost = (await (await refresh(cloud, first.refresh_token)).json()) as TokenAnswer;
        const third = (await (await refresh(cloud, first.refresh_token)).json()) as TokenAnswer;
        expect(await whoIs(cloud, lost.access_token)).toBe(401);
        expect(await whoIs(cloud, third.access_token)).toBe("ann");
        expect(await errorOf(await refresh(cloud, lost.refresh_token))).toBe("invalid_grant");
        expect(await whoIs(cloud, third.access_token)).toBe(401);
      });
      test("is good once more also when the old access token was used just then", async () => {
        await using cloud = await open();
        const first = await logIn(cloud, await cloud.person("ann"));
        const between: Queries = {
          all: async <T extends object>(sql: string, values?: readonly SqlValue[]) => {
            const rows = await cloud.database.all<T>(sql, values);
            await refresh(cloud, first.refresh_token); // its answer is lost
            return rows;
          },
          run: (sql, values) => cloud.database.run(sql, values),
        };
        await findLogin(between, first.access_token, cloud.clock.wallMs());
        const again = (await (await refresh(cloud, first.refresh_token)).json()) as TokenAnswer;
        expect(await whoIs(cloud, again.access_token)).toBe("ann");
      });
      test("is remembered when it was spent, for two months", async () => {
        await using cloud = await open();
        const tokens = [await logIn(cloud, await cloud.person("ann"))];
        const at = (place: number): TokenAnswer => tokens.at(place) as TokenAnswer;
        for (let month = 1; month < 6; month++) {
          cloud.clock.suspend(30 * 24 * 3600_000);
          tokens.push((await (await refresh(cloud, at(-1).refresh_token)).json()) as TokenAnswer);
          await whoIs(cloud, at(-1).access_token);
        }
        expect(await cloud.database.all("SELECT hash FROM spent_tokens")).toHaveLength(3);
        expect(await errorOf(await refresh(cloud, at(0).refresh_token))).toBe("invalid_grant");
        expect(await whoIs(cloud, at(-1).access_token)).toBe("ann");
        expect(await errorOf(await refresh(cloud, at(2).refresh_token))).toBe("invalid_grant");
        expect(await whoIs(cloud, at(-1).access_token)).toBe(401);
      });
      test("ends with logout, by either token", async () => {
        await using cloud = await open();
        const ann = await cloud.person("ann");
        for (const which of ["access_token", "refresh_token"] as const) {
          const tokens = await logIn(cloud, ann);
          expect((await cloud.post("/oauth/revoke", { token: tokens[which] })).status).toBe(200);
          expect(await whoIs(cloud, tokens.access_token)).toBe(401);
          expect(await errorOf(await refresh(cloud, tokens.refresh_token))).toBe("invalid_grant");
        }
      });
      test("ends when nobody uses the login for two months", async () => {
        await using cloud = await open();
        const tokens = await logIn(cloud, await cloud.person("ann"));
        cloud.clock.suspend(61 * 24 * 3600_000);
        expect(await errorOf(await refresh(cloud, tokens.refresh_token))).toBe("invalid_grant");
      });
    });

    describe("a device without a browser", () => {
      const start = async (cloud: FakeCloud) =>
        (await (
          await cloud.post("/oauth/device", { client_id: cloudClientId, device: "build-7" })
        ).json()) as DeviceAnswer;
      const poll = (cloud: FakeCloud, { device_code }: DeviceAnswer) =>
        token(cloud, { grant_type: deviceGrantType, device_code });

      test("is logged in when a person has typed its code and said yes, once", async () => {
        await using cloud = await open();
        const device = await start(cloud);
        expect(device.user_code).toMatch(/^[B-Z]{4}-[B-Z]{4}$/);
        expect(await errorOf(await poll(cloud, device))).toBe("authorization_pending");
        expect(await errorOf(await poll(cloud, device))).toBe("slow_down");
        const browser = await cloud.browserOf(await cloud.person("ann"));
        const typed = device.user_code.toLowerCase().replace("-", " ");
        const page = await browser.get(`/device?code=${encodeURIComponent(typed)}`);
        expect(page.text).toContain("<strong>build-7</strong>");
        expect((await browser.post("/device", { ...page.hidden, answer: "yes" })).text).toContain("is logged in");
        const tokens = (await (await poll(cloud, device)).json()) as TokenAnswer;
        expect(await whoIs(cloud, tokens.access_token)).toBe("ann");
        expect(await errorOf(await poll(cloud, device))).toBe("expired_token");
      });
      test("is told of a no, and of its code's end", async () => {
        await using cloud = await open();
        const browser = await cloud.browserOf(await cloud.person("ann"));
        const refused = await start(cloud);
        await browser.submit(`/device?code=${refused.user_code}`, { answer: "no" }, "/device");
        expect(await errorOf(await poll(cloud, refused))).toBe("access_denied");
        const late = await start(cloud);
        cloud.clock.suspend(10 * 60_000 + 1);
        expect(await errorOf(await poll(cloud, late))).toBe("expired_token");
        expect((await browser.get(`/device?code=${late.user_code}`)).status).toBe(404);
      });
      test("codes are not guessed", async () => {
        await using cloud = await open();
        const browser = await cloud.browserOf(await cloud.person("ann"));
        for (let tries = 0; tries < 10; tries++) expect((await browser.get("/device?code=BCDF-BCDF")).status).toBe(404);
        expect((await browser.get("/device?code=BCDF-BCDF")).status).toBe(429);
      });
    });
  });
}
