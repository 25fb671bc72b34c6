// Whoever guesses at previews, by their hosts or by share links, gets slower and slower, by address; whoever is in, is not held up.
import { once } from "node:events";
import { Agent, createServer } from "node:http";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Clock } from "#base/clock.ts";
import { systemClock } from "#base/clock.ts";
import type { PreviewView } from "#wire/cloud-api.ts";
import { PreviewLab } from "./preview-lab.ts";
import type { LoggedIn } from "./preview-lab.ts";

/** Stands still, so that what comes back by time is what a test says. */
let nowMs = 0;
const clock: Clock = { ...systemClock, now: () => nowMs };
let lab: PreviewLab;
let ingress: Server;
let ann: LoggedIn;
let preview: PreviewView;
let cookie: string;
/** An ingress or a load balancer keeps its connections as well. */
const agent = new Agent({ keepAlive: true });

beforeAll(async () => {
  lab = await PreviewLab.open({ clock, proxied: true });
  ann = await lab.person("ann");
  const laptop = await lab.laptop();
  await lab.join(laptop, ann);
  ingress = createServer((_request, response) => response.end("hello")).listen(0, "127.0.0.1");
  await once(ingress, "listening");
  preview = await lab.preview(laptop, ann, { port: (ingress.address() as AddressInfo).port });
  cookie = await lab.enter(preview, await lab.session(ann));
});
afterAll(async () => {
  agent.destroy();
  await lab[Symbol.asyncDispose]();
  ingress.closeAllConnections();
  ingress.close();
});

interface Asked {
  readonly from: string;
  readonly host?: string;
  readonly path?: string;
  readonly cookie?: string;
}

async function statusOf({ from, host = preview.host, path = "/", cookie: sent }: Asked): Promise<number> {
  const headers = { "x-forwarded-for": from, ...(sent === undefined ? {} : { cookie: sent }) };
  return (await lab.visit({ host }, path, { headers, agent })).status;
}

async function share(): Promise<string> {
  const answer = await lab.api(ann, "POST", `/api/previews/${preview.id}/shares`, { expiresInSeconds: 60 });
  return `/${new URL(((await answer.json()) as { url: string }).url).search}`;
}

/** One after the other, the runs of equal ones counted. */
async function runsOf(count: number, ask: (at: number) => Promise<number>): Promise<readonly string[]> {
  const runs: { status: number; times: number }[] = [];
  for (let at = 0; at < count; at++) {
    const status = await ask(at);
    const last = runs.at(-1);
    if (last?.status === status) last.times++;
    else runs.push({ status, times: 1 });
  }
  return runs.map(({ status, times }) => `${times} times ${status}`);
}

test("guesses of share links end after 100, for a right one as well, and then there are five a second", async () => {
  const from = "198.51.100.1";
  const right = await share();
  const guess = (at: number): Promise<number> =>
    statusOf({ from, path: `/?telepresence-share=tps_${String(at).padStart(43, "x")}` });
  expect(await runsOf(120, guess)).toEqual(["100 times 403", "20 times 429"]);
  expect(await statusOf({ from, path: right })).toBe(429);
  expect(await statusOf({ from, cookie })).toBe(200);
  expect(await statusOf({ from: "198.51.100.2", path: right })).toBe(303);
  nowMs += 1000;
  expect(await runsOf(7, guess)).toEqual(["5 times 403", "2 times 429"]);
});

test("guesses of hosts end after 100, and of ways in from the login, too", async () => {
  const domain = preview.host.slice(preview.host.indexOf("."));
  const host = (at: number): Promise<number> => statusOf({ from: "198.51.100.3", host: `brave-otter-${at}${domain}` });
  expect(await runsOf(110, host)).toEqual(["100 times 404", "10 times 429"]);
  const code = (at: number): Promise<number> =>
    statusOf({ from: "198.51.100.4", path: `/.telepresence/enter?code=tpc_${at}&to=/` });
  expect(await runsOf(110, code)).toEqual(["100 times 403", "10 times 429"]);
});

test("a network of IPv6 is one guesser", async () => {
  const from = (at: number): Promise<number> => statusOf({ from: `2001:db8:1:2::${at.toString(16)}` });
  expect(await runsOf(110, from)).toEqual(["100 times 303", "10 times 429"]);
});

test("a public preview takes 2,000 requests of an address at once, and then 500 a second; of who is in, any number", async () => {
  const access = (wanted: string): Promise<unknown> =>
    lab.api(ann, "POST", `/api/previews/${preview.id}/access`, { access: wanted });
  await access("public");
  const everybody = (): Promise<number> => statusOf({ from: "198.51.100.5" });
  expect(await runsOf(2010, everybody)).toEqual(["2000 times 200", "10 times 429"]);
  expect(await statusOf({ from: "198.51.100.5", cookie })).toBe(200);
  expect(await statusOf({ from: "198.51.100.6" })).toBe(200);
  nowMs += 20;
  expect(await runsOf(12, everybody)).toEqual(["10 times 200", "2 times 429"]);
  await access("team");
  expect(await statusOf({ from: "198.51.100.6" })).toBe(303);
});
