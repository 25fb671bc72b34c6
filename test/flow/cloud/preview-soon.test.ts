// Somebody logged in a moment ago, and the traffic-manager is still on its way to the cloud server when the preview is
// made: the command said that the preview sleeps, though it answered two seconds later.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { silentLogger } from "#base/log.ts";
import type { ManagerConnection } from "#daemon/link/manager-link.ts";
import { Membership } from "#daemon/previews/membership.ts";
import { Previews } from "#daemon/previews/previews.ts";
import type { TestLaptop } from "#test/flow/manager/harness.ts";
import { never } from "#test/flow/manager/harness.ts";
import type { IncomingStream } from "#tunnel/tunnel.ts";
import { PreviewLab, clusterId } from "./preview-lab.ts";

let stack: AsyncDisposableStack;
let clock: FakeClock;
let membership: Membership;
let previews: Previews;
let laptop: TestLaptop;
/** The manager's way to the cloud server, which stays shut until the test opens it. */
let open: (incoming: IncomingStream) => void;
let way: Promise<IncomingStream>;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  clock = new FakeClock();
  const lab = stack.use(await PreviewLab.open());
  const ann = await lab.person("ann");
  laptop = await lab.laptop();
  open = laptop.onIncoming;
  const arrived = Promise.withResolvers<IncomingStream>();
  laptop.onIncoming = arrived.resolve;
  way = arrived.promise;
  const info = await laptop.intercept("hello", 8080);
  const manager = { session: laptop.session, rpc: laptop.rpc, arrival: { sessionId: laptop.sessionId } };
  membership = new Membership({
    places: loggedIn(lab.url, ann.token),
    clusterId: () => Promise.resolve(clusterId),
    clusterName: "kind",
    manager: () => manager as unknown as ManagerConnection,
    onJoined: () => Promise.resolve(),
    isUsed: () => true,
    clock,
    log: silentLogger,
  });
  laptop.rpc.onNotification("cloud.changed", (news) => membership.onChanged(news));
  previews = new Previews({
    membership,
    find: () => ({ info, personalId: info.id }),
    manager: () => manager as unknown as ManagerConnection,
    log: silentLogger,
  });
});
afterEach(() => stack.disposeAsync());

function loggedIn(url: string, key: string) {
  const folder = mkdtempSync(join(tmpdir(), "telepresence-login-"));
  stack.defer(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, "cloud.json");
  writeFileSync(file, JSON.stringify({ url, name: "Ann", secret: { key } }), { mode: 0o600 });
  const refuse = () => Promise.reject(new Error("nothing is to be written"));
  return { file, keyring: undefined, replaceFile: refuse, tryLock: refuse };
}

/** Resolves when the command says that it waits. */
function create() {
  const waits = Promise.withResolvers<string>();
  const ingress = { host: "ingress.shop", port: 80, tls: false };
  const created = previews.create({ intercept: "hello", ingress, banner: false }, waits.resolve, never);
  return { created, waits: waits.promise };
}

test("a preview is told without a warning when the traffic-manager reaches the server in time", async () => {
  const { created, waits } = create();
  expect(await waits).toMatch(/^Waiting for the traffic-manager to reach http:\/\/localhost:\d+$/);
  open(await way);
  expect((await created).warnings).toEqual([]);
  expect([membership.status?.state, clock.pending]).toEqual(["connected", 0]);
});

test("after 5 s the preview is told with a warning", async () => {
  const { created, waits } = create();
  await waits;
  let over = false;
  void created.then(() => (over = true));
  await clock.advance(4999);
  expect(over).toBe(false);
  await clock.advance(1);
  expect((await created).warnings).toEqual([
    expect.stringMatching(/has not reached the cloud server .* so the preview sleeps/),
  ]);
  expect(clock.pending).toBe(0);
});
