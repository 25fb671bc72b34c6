// Every route as everybody: nobody, a member of another team, the member whose it is, an administrator. A route that is
// not in the table fails, so whoever adds one says here who sees what.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { invite } from "#cloud/identity/invites.ts";
import { findPerson } from "#cloud/identity/people.ts";
import { hashToken } from "#cloud/identity/tokens.ts";
import { issueDeviceCode } from "#cloud/oauth/grants.ts";
import { apiKeysOf } from "#cloud/oauth/api-keys.ts";
import { loginsOf, openLogin } from "#cloud/oauth/logins.ts";
import { provideCluster } from "#cloud/clusters/clusters.ts";
import { findPreview, providePreview } from "#cloud/previews/previews.ts";
import { newShare } from "#cloud/previews/visitors.ts";
import { provideTeam } from "#cloud/identity/people.ts";
import { FakeCloud } from "#cloud/visitors.fake.ts";
import type { FakeBrowser, FakePage } from "#cloud/visitors.fake.ts";

type Who = "nobody" | "stranger" | "member" | "admin";
const everybody: readonly Who[] = ["nobody", "stranger", "member", "admin"];

interface Row {
  /** As it is declared. */
  readonly route: string;
  /** The path with the member's own things in it. */
  readonly path?: () => string | Promise<string>;
  readonly fields?: () => Readonly<Record<string, string>> | Promise<Readonly<Record<string, string>>>;
  /** What a page's script sends, instead of a form. */
  readonly json?: () => unknown;
  /** In the order of `everybody`. 303 of nobody is the way to the login. */
  readonly statuses: readonly [number, number, number, number];
}

let cloud: FakeCloud;
let member: string;
let admin: string;
const browsers = {} as Record<Who, FakeBrowser>;

beforeAll(async () => {
  cloud = await FakeCloud.open();
  member = await cloud.person("member", { team: "ours" });
  browsers.nobody = cloud.browser();
  browsers.member = await cloud.browserOf(member);
  browsers.stranger = await cloud.browserOf(await cloud.person("stranger", { team: "theirs" }));
  admin = await cloud.person("admin", { team: "operators", admin: true });
  browsers.admin = await cloud.browserOf(admin);
});
beforeEach(() => cloud.clock.advance(20_000)); // so that all these requests are not too many
afterAll(() => cloud[Symbol.asyncDispose]());

const newKeyPath = async (): Promise<string> => {
  await cloud.keyOf(member);
  return `/keys/${(await apiKeysOf(cloud.database, member)).at(-1)?.id}/remove`;
};
const newLoginPath = async (): Promise<string> => {
  await openLogin(cloud.database, { personId: member, device: "laptop" }, cloud.clock.wallMs());
  return `/logins/${(await loginsOf(cloud.database, member))[0]?.id}/remove`;
};
let people = 0;
const newPerson = () => cloud.person(`somebody ${++people}`, { team: "ours" });
const otherLoginPath = async (): Promise<string> => `/people/${member}${await newLoginPath()}`;
const otherKeyPath = async (): Promise<string> => `/people/${member}${await newKeyPath()}`;
const newInvitePath = async (): Promise<string> => {
  const token = await invite(cloud.database, { teamId: undefined, admin: false }, admin, cloud.clock.wallMs());
  return `/invites/${hashToken(token)}/remove`;
};
const newPreview = async (): Promise<string> => {
  const nowMs = cloud.clock.wallMs();
  const team = await provideTeam(cloud.database, "ours", nowMs);
  const wish = { teamId: team.id, uid: "uid", name: "kind" };
  const { cluster } = await provideCluster(cloud.database, wish, nowMs);
  const { preview } = await providePreview(
    cloud.database,
    {
      personId: member,
      teamId: team.id,
      clusterId: cluster.id,
      interceptId: `s:hello-${nowMs}`,
      intercept: `hello-${nowMs}`,
      workload: { kind: "Deployment", name: "hello", namespace: "shop" },
      ingress: { host: "ingress.shop", port: 80, tls: false },
      banner: true,
    },
    nowMs,
  );
  return preview.id;
};
const newSharePath = async (): Promise<string> => {
  const previewId = await newPreview();
  const share = { previewId, personId: member, lastsMs: 60_000 };
  return `/api/previews/${previewId}/shares/${(await newShare(cloud.database, share, cloud.clock.wallMs())).id}`;
};
const entering = async (): Promise<string> => {
  const preview = await findPreview(cloud.database, await newPreview());
  return `/previews/enter?preview=${preview?.host}&browser=${"0".repeat(64)}&to=/`;
};
const authorization = {
  client_id: "telepresence-cli",
  response_type: "code",
  redirect_uri: "http://127.0.0.1:4000/callback",
  state: "s",
  code_challenge: "c".repeat(43),
  code_challenge_method: "S256",
};

