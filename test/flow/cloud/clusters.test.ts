// What a cloud server knows of clusters: by tunnels that managers open for laptops which are logged in.
import { afterAll, beforeAll, expect, test } from "vitest";
import { endLogin } from "#cloud/oauth/logins.ts";
import { never } from "#test/flow/manager/harness.ts";
import { PreviewLab, clusterId } from "./preview-lab.ts";
import type { LoggedIn } from "./preview-lab.ts";

let lab: PreviewLab;
let ann: LoggedIn;
beforeAll(async () => {
  lab = await PreviewLab.open();
  ann = await lab.person("ann");
});
afterAll(() => lab[Symbol.asyncDispose]());

test("a team sees the intercepts of laptops that joined, and nobody else's", async () => {
  const [bob, eve] = [await lab.person("bob"), await lab.person("eve", "theirs")];
  const [laptop, unknown] = [await lab.laptop("ann@laptop"), await lab.laptop("zoe@laptop")];
  await lab.join(laptop, ann);
  await lab.intercept(laptop);
  await unknown.intercept("private", 9090);
  const [seen] = await lab.until(
    () => lab.interceptsOf(bob),
    (found) => found.length > 0,
  );
  expect(seen).toMatchObject({ name: "hello", client: "ann@laptop", own: false, owner: { name: "ann" } });
  expect(await lab.interceptsOf(ann)).toMatchObject([{ name: "hello", own: true }]);
  expect(await lab.clusters(bob)).toMatchObject([{ id: clusterId, name: "kind", live: true, team: { name: "ours" } }]);
  expect(await lab.clusters(eve)).toEqual([]);

  const path = `/api/clusters/${clusterId}/intercepts/${encodeURIComponent(seen?.id ?? "")}`;
  expect((await lab.api(eve, "DELETE", path)).status).toBe(404);
  expect((await lab.api(bob, "DELETE", path)).status).toBe(403);
  const ended = new Promise((resolve) => laptop.rpc.onNotification("intercept.ended", resolve));
  expect((await lab.api(await lab.person("root", "ops", true), "DELETE", path)).status).toBe(200);
  expect(await ended).toMatchObject({ reason: "revoked", by: "root (at the cloud server)" });
  await lab.until(
    () => lab.interceptsOf(bob),
    (found) => found.length === 0,
  );
  const { id } = await lab.intercept(laptop);
  await lab.until(
    () => lab.interceptsOf(ann),
    (found) => found.length > 0,
  );
  const endedByOwner = new Promise((resolve) => laptop.rpc.onNotification("intercept.ended", resolve));
  const own = `/api/clusters/${clusterId}/intercepts/${encodeURIComponent(id)}`;
  expect((await lab.api(ann, "DELETE", own)).status).toBe(200);
  expect(await endedByOwner).toMatchObject({ id, reason: "revoked", by: "ann (at the cloud server)" });
});

test("a team that registers the same cluster has a tunnel and a view of its own", async () => {
  const eve = await lab.person("mallory", "others");
  const laptop = await lab.laptop("mallory@laptop");
  await lab.join(laptop, eve);
  await laptop.intercept("of-others", 7070);
  await lab.until(
    () => lab.interceptsOf(eve),
    (found) => found.length === 1,
  );
  expect((await lab.interceptsOf(ann)).map(({ name }) => name)).not.toContain("of-others");
});

test("a token is dead with its login, and the laptop is told", async () => {
  const dan = await lab.person("dan", "dans");
  const laptop = await lab.laptop("dan@laptop");
  const { token, team } = await lab.register(dan);
  await endLogin(lab.database, dan.refreshToken);
  const refused = new Promise((resolve) =>
    laptop.rpc.onNotification("cloud.changed", (news) => news.state === "refused" && resolve(news)),
  );
  await laptop.rpc.call("cloud.join", { url: lab.url, clusterId, team: team.id, token }, never);
  expect(await refused).toMatchObject({ url: lab.url, message: "the cloud server does not take this login any more" });
});

test("nothing but a laptop's login registers a cluster, in a team of its person", async () => {
  const wish = { id: clusterId, name: "x" };
  expect((await lab.api(ann, "POST", "/api/clusters", { ...wish, team: "theirs" })).status).toBe(404);
  expect((await lab.api({ ...ann, token: "tpa_x" }, "POST", "/api/clusters", wish)).status).toBe(401);
  const answer = await lab.api(ann, "POST", "/api/clusters", { id: "a b", name: "x" });
  expect([answer.status, await answer.json()]).toEqual([400, { error: expect.stringContaining('"id" is wrong') }]);
});
