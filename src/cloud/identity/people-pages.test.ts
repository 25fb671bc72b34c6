// What administrators do to others, and people to their own password, by the forms of the pages.
import { describe, expect, test } from "vitest";
import { loginsOf, openLogin } from "#cloud/oauth/logins.ts";
import { FakeCloud } from "#cloud/visitors.fake.ts";
import type { FakeBrowser } from "#cloud/visitors.fake.ts";
import { findPerson, hasAdmin } from "./people.ts";

async function lab() {
  const cloud = await FakeCloud.open();
  const root = await cloud.person("root", { admin: true });
  const browser = await cloud.browserOf(root);
  const press = async (path: string, fields: Readonly<Record<string, string>> = {}) => {
    const { csrf = "" } = (await browser.get("/")).hidden;
    return browser.post(path, { csrf, ...fields });
  };
  return { cloud, root, browser, press };
}

const audited = async (browser: FakeBrowser) =>
  [...(await browser.get("/audit")).text.matchAll(/<td>((?:person|password|invite|login|key)\.\w+)<\/td>/g)].map(
    ([, action]) => action,
  );

describe("an administrator", () => {
  test("makes another one and takes it back, and nobody takes the own", async () => {
    const { cloud, root, press } = await lab();
    await using _cloud = cloud;
    const ann = await cloud.person("ann");
    expect((await press(`/people/${ann}/admin`, { admin: "yes" })).location).toBe(`/people/${ann}`);
    expect((await findPerson(cloud.database, ann))?.admin).toBe(true);
    expect((await press(`/people/${root}/admin`, { admin: "no" })).status).toBe(409);
    await press(`/people/${ann}/admin`, { admin: "no" });
    expect((await findPerson(cloud.database, ann))?.admin).toBe(false);
  });

  test("of two who remove each other at once one stays", async () => {
    const { cloud, root, press } = await lab();
    await using _cloud = cloud;
    const ann = await cloud.person("ann", { admin: true });
    const annsBrowser = await cloud.browserOf(ann);
    const { csrf = "" } = (await annsBrowser.get("/")).hidden;
    await Promise.all([press(`/people/${ann}/remove`), annsBrowser.post(`/people/${root}/remove`, { csrf })]);
    expect(await hasAdmin(cloud.database)).toBe(true);
  });

  test("puts people into teams and takes them out", async () => {
    const { cloud, press } = await lab();
    await using _cloud = cloud;
    const ann = await cloud.person("ann", { team: "shop" });
    await press(`/people/${ann}/teams`, { team: "billing" });
    const [billing] = (await findPerson(cloud.database, ann))?.teams ?? [];
    expect(billing?.name).toBe("billing");
    await press(`/people/${ann}/teams/${billing?.id}/remove`);
    expect((await findPerson(cloud.database, ann))?.teams.map(({ name }) => name)).toEqual(["shop"]);
  });

  test("ends a laptop's login, and a person with all that was theirs", async () => {
    const { cloud, browser, press } = await lab();
    await using _cloud = cloud;
    const ann = await cloud.person("ann");
    const login = { personId: ann, device: "laptop of ann" };
    await openLogin(cloud.database, login, cloud.clock.wallMs());
    expect((await browser.get(`/people/${ann}`)).text).toContain("laptop of ann");
    await press(`/people/${ann}/logins/${(await loginsOf(cloud.database, ann))[0]?.id}/remove`);
    expect(await loginsOf(cloud.database, ann)).toEqual([]);
    const tokens = await openLogin(cloud.database, login, cloud.clock.wallMs());
    const annsBrowser = await cloud.browserOf(ann);
    expect((await press(`/people/${ann}/remove`)).location).toBe("/people");
    expect((await annsBrowser.get("/")).location).toMatch(/^\/login/);
    const headers = { authorization: `Bearer ${tokens.access_token}` };
    expect((await cloud.ask("/api/me", { headers })).status).toBe(401);
    expect(new Set(await audited(browser))).toEqual(new Set(["login.revoked", "person.removed"]));
  });

  test("finds people by a part of their name, whatever signs are in it", async () => {
    const { cloud, browser } = await lab();
    await using _cloud = cloud;
    await cloud.person("per%cent");
    await cloud.person("percent");
    const found = (await browser.get("/people?q=R%25C")).text;
    expect(found).toContain(">per%cent</a>");
    expect(found).not.toContain(">percent</a>");
    await cloud.person("Ömer");
    expect((await browser.get(`/people?q=${encodeURIComponent("Öme")}`)).text).toContain(">Ömer</a>");
  });

  test("takes an invitation back", async () => {
    const { cloud, browser, press } = await lab();
    await using _cloud = cloud;
    const link = /\/invite\/[\w-]+/.exec((await press("/invites", { team: "shop" })).text)?.[0] ?? "";
    expect((await cloud.browser().get(link)).status).toBe(200);
    const remove = /\/invites\/\w+\/remove/.exec((await browser.get("/people")).text)?.[0] ?? "";
    expect((await press(remove)).location).toBe("/people");
    expect((await cloud.browser().get(link)).status).toBe(404);
    expect((await press(remove)).status).toBe(404);
  });
});