const table: readonly Row[] = [
  { route: "GET /healthz", statuses: [200, 200, 200, 200] },
  { route: "GET /readyz", statuses: [200, 200, 200, 200] },
  { route: "GET /metrics", statuses: [401, 401, 401, 200] },
  { route: "GET /assets/style.css", statuses: [200, 200, 200, 200] },
  { route: "GET /login", statuses: [200, 200, 200, 200] },
  { route: "POST /login", fields: () => ({ name: "x", password: "y" }), statuses: [403, 403, 403, 403] },
  { route: "GET /invite/:token", path: () => "/invite/unknown", statuses: [404, 404, 404, 404] },
  {
    route: "POST /invite/:token",
    path: () => "/invite/unknown",
    fields: () => ({ "full-name": "X", name: "x" }),
    statuses: [404, 404, 404, 404],
  },
  // without a provider
  { route: "GET /login/oidc", statuses: [404, 404, 404, 404] },
  { route: "GET /login/oidc/callback", statuses: [404, 404, 404, 404] },
  { route: "GET /", statuses: [303, 200, 200, 200] },
  { route: "GET /api/me", statuses: [303, 200, 200, 200] },
  { route: "POST /keys", fields: () => ({ name: "k" }), statuses: [401, 200, 200, 200] },
  { route: "POST /keys/:id/remove", path: newKeyPath, statuses: [401, 404, 303, 404] },
  { route: "POST /logins/:id/remove", path: newLoginPath, statuses: [401, 404, 303, 404] },
  { route: "POST /invites", fields: () => ({ team: "ours" }), statuses: [401, 403, 403, 200] },
  {
    route: "GET /oauth/authorize",
    path: () => `/oauth/authorize?${new URLSearchParams(authorization)}`,
    statuses: [303, 200, 200, 200],
  },
  {
    route: "POST /oauth/authorize",
    fields: () => ({ ...authorization, answer: "yes" }),
    statuses: [401, 303, 303, 303],
  },
  { route: "GET /device", statuses: [303, 200, 200, 200] },
  {
    route: "POST /device",
    // whoever types a code that is shown logs that device in as themselves
    fields: async () => ({
      code: (await issueDeviceCode(cloud.database, "x", cloud.clock.wallMs())).userCode,
      answer: "yes",
    }),
    statuses: [401, 200, 200, 200],
  },
  { route: "POST /oauth/device", fields: () => ({ client_id: "telepresence-cli" }), statuses: [200, 200, 200, 200] },
  { route: "POST /oauth/token", fields: () => ({ client_id: "telepresence-cli" }), statuses: [400, 400, 400, 400] },
  { route: "POST /oauth/revoke", fields: () => ({ token: "x" }), statuses: [200, 200, 200, 200] },
  { route: "GET /people", statuses: [303, 403, 403, 200] },
  { route: "GET /people/:id", path: () => `/people/${member}`, statuses: [303, 403, 403, 200] },
  ...(
    [
      ["admin", { admin: "no" }],
      ["teams", { team: "ours" }],
      ["log-out", {}],
    ] as const
  ).map(([what, fields]): Row => {
    const path = async () => `/people/${await newPerson()}/${what}`;
    return { route: `POST /people/:id/${what}`, path, fields: () => fields, statuses: [401, 403, 403, 303] };
  }),
  {
    route: "POST /people/:id/teams/:team/remove",
    path: async () => {
      const id = await newPerson();
      return `/people/${id}/teams/${(await findPerson(cloud.database, id))?.teams[0]?.id}/remove`;
    },
    statuses: [401, 403, 403, 303],
  },
  { route: "POST /people/:id/logins/:login/remove", path: otherLoginPath, statuses: [401, 403, 403, 303] },
  { route: "POST /people/:id/keys/:key/remove", path: otherKeyPath, statuses: [401, 403, 403, 303] },
  {
    route: "POST /people/:id/remove",
    path: async () => `/people/${await newPerson()}/remove`,
    statuses: [401, 403, 403, 303],
  },
  {
    route: "POST /people/:id/password",
    path: async () => `/people/${await newPerson()}/password`,
    statuses: [401, 403, 403, 200],
  },
  { route: "POST /invites/:id/remove", path: newInvitePath, statuses: [401, 403, 403, 303] },
  { route: "GET /password", statuses: [303, 200, 200, 200] },
  { route: "POST /password", fields: () => ({ present: "x", password: "y" }), statuses: [401, 403, 403, 403] },
  { route: "GET /password/:token", path: () => "/password/unknown", statuses: [404, 404, 404, 404] },
  { route: "POST /password/:token", path: () => "/password/unknown", statuses: [404, 404, 404, 404] },
  { route: "GET /audit", statuses: [303, 200, 200, 200] },
  { route: "GET /api/audit", statuses: [303, 200, 200, 200] },
  // only a laptop's login may, which is not a browser's
  {
    route: "POST /api/clusters",
    json: () => ({ id: "uid", name: "a cluster" }),
    statuses: [401, 403, 403, 403],
  },
  { route: "GET /api/clusters", statuses: [303, 200, 200, 200] },
  {
    route: "DELETE /api/clusters/:id/intercepts/:intercept",
    path: () => "/api/clusters/uid/intercepts/x:y",
    statuses: [401, 404, 404, 404],
  },
  { route: "GET /dashboard", statuses: [303, 200, 200, 200] },
  { route: "GET /api/dashboard", statuses: [303, 200, 200, 200] },
  { route: "GET /assets/dashboard.js", statuses: [200, 200, 200, 200] },
  { route: "GET /assets/dashboard.css", statuses: [200, 200, 200, 200] },
  // in dashboard/inspect-relay.test.ts with an intercept that is there
  ...[
    "GET …/events",
    "GET …/har",
    "GET …/exchanges/:exchange",
    "POST …/exchanges/:exchange/replay",
    "POST …/clear",
  ].map((route): Row => {
    const at = "/api/clusters/:id/intercepts/:intercept/inspect/api";
    return { route: route.replace("…", at), statuses: [route.startsWith("GET") ? 303 : 401, 404, 404, 404] };
  }),
  // only a laptop makes one, of a cluster that its team has
  { route: "POST /api/previews", json: () => ({}), statuses: [401, 400, 400, 400] },
  { route: "GET /api/previews", statuses: [303, 200, 200, 200] },
  {
    route: "GET /api/previews/:id",
    path: async () => `/api/previews/${await newPreview()}`,
    statuses: [303, 404, 200, 200],
  },
  {
    route: "DELETE /api/previews/:id",
    path: async () => `/api/previews/${await newPreview()}`,
    statuses: [401, 404, 200, 200],
  },
  {
    route: "POST /api/previews/:id/access",
    path: async () => `/api/previews/${await newPreview()}/access`,
    json: () => ({ access: "public" }),
    statuses: [401, 404, 200, 200],
  },
  {
    route: "GET /api/previews/:id/shares",
    path: async () => `/api/previews/${await newPreview()}/shares`,
    statuses: [303, 404, 200, 200],
  },
  {
    route: "POST /api/previews/:id/shares",
    path: async () => `/api/previews/${await newPreview()}/shares`,
    json: () => ({ expiresInSeconds: 60 }),
    statuses: [401, 404, 200, 200],
  },
  { route: "DELETE /api/previews/:id/shares/:share", path: newSharePath, statuses: [401, 404, 200, 200] },
  { route: "GET /previews/enter", path: entering, statuses: [303, 403, 200, 200] },
  { route: "POST /logout", statuses: [303, 303, 303, 303] },
];

