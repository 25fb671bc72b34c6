// The inspector of an intercept for its team: browser, cloud server, tunnel, manager and the laptop's own inspector.
import { expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import { Inspector } from "#daemon/inspector/inspector.ts";
import { viewerHeader } from "#wire/inspector-api.ts";
import type { LoggedIn } from "./preview-lab.ts";
import { PreviewLab, clusterId } from "./preview-lab.ts";

/** Ann intercepts, Bob is of her team, Eve of another, and root manages the server. */
async function openLab() {
  const lab = await PreviewLab.open();
  const [ann, bob] = [await lab.person("ann"), await lab.person("bob")];
  const eve = await lab.person("eve", "theirs");
  const root = await lab.person("root", "operators", true);
  const laptop = await lab.laptop();
  const inspector = new Inspector({
    pageFolder: undefined,
    intercepts: () => ({ intercepts: [], connected: true }),
    dial: () => Promise.reject(new AppError("refused", "nothing is sent again")),
    clock: systemClock,
    log: silentLogger,
  });
  const toCloud = laptop.onIncoming;
  const shares = { allowed: true };
  laptop.onIncoming = (incoming) => {
    if (incoming.request.kind !== "inspect") return toCloud?.(incoming);
    if (!shares.allowed) return incoming.reject("denied", "the owner shares no requests");
    inspector.share(() => incoming.accept(), "hello");
  };
  await lab.join(laptop, ann);
  const { id } = await lab.intercept(laptop);
  await lab.until(
    () => lab.interceptsOf(ann),
    (found) => found.length > 0,
  );
  const at = `/api/clusters/${clusterId}/intercepts/${encodeURIComponent(id)}/inspect/api`;
  const ask = (who: LoggedIn, method: string, path: string, headers: Readonly<Record<string, string>> = {}) =>
    fetch(`${lab.url}${at}/${path}`, { method, headers: { authorization: `Bearer ${who.token}`, ...headers } });
  const status = async (...asked: Parameters<typeof ask>) => {
    const answer = await ask(...asked);
    await answer.text();
    return answer.status;
  };
  const stack = new AsyncDisposableStack();
  stack.use(inspector);
  stack.use(lab);
  return {
    lab,
    ann,
    bob,
    eve,
    root,
    inspector,
    shares,
    ask,
    status,
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

test("the owner acts, the team looks, and nobody else learns that it is there", async () => {
  await using lab = await openLab();
  const { ann, bob, eve, root, ask, status } = lab;
  const following = await ask(bob, "GET", "events");
  const { value } = (await following.body?.getReader().read()) ?? {};
  expect(new TextDecoder().decode(value)).toContain('"kind":"intercepts"');
  expect(lab.inspector.recorder.isOn).toBe(true);
  expect(await status(bob, "GET", "har")).toBe(200);
  expect(await status(bob, "POST", "clear")).toBe(403);
  expect(await status(bob, "POST", "clear", { [viewerHeader]: "owner" })).toBe(403);
  expect(await status(ann, "POST", "clear")).toBe(200);
  expect(await status(ann, "GET", "exchanges/7")).toBe(404);
  for (const who of [eve, root]) expect(await status(who, "GET", "har")).toBe(404);
  expect(await status(ann, "GET", "../../../../me")).toBe(404);
  const seen = await lab.lab.database.all("SELECT who, subject FROM audit WHERE action = 'intercept.watched'");
  expect(seen).toEqual([{ who: "bob", subject: "hello" }]);
});

test("an owner who says no is not looked at", async () => {
  await using lab = await openLab();
  lab.shares.allowed = false;
  expect(await lab.status(lab.bob, "GET", "events")).toBe(403);
});

// A page that was open held up the server's end for the whole ten seconds that requests have.
test("a look that is open does not hold up the server's end", async () => {
  await using lab = await openLab();
  const following = await lab.ask(lab.ann, "GET", "events");
  const reader = following.body?.getReader();
  await reader?.read();
  const startedMs = performance.now();
  await lab.lab.cloud[Symbol.asyncDispose]();
  expect(performance.now() - startedMs).toBeLessThan(5000);
  while ((await reader?.read())?.done === false); // it ends
});