describe("a password", () => {
  const present = "password of ann";
  const next = "another horse battery";
  const logIn = (cloud: FakeCloud, password: string) =>
    cloud.browser().submit("/login", { name: "ann", password }, "/login");

  test("is changed by who knows the present one; other browsers are logged out", async () => {
    const { cloud } = await lab();
    await using _cloud = cloud;
    const ann = await cloud.person("ann", { password: true });
    const [browser, other] = [await cloud.browserOf(ann), await cloud.browserOf(ann)];
    const wrong = await browser.submit("/password", { present: "guess", password: next });
    expect([wrong.status, wrong.text.includes("another one")]).toEqual([403, true]);
    expect((await browser.submit("/password", { present, password: "short" })).status).toBe(403);
    expect((await browser.submit("/password", { present, password: next })).location).toBe("/");
    expect((await browser.get("/")).status).toBe(200);
    expect((await other.get("/")).status).toBe(303);
    expect([(await logIn(cloud, present)).status, (await logIn(cloud, next)).status]).toEqual([403, 303]);
  });

  test("is chosen anew by an administrator's link, once, within a day, while there is that administrator", async () => {
    const { cloud, root, press } = await lab();
    await using _cloud = cloud;
    const ann = await cloud.person("ann", { password: true });
    const newLink = async () => /\/password\/[\w-]+/.exec((await press(`/people/${ann}/password`)).text)?.[0] ?? "";
    const replaced = await newLink();
    const link = await newLink();
    expect((await cloud.browser().get(replaced)).status).toBe(404);
    const browser = cloud.browser();
    expect((await browser.submit(link, { password: next })).location).toBe("/");
    expect((await browser.get("/")).text).toContain("<strong>ann</strong>");
    expect((await cloud.browser().get(link)).status).toBe(404);
    const late = await newLink();
    cloud.clock.suspend(24 * 3600_000 + 1);
    expect((await cloud.browser().get(late)).status).toBe(404);
    const orphaned = await newLink();
    await cloud.database.run("UPDATE people SET admin = 0 WHERE id = $1", [root]);
    expect((await cloud.browser().get(orphaned)).status).toBe(404);
  });

  test("of an identity provider's account is nobody's here to change", async () => {
    const { cloud, press } = await lab();
    await using _cloud = cloud;
    const ann = await cloud.person("ann");
    await cloud.database.run("UPDATE people SET issuer = 'https://issuer' WHERE id = $1", [ann]);
    expect((await (await cloud.browserOf(ann)).get("/password")).status).toBe(404);
    expect((await press(`/people/${ann}/password`)).status).toBe(409);
    expect((await press(`/people/${ann}/teams`, { team: "shop" })).status).toBe(409);
  });
});

test("the audit log is a team's, one's own, or an administrator's, in pages", async () => {
  const { cloud, browser, press } = await lab();
  await using _cloud = cloud;
  const ann = await cloud.person("ann", { team: "shop" });
  const eve = await cloud.person("eve", { team: "billing" });
  await press("/invites", { team: "shop" });
  const seenBy = async (person: string) => audited(await cloud.browserOf(person));
  expect(await seenBy(ann)).toEqual(["person.invited"]);
  expect(await seenBy(eve)).toEqual([]);
  for (let entry = 0; entry < 110; entry++) await press("/invites", { team: "shop" });
  const first = await browser.get("/audit");
  const older = /\/audit\?before=[\w-]+/.exec(first.text)?.[0] ?? "";
  const all = [first.text, (await browser.get(older)).text].map((text) => text.split("<tr>").length - 2);
  expect(all).toEqual([100, 11]);
});

test("metrics are for who has the token", async () => {
  await using cloud = await FakeCloud.open({ metricsToken: "a metrics token" });
  const read = async (token: string) =>
    (await cloud.ask("/metrics", { headers: { authorization: `Bearer ${token}` } })).status;
  expect([await read("a metrics token"), await read("a metrics tokem"), await read("")]).toEqual([200, 401, 401]);
});