/** A form of the login page has a token for whoever opens it. */
async function send(who: Who, { route, path, fields, json }: Row): Promise<FakePage> {
  const [method = "", declared = ""] = route.split(" ");
  const target = (await path?.()) ?? declared;
  if (method === "GET") return browsers[who].get(target);
  const { csrf = "" } = (await browsers[who].get("/login")).hidden;
  if (json !== undefined || method !== "POST")
    return browsers[who].call(method, target, { body: await json?.(), csrf });
  return browsers[who].post(target, { csrf, ...(await fields?.()) });
}

test("the table has every route", () => {
  const declared = cloud.routes.map(({ method, path }) => `${method} ${path}`);
  expect(table.map((row) => row.route).toSorted()).toEqual(declared.toSorted());
});

describe.each(table)("$route", (row) => {
  test.each(everybody)("as %s", async (who) => {
    const answer = await send(who, row);
    expect(answer.status).toBe(row.statuses[everybody.indexOf(who)]);
    expect(answer.headers.get("content-security-policy")).toContain("default-src 'none'");
    expect(answer.headers.get("x-content-type-options")).toBe("nosniff");
  });
});

describe("what is a team's", () => {
  // whatever route there is, also one of tomorrow: the table has every one
  test("is in nothing that another team's person can read", async () => {
    // the table's last rows have logged everybody out
    browsers.stranger = await cloud.browserOf(await cloud.person("another stranger", { team: "theirs" }));
    browsers.member = await cloud.browserOf(member);
    const preview = await findPreview(cloud.database, await newPreview());
    await cloud.keyOf(member);
    const marks = { member, id: preview?.id, host: preview?.host, row: preview?.clusterId, name: preview?.intercept };
    const found = async (who: Who): Promise<readonly string[]> => {
      const all: string[] = [];
      for (const row of table.filter(({ route }) => route.startsWith("GET "))) {
        await cloud.clock.advance(20_000);
        const { text } = await send(who, row);
        const seen = Object.entries(marks).filter(([, mark]) => mark === undefined || text.includes(mark));
        all.push(...seen.map(([what]) => `${row.route} ${what}`));
      }
      return all;
    };
    expect(await found("stranger")).toEqual([]);
    expect(await found("nobody")).toEqual([]);
    const own = await found("member");
    for (const route of ["GET /api/previews", "GET /api/dashboard"]) expect(own).toContain(`${route} host`);
  });
});

