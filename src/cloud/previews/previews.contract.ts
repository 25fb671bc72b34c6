// What is kept of clusters, previews and their visitors, on each kind of database.
import { describe, expect, test } from "vitest";
import { clusterOfToken, newClusterToken, provideCluster } from "#cloud/clusters/clusters.ts";
import { openBrowserSession } from "#cloud/identity/browser-sessions.ts";
import { hashToken } from "#cloud/identity/tokens.ts";
import { findLogin, loginsOf, openLogin, removeLogin } from "#cloud/oauth/logins.ts";
import type { Database } from "#cloud/storage/database.ts";
import { FakeCloud } from "#cloud/visitors.fake.ts";
import { findPreview, providePreview, removePreview, tidyPreviews } from "./previews.ts";
import type { NewPreview, Preview } from "./previews.ts";
import {
  findShare,
  findVisitor,
  newShare,
  newVisitCode,
  redeemVisitCode,
  removeShare,
  visitByShare,
} from "./visitors.ts";
import { Visits } from "./visits.ts";

const dayMs = 24 * 3600_000;

interface Kept extends AsyncDisposable {
  readonly cloud: FakeCloud;
  readonly database: Database;
  readonly ann: string;
  readonly nowMs: number;
  readonly clusterId: string;
  readonly wish: NewPreview;
  readonly preview: Preview;
}

