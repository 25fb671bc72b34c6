// The dashboard of a team in a real browser, on a real server's page. Clusters and previews are told by the test, in the
// shapes of wire/cloud-api.ts, so that there may be ten thousand of them.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import axe from "axe-core";
import { chromium, type Browser, type BrowserContext, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { startCloud, type Cloud } from "#cloud/cloud.ts";
import { parseCloudConfig } from "#cloud/config.ts";
import { bundlePage } from "#scripts/bundle.ts";
import { clusterView, previewView, type ClusterView, type PreviewView } from "#wire/cloud-api.ts";
import type { DashboardSnapshot } from "#wire/dashboard-api.ts";

let browser: Browser;
let cloud: Cloud;
let url: string;
let pageFolder: string;
let cookies: Awaited<ReturnType<BrowserContext["cookies"]>>;
const contexts: BrowserContext[] = [];
/** What the browser complained about, a policy that was violated for one. */
let complaints: string[] = [];

beforeAll(async () => {
  pageFolder = mkdtempSync(join(tmpdir(), "telepresence-page-"));
  await bundlePage(pageFolder, "team");
  const words = ["serve", "--listen", "127.0.0.1:0", "--database", "sqlite::memory:"];
  const config = parseCloudConfig(words, () => undefined, {});
  cloud = await startCloud({ config, clock: systemClock, log: silentLogger, pageFolder });
  url = `http://localhost:${cloud.port}`;
  // Root has no sandbox of Chromium's; the pages are our own.
  browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(/http\S+\/invite\/\S+/.exec(cloud.greeting.join("\n"))?.[0] ?? "");
  await page.getByLabel("Your name").fill("Ann");
  await page.getByLabel("Name to log in with").fill("ann");
  await page.getByLabel("Password").fill("correct horse battery");
  await page.getByRole("button", { name: "Create the account" }).click();
  await page.getByText("Ann, an administrator").waitFor();
  cookies = await context.cookies();
  await context.close();
});
afterEach(async () => {
  for (const context of contexts.splice(0)) await context.close();
  complaints = [];
});
afterAll(async () => {
  await browser.close();
  await cloud[Symbol.asyncDispose]();
  rmSync(pageFolder, { recursive: true });
});

interface Look {
  readonly width?: number;
  readonly colorScheme?: "light" | "dark";
  /** What the server tells beside what it knows. */
  readonly told?: Partial<DashboardSnapshot>;
}

async function open({ width = 1280, colorScheme = "light", told }: Look = {}): Promise<Page> {
  const context = await browser.newContext({ viewport: { width, height: 800 }, colorScheme });
  contexts.push(context);
  await context.addCookies(cookies);
  const page = await context.newPage();
  page.setDefaultTimeout(10_000);
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  if (told !== undefined) {
    await page.route("**/api/dashboard*", async (route) => {
      if (route.request().url().includes("after=")) return; // nothing else happens, so it waits
      const response = await route.fetch();
      await route.fulfill({ response, json: { ...((await response.json()) as object), ...told } });
    });
  }
  await page.goto(`${url}/dashboard`);
  await page.getByText("Live, as Ann").waitFor();
  return page;
}

/** Rules of accessibility that the page breaks. */
async function violations(page: Page): Promise<string[]> {
  await page.evaluate(axe.source);
  const { violations: found } = await page.evaluate<{ violations: { id: string }[] }>("axe.run()");
  return found.map(({ id }) => id);
}

const team = { id: "t1", name: "shop" };
const workload = { kind: "Deployment", name: "hello", namespace: "default" } as const;

function clusterOf(count: number): ClusterView {
  const intercepts = Array.from({ length: count }, (_, at) => ({
    id: `s:hello-${at}`,
    name: `hello-${at}`,
    workload,
    client: "bob@laptop",
    state: at % 2 === 0 ? ("active" as const) : ("waiting" as const),
    message: "",
    createdAtMs: 1_700_000_000_000,
    pods: 1,
    previewIds: at === 0 ? ["p1"] : [],
    own: false,
  }));
  return clusterView.parse({ id: "c1", name: "staging", team, live: true, intercepts, more: 0 });
}

const preview: PreviewView = previewView.parse({
  id: "p1",
  url: "http://quiet-river.preview.localhost:8443",
  host: "quiet-river.preview.localhost",
  clusterId: "c1",
  cluster: "staging",
  team,
  owner: { id: "bob", name: "Bob" },
  interceptId: "s:hello-0",
  intercept: "hello-0",
  workload,
  ingress: { host: "ingress.default", port: 443, tls: true },
  insecure: false,
  headers: [],
  banner: true,
  access: "team",
  state: "live",
  createdMs: 1_700_000_000_000,
  visitors: [{ who: "Eve", requests: 7, lastMs: 1_700_000_100_000 }],
});

test("a newcomer is told what to type, and anybody can use the page", async () => {
  const page = await open();
  await page.getByText("telepresence intercept WORKLOAD --port 8080").waitFor();
  await page.keyboard.press("3");
  await page.getByText(`telepresence login --cloud-url ${url}`).waitFor();
  await page.getByRole("button", { name: "Previews" }).click();
  await page.getByText("--preview-url").waitFor();
  await page.getByRole("button", { name: "People" }).click();
  await page.getByRole("option").click();
  await page.getByRole("link", { name: "Rights, teams and logins of Ann" }).waitFor();
  expect(await violations(page)).toEqual([]);
  await page.getByRole("button", { name: "Audit log" }).click();
  await page.getByText("login.browser").waitFor();
  expect(complaints).toEqual([]);
});

test.each(["light", "dark"] as const)("anybody can use the audit log, %s at 400 pixels", async (colorScheme) => {
  const page = await open({ colorScheme, width: 400 });
  await page.getByRole("button", { name: "Audit log" }).click();
  const first = page.getByRole("option").first();
  await first.waitFor();
  expect(await violations(page)).toEqual([]);
  await first.click();
  await page.getByRole("region", { name: "What was chosen" }).getByText("login.browser").first().waitFor();
  expect(await violations(page)).toEqual([]);
  expect(await page.evaluate<number>("document.documentElement.scrollWidth - innerWidth")).toBeLessThanOrEqual(0);
  expect(complaints).toEqual([]);
});

test.each<Look & { readonly name: string }>([
  { name: "light", colorScheme: "light" },
  { name: "dark", colorScheme: "dark" },
  { name: "400 pixels", width: 400 },
  { name: "400 pixels, dark", width: 400, colorScheme: "dark" },
])("ten thousand intercepts are scrolled and searched at once: $name", async ({ name: _name, ...look }) => {
  const page = await open({ ...look, told: { clusters: [clusterOf(10_000)], previews: [preview] } });
  const rows = page.getByRole("option");
  await expect.poll(() => rows.first().textContent()).toContain("hello-0");
  expect(await rows.count()).toBeLessThan(60);
  await page.getByRole("listbox").press("End");
  await page.getByRole("heading", { name: "hello-9999" }).waitFor();
  await page.getByRole("button", { name: "Close" }).click();
  await page.getByRole("searchbox").fill("hello-777 waiting");
  await page.getByText("6 of 10000").waitFor();
  await page.getByRole("listbox").press("Home");
  const detail = page.getByRole("region", { name: "What was chosen" });
  await detail.getByText("bob@laptop").waitFor();
  expect(await violations(page)).toEqual([]);
  const overflow = await page.evaluate<number>("document.documentElement.scrollWidth - innerWidth");
  expect(overflow).toBeLessThanOrEqual(0);
  expect(complaints).toEqual([]);
});

test("a preview is made public, shared and removed, with the form's token, and a refusal is said", async () => {
  const page = await open({ told: { clusters: [clusterOf(1)], previews: [preview] } });
  const sent: (string | null)[] = [];
  const share = { id: "s1", by: "Ann", createdMs: 1_700_000_000_000, expiresMs: 1_800_000_000_000 };
  await page.route("**/api/previews/**", async (route) => {
    const request = route.request();
    const path = new URL(request.url()).pathname;
    if (request.method() === "GET") return route.fulfill({ json: { shares: [share] } });
    expect((await request.allHeaders())["x-csrf-token"]).toMatch(/^[\w-]{43}$/);
    sent.push(`${request.method()} ${path} ${request.postData()}`);
    if (request.method() === "DELETE" && path.endsWith("/p1"))
      return route.fulfill({ status: 403, json: { error: "this preview is Bob's" } });
    return route.fulfill({ json: path.endsWith("/shares") ? { ...share, url: `${preview.url}/?share=secret` } : {} });
  });
  page.on("dialog", (dialog) => void dialog.accept());
  await page.getByRole("button", { name: "Previews" }).click();
  await page.getByRole("option").click();
  const detail = page.getByRole("region", { name: "What was chosen" });
  await detail.getByText("7 requests").waitFor();
  await detail.getByRole("button", { name: "Make it public" }).click();
  await expect.poll(() => sent).toEqual(['POST /api/previews/p1/access {"access":"public"}']);
  await detail.getByRole("button", { name: "Make a link" }).click();
  await detail.getByText("?share=secret").waitFor();
  await detail.getByRole("button", { name: /^Revoke/ }).click();
  await expect.poll(() => sent.at(-1)).toContain("DELETE /api/previews/p1/shares/s1");
  await detail.getByRole("button", { name: "Remove" }).click();
  await detail.getByText("this preview is Bob's").waitFor();
  expect(await violations(page)).toEqual([]);
});

test("an intercept is ended by its button, and looked at on the inspector's page", async () => {
  const page = await open({ told: { clusters: [clusterOf(1)] } });
  const ended: string[] = [];
  await page.route("**/api/clusters/**", async (route) => {
    const { pathname } = new URL(route.request().url());
    if (route.request().method() === "DELETE") ended.push(decodeURIComponent(pathname));
    if (!pathname.endsWith("/api/events")) return route.fulfill({ json: {} });
    const intercept = { name: "hello-0", workload: "hello", namespace: "default", state: "active", ports: [] };
    const line = JSON.stringify({ kind: "intercepts", intercepts: [intercept], connected: true });
    return route.fulfill({ contentType: "application/x-ndjson", body: `${line}\n` });
  });
  page.on("dialog", (dialog) => void dialog.accept());
  await page.getByRole("option").click();
  await page.getByRole("button", { name: "End the intercept" }).click();
  await expect.poll(() => ended).toEqual(["/api/clusters/c1/intercepts/s:hello-0"]);
  await page.getByRole("link", { name: "Look at its requests" }).click();
  await page.getByRole("heading", { name: "Requests to hello-0 of bob@laptop" }).waitFor();
  await page.getByText("hello in default").waitFor();
  expect(await page.getByRole("button", { name: "Clear" }).count()).toBe(0);
  await page.getByRole("link", { name: "Dashboard" }).click();
  await page.getByRole("heading", { name: "Dashboard" }).waitFor();
});

// What the traffic-manager says of an intercept is the first thing its team needs to know when it does not work.
test("an intercept that does not take traffic says why", async () => {
  const cluster = clusterOf(1);
  const message = "the pod hello-7 has no agent: its namespace forbids ephemeral containers";
  const intercepts = cluster.intercepts.map((intercept) => ({ ...intercept, state: "waiting" as const, message }));
  const page = await open({ told: { clusters: [{ ...cluster, intercepts }] } });
  const row = page.getByRole("option");
  await row.getByText("waiting").waitFor();
  await row.click();
  await page.getByText(`waiting: ${message}`).waitFor();
  expect(await violations(page)).toEqual([]);
});

test("plots say how many requests came to previews, and how long they took", async () => {
  const steps = [
    { count: 2, halfMs: 9, mostMs: 20 },
    { count: 0, halfMs: 0, mostMs: 0 },
    { count: 3, halfMs: 15, mostMs: 50 },
  ];
  const page = await open({ told: { traffic: { stepMs: 10_000, steps } } });
  const rate = page.getByRole("img", { name: /^Requests to previews in each 10 seconds: 5 in / });
  await rate.waitFor();
  const heights = await rate
    .locator("rect")
    .evaluateAll((bars) => bars.map((bar) => Number(bar.getAttribute("height"))));
  expect(heights.map((height) => height / Math.max(...heights))).toEqual([expect.closeTo(2 / 3), 1]);
  const latency = page.getByRole("img", { name: "Time of 95 % of them: 50 ms, half 15 ms" });
  expect(await latency.locator("rect").count()).toBe(2);
});

test("what changes at the server appears by itself", async () => {
  const page = await open();
  await page.getByRole("button", { name: "People" }).click();
  await page.getByRole("option", { name: "Ann" }).waitFor();
  await page.getByText("everyone", { exact: true }).waitFor();
  // as somebody else's page would
  await page.evaluate(`fetch("/api/dashboard").then((answer) => answer.json()).then(({ csrf, me }) =>
    fetch(\`/people/\${me.id}/teams\`, { method: "POST", body: new URLSearchParams({ csrf, team: "second" }) }))`);
  await page.getByText("everyone, second").waitFor();
  await page.getByRole("button", { name: "Audit log" }).click();
  await page.getByText("person.joined").waitFor();
  expect(complaints).toEqual([]);
});