test("no token stands in the database as it is, after all these routes", async () => {
  await cloud.keyOf(member);
  await openLogin(cloud.database, { personId: member, device: "laptop" }, cloud.clock.wallMs());
  await cloud.browserOf(member);
  await newSharePath();
  await newInvitePath();
  const names = await cloud.database.all<{ name: string }>("SELECT name FROM sqlite_master WHERE type = 'table'");
  const rows: unknown[] = [];
  for (const { name } of names) {
    for (const row of await cloud.database.all(`SELECT * FROM ${name}`)) rows.push([name, row]);
  }
  const text = JSON.stringify(rows);
  for (const table of ["api_keys", "browser_sessions", "logins", "preview_shares", "invites"]) {
    expect(text).toContain(`["${table}",`);
  }
  expect(text.match(/tp[a-z]_[\w-]{20,}/g)).toBeNull();
});

describe("what changes something", () => {
  const changing = () => cloud.routes.filter(({ method, access }) => method !== "GET" && access !== "client");

  test("is refused without the form's token, and from another site with it", async () => {
    const admin = await cloud.browserOf(await cloud.person("second-admin", { admin: true }));
    const { csrf = "" } = (await admin.get("/login")).hidden;
    for (const { path, method } of changing()) {
      const tries =
        method === "POST"
          ? [
              await admin.post(path, {}),
              await admin.post(path, { csrf: `${csrf}x` }),
              await admin.post(path, { csrf }, { origin: "https://evil.example" }),
            ]
          : [
              await admin.call(method, path, { csrf: "" }),
              await admin.call(method, path, { csrf: `${csrf}x` }),
              await admin.call(method, path, { csrf, origin: "https://evil.example" }),
            ];
      expect([path, ...tries.map(({ status }) => status)]).toEqual([path, 403, 403, 403]);
    }
  });

  test("takes no token of another browser", async () => {
    const { csrf = "" } = (await cloud.browser().get("/login")).hidden;
    const other = await cloud.browserOf(await cloud.person("other"));
    await other.get("/login");
    expect((await other.post("/keys", { csrf, name: "k" })).status).toBe(403);
  });
});