export function previewsContract(name: string, open: () => Promise<Database>): void {
  const setUp = async (): Promise<Kept> => {
    const cloud = await FakeCloud.open({}, await open());
    const { database } = cloud;
    const nowMs = cloud.clock.wallMs();
    const ann = await cloud.person("ann", { team: "ours" });
    const [team] = await database.all<{ id: string }>("SELECT id FROM teams");
    const { cluster } = await provideCluster(database, { teamId: team?.id ?? "", uid: "uid", name: "kind" }, nowMs);
    const wish: NewPreview = {
      personId: ann,
      teamId: cluster.teamId,
      clusterId: cluster.id,
      interceptId: "one:hello",
      intercept: "hello",
      workload: { kind: "Deployment", name: "hello", namespace: "shop" },
      ingress: { host: "ingress.shop", port: 443, tls: true, l5host: "hello.example.com" },
      headers: [{ name: "x-a", value: "ä'" }],
      banner: true,
      ingressCa: "-----BEGIN CERTIFICATE-----",
    };
    const { preview } = await providePreview(database, wish, nowMs);
    const done = () => cloud[Symbol.asyncDispose]();
    return { cloud, database, ann, nowMs, clusterId: cluster.id, wish, preview, [Symbol.asyncDispose]: done };
  };

  describe(`previews on ${name}`, () => {
    test("the same host comes back for an intercept that its laptop has made again, and no other", async () => {
      await using kept = await setUp();
      const { database, wish, preview, nowMs, cloud } = kept;
      const { headers, ingressCa } = wish;
      expect(preview).toMatchObject({ access: "team", banner: true, insecure: false, headers, ingressCa });
      const changed = { ...wish, interceptId: "two:hello", banner: false, ingressCa: undefined };
      const again = await providePreview(database, changed, nowMs + 1);
      expect(again).toMatchObject({
        isNew: false,
        preview: { host: preview.host, interceptId: "two:hello", banner: false, ingressCa: undefined },
      });
      const bob = await cloud.person("bob", { team: "ours" });
      expect((await providePreview(database, { ...wish, personId: bob }, nowMs)).preview.host).not.toBe(preview.host);
      expect(await removePreview(database, preview.id, "removed", nowMs)).toBe(true);
      expect(await removePreview(database, preview.id, "ended", nowMs)).toBe(false);
      expect((await findPreview(database, preview.id))?.removedWhy).toBe("removed");
      expect((await providePreview(database, wish, nowMs)).preview.host).not.toBe(preview.host);
    });

    test("a code is good once, and a visit as long as the login, the team and the preview", async () => {
      await using kept = await setUp();
      const { database, preview, ann, nowMs, cloud } = kept;
      const session = await openBrowserSession(database, ann, nowMs);
      const code = await newVisitCode(
        database,
        { previewId: preview.id, sessionHash: hashToken(session), browser: hashToken("tpb_x") },
        nowMs,
      );
      const sent = { code, previewId: preview.id, browser: "tpb_x" };
      const visit = (await redeemVisitCode(database, sent, nowMs + 59_000)) ?? "";
      expect(await redeemVisitCode(database, sent, nowMs + 59_000)).toBeUndefined();
      expect(await findVisitor(database, visit, preview, nowMs)).toEqual({ who: "ann" });
      expect(await findVisitor(database, visit, { ...preview, id: "other" }, nowMs)).toBeUndefined();
      expect(await findVisitor(database, visit, preview, nowMs + dayMs)).toBeUndefined();
      await database.run("DELETE FROM members WHERE person_id = $1", [ann]);
      expect(await findVisitor(database, visit, preview, nowMs)).toBeUndefined();
      const late = await newVisitCode(
        database,
        { previewId: preview.id, sessionHash: hashToken(session), browser: hashToken("tpb_x") },
        nowMs,
      );
      expect(await redeemVisitCode(database, { ...sent, code: late }, nowMs + 61_000)).toBeUndefined();
      await database.run("DELETE FROM browser_sessions");
      expect(await database.all("SELECT hash FROM preview_visitors")).toEqual([]);
      expect(cloud.database).toBe(database);
    });

    test("a share link ends with its time or its revocation, and its visits with it", async () => {
      await using kept = await setUp();
      const { database, preview, ann, nowMs } = kept;
      const { id, token } = await newShare(database, { previewId: preview.id, personId: ann, lastsMs: 1000 }, nowMs);
      expect(await findShare(database, token, "other", nowMs)).toBeUndefined();
      const share = await findShare(database, token, preview.id, nowMs);
      expect(share).toEqual({ id, expiresMs: nowMs + 1000 });
      const visit = await visitByShare(database, { id, expiresMs: nowMs + 1000 }, preview.id);
      expect(await findVisitor(database, visit, preview, nowMs)).toEqual({ who: "share link" });
      expect(await findVisitor(database, visit, preview, nowMs + 1000)).toBeUndefined();
      expect(await removeShare(database, "other", id)).toBe(false);
      expect(await removeShare(database, preview.id, id)).toBe(true);
      expect(await findVisitor(database, visit, preview, nowMs)).toBeUndefined();
    });

    test("visitors' counts are another server's to go on with, bounded, and end with their preview", async () => {
      await using kept = await setUp();
      const { database, preview, nowMs } = kept;
      const visits = new Visits();
      for (const ms of [1, 2, 3]) visits.note(preview.id, "Ann", nowMs + ms);
      visits.note(preview.id, "Bob", nowMs + 4);
      visits.note("of nobody", "Bob", nowMs);
      await visits.save(database);
      const next = new Visits();
      await next.load(database);
      expect(next.of("of nobody")).toEqual([]);
      expect(next.of(preview.id)).toEqual([
        { who: "Bob", requests: 1, lastMs: nowMs + 4 },
        { who: "Ann", requests: 3, lastMs: nowMs + 3 },
      ]);
      next.note(preview.id, "Ann", nowMs + 5);
      for (let more = 0; more < 60; more++) next.note(preview.id, `guest ${more}`, nowMs + 10 + more);
      await next.save(database);
      const third = new Visits();
      await third.load(database);
      expect(third.of(preview.id)).toEqual(next.of(preview.id));
      expect(third.of(preview.id)).toHaveLength(50);
      await removePreview(database, preview.id, "ended", nowMs);
      third.note(preview.id, "Ann", nowMs + 99); // a request that was on its way
      await third.save(database);
      expect(await database.all("SELECT who FROM preview_visits")).toEqual([]);
    });

    test("visitors' counts that could not be written are written the next time", async () => {
      await using kept = await setUp();
      const { database, preview, nowMs } = kept;
      const visits = new Visits();
      visits.note(preview.id, "Ann", nowMs);
      await database.run("ALTER TABLE preview_visits RENAME TO away");
      await expect(visits.save(database)).rejects.toThrow();
      await database.run("ALTER TABLE away RENAME TO preview_visits");
      await visits.save(database);
      expect(await database.all("SELECT who, requests FROM preview_visits")).toEqual([{ who: "Ann", requests: 1 }]);
    });

    test("what nobody used for a week is over, and forgotten a month later", async () => {
      await using kept = await setUp();
      const { database, preview, nowMs } = kept;
      await tidyPreviews(database, nowMs + 8 * dayMs);
      expect((await findPreview(database, preview.id))?.removedWhy).toBe("expired");
      await tidyPreviews(database, nowMs + 39 * dayMs);
      expect(await findPreview(database, preview.id)).toBeUndefined();
    });

    test("a cluster's token is as good as the login and the team of who asked for it", async () => {
      await using kept = await setUp();
      const { database, ann, nowMs, clusterId } = kept;
      const { access_token: access } = await openLogin(database, { personId: ann, device: "laptop" }, nowMs);
      expect(await findLogin(database, access, nowMs)).toBe(ann);
      const [login] = await loginsOf(database, ann);
      const owner = { personId: ann, loginId: login?.id ?? "", keyId: null };
      const token = hashToken(await newClusterToken(database, clusterId, owner, nowMs));
      expect(await clusterOfToken(database, token, nowMs)).toMatchObject({
        id: clusterId,
        uid: "uid",
        teamName: "ours",
      });
      expect(await clusterOfToken(database, token, nowMs + 90 * dayMs)).toBeUndefined();
      await removeLogin(database, ann, login?.id ?? "");
      expect(await clusterOfToken(database, token, nowMs)).toBeUndefined();
    });
  });
}