describe("programs", () => {
  test("a key and an access token are their person, without any form", async () => {
    const bearer = async (token: string) => {
      const answer = await cloud.ask("/api/me", { headers: { authorization: `Bearer ${token}` } });
      return [answer.status, ((await answer.json()) as { name?: string }).name];
    };
    const nowMs = cloud.clock.wallMs();
    expect(await bearer(await cloud.keyOf(member))).toEqual([200, "member"]);
    const { access_token, refresh_token } = await openLogin(cloud.database, { personId: member, device: "x" }, nowMs);
    expect(await bearer(access_token)).toEqual([200, "member"]);
    expect(await bearer(refresh_token)).toEqual([401, undefined]);
    expect(await bearer("tpk_wrong")).toEqual([401, undefined]);
  });

  test("a wrong token beside a good cookie is nobody", async () => {
    const session = browsers.admin.cookies.get("telepresence-session");
    const headers = { cookie: `telepresence-session=${session}`, authorization: "Bearer tpk_wrong" };
    expect((await cloud.ask("/api/me", { headers })).status).toBe(401);
  });

  test.each(["key", "access token"])("a %s makes nothing that outlives it", async (kind) => {
    const admin = await cloud.person(`admin with ${kind}`, { admin: true });
    const login = await openLogin(cloud.database, { personId: admin, device: "x" }, cloud.clock.wallMs());
    const token = kind === "key" ? await cloud.keyOf(admin) : login.access_token;
    const authorized = { authorization: `Bearer ${token}` };
    const post = (path: string, fields: Readonly<Record<string, string>>) =>
      cloud.ask(path, { method: "POST", headers: authorized, body: new URLSearchParams(fields) });
    expect((await post("/keys", { name: "k" })).status).toBe(403);
    expect((await post("/invites", { team: "ours", admin: "yes" })).status).toBe(403);
    for (const what of ["admin", "teams", "password", "remove"]) {
      expect((await post(`/people/${member}/${what}`, { admin: "yes", team: "theirs" })).status).toBe(403);
    }
    expect((await post("/password", { present: "x", password: "correct horse battery" })).status).toBe(403);
    expect((await post("/device", { code: "BCDF-BCDF", answer: "yes" })).status).toBe(403);
    expect((await post("/oauth/authorize", { ...authorization, answer: "yes" })).status).toBe(403);
  });
});
