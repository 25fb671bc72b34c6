// Pictures of the dashboard for docs/images, taken of the real page on a real server in Chromium, with clusters and
// previews that are told to it. `npm run screenshots`; Chromium is Debian's.
import { mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";
import type { Browser, Page } from "playwright-core";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { startCloud } from "#cloud/cloud.ts";
import { parseCloudConfig } from "#cloud/config.ts";
import type { ClusterView, PreviewView } from "#wire/cloud-api.ts";
import type { DashboardSnapshot } from "#wire/dashboard-api.ts";
import type { ExchangeSummary, ExchangeView, InspectorEvent } from "#wire/inspector-api.ts";
import { bundlePage, projectRoot } from "#scripts/bundle.ts";

const folder = join(projectRoot, "docs", "images");
/** Constant, so that a picture changes with the page alone. */
const nowMs = Date.UTC(2026, 0, 15, 10, 30);
const team = { id: "t1", name: "shop" };
const people = [
  ["ann", "Ann Baker"],
  ["bob", "Bob Cole"],
  ["eve", "Eve Diaz"],
] as const;
const services = ["cart", "checkout", "catalog", "search", "billing"];

const intercepts: ClusterView["intercepts"] = services.map((name, at) => ({
  id: `s${at}:${name}`,
  name,
  workload: { kind: "Deployment", name, namespace: "shop" },
  client: `${people[at % 3]?.[0]}@laptop`,
  state: at === 3 ? "waiting" : "active",
  message: "",
  ...(at === 1 ? { filter: "x-user = ann" } : {}),
  createdAtMs: nowMs - at * 1_700_000,
  pods: 1 + (at % 3),
  previewIds: at < 2 ? [`p${at}`] : [],
  own: at === 0,
}));
const clusters: readonly ClusterView[] = [
  { id: "c1", name: "staging", team, live: true, managerVersion: "0.1.0", intercepts, more: 0 },
  { id: "c2", name: "load-test", team, live: false, intercepts: [], more: 0 },
];
const previews: readonly PreviewView[] = ["quiet-river-4821", "brave-lake-1177"].map((name, at) => ({
  id: `p${at}`,
  url: `https://${name}.preview.example.net`,
  host: `${name}.preview.example.net`,
  clusterId: "c1",
  cluster: "staging",
  team,
  owner: { id: people[at]?.[0] ?? "", name: people[at]?.[1] ?? "" },
  interceptId: `s${at}:${services[at]}`,
  intercept: services[at] ?? "",
  workload: { kind: "Deployment", name: services[at] ?? "", namespace: "shop" },
  ingress: { host: "ingress-nginx-controller.ingress-nginx", port: 443, tls: true, l5host: "shop.example.com" },
  insecure: false,
  headers: [],
  banner: true,
  access: at === 0 ? "team" : "public",
  state: "live",
  createdMs: nowMs - 3_600_000,
  visitors: people
    .slice(1)
    .map(([, who], place) => ({ who, requests: 120 - place * 77, lastMs: nowMs - place * 60_000 })),
}));
const told: Partial<DashboardSnapshot> = {
  clusters,
  previews,
  people: people.map(([id, name], at) => ({ id, name, admin: at === 0, teams: [team] })),
  traffic: {
    stepMs: 10_000,
    steps: Array.from({ length: 60 }, (_, at) => {
      const count = Math.round(40 + 30 * Math.sin(at / 6) + ((at * 13) % 17));
      return { count, halfMs: 15, mostMs: [30, 50, 70, 100][(at * 7) % 4] ?? 30 };
    }),
  },
};

const exchanges: readonly ExchangeSummary[] = Array.from({ length: 40 }, (_, at) => ({
  id: at + 1,
  revision: 1,
  intercept: "cart",
  podName: "cart-6d9f7c-x2x8p",
  caller: "10.42.0.17:41522",
  method: at % 5 === 4 ? "POST" : "GET",
  target: at % 5 === 4 ? "/cart/items" : `/cart?user=${1000 + at * 7}`,
  host: "cart.shop",
  version: "HTTP/1.1",
  status: at % 11 === 7 ? 503 : 200,
  state: "done",
  startedAt: Date.now() - (40 - at) * 1200,
  requestEndMs: 0.4,
  answerStartMs: 9 + ((at * 5) % 21),
  answerEndMs: 11 + ((at * 5) % 21),
  requestBytes: at % 5 === 4 ? 52 : 0,
  answerBytes: 212,
  contentType: "application/json",
  answeredBy: "laptop",
}));

function viewOf(summary: ExchangeSummary): ExchangeView {
  const body = (text: string) => ({ bytes: text.length, cut: false, text, hidden: false });
  return {
    ...summary,
    processAddress: "127.0.0.1:8080",
    linkMs: 2.8,
    requestHeaders: [
      { name: "host", value: "cart.shop" },
      { name: "authorization", value: "•••", hidden: true },
      { name: "x-telepresence-intercept-id", value: "s0:cart" },
    ],
    requestBody: body(""),
    answerHeaders: [{ name: "content-type", value: "application/json" }],
    answerTrailers: [],
    answerBody: body('{"items":[{"id":7,"name":"lamp","count":2}],"total":5980}'),
  };
}

async function main(): Promise<void> {
  const pageFolder = mkdtempSync(join(tmpdir(), "telepresence-page-"));
  await bundlePage(pageFolder, "team");
  const words = ["serve", "--listen", "127.0.0.1:0", "--database", "sqlite::memory:"];
  const config = parseCloudConfig(words, () => undefined, {});
  const cloud = await startCloud({ config, clock: systemClock, log: silentLogger, pageFolder });
  const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
  try {
    mkdirSync(folder, { recursive: true });
    await shoot(browser, `http://localhost:${cloud.port}`, cloud.greeting.join("\n"));
  } finally {
    await browser.close();
    await cloud[Symbol.asyncDispose]();
    rmSync(pageFolder, { recursive: true });
  }
}

async function shoot(browser: Browser, url: string, greeting: string): Promise<void> {
  const context = await browser.newContext({
    viewport: { width: 1120, height: 620 },
    locale: "en-GB",
    timezoneId: "UTC",
  });
  const page = await context.newPage();
  await page.goto(/http\S+\/invite\/\S+/.exec(greeting)?.[0] ?? "");
  await page.getByLabel("Your name").fill("Ann Baker");
  await page.getByLabel("Name to log in with").fill("ann");
  await page.getByLabel("Password").fill("correct horse battery");
  await page.getByRole("button", { name: "Create the account" }).click();
  await tell(page);
  await page.goto(`${url}/dashboard`);
  await page.getByRole("option").first().click();
  await save(page, "dashboard-intercepts");
  await page.keyboard.press("2");
  await page.emulateMedia({ colorScheme: "dark" });
  await page.getByRole("option").first().click();
  await page.getByText("Links for others").waitFor();
  await save(page, "dashboard-previews");
  await page.emulateMedia({ colorScheme: "light" });
  await page.goto(`${url}/dashboard#inspect/c1/s0%3Acart`);
  await page.getByRole("listbox").press("End");
  await page.getByRole("heading", { name: /\/cart/ }).waitFor();
  await save(page, "dashboard-inspector");
}

const inspected = { name: "cart", workload: "cart", namespace: "shop", state: "active", ports: [] };

async function tell(page: Page): Promise<void> {
  await page.route("**/api/dashboard*", async (route) => {
    if (route.request().url().includes("after=")) return;
    const response = await route.fetch();
    await route.fulfill({ response, json: { ...((await response.json()) as object), ...told } });
  });
  await page.route("**/shares", (route) => {
    const share = { id: "s", by: "Ann Baker", createdMs: nowMs, expiresMs: nowMs + 86_400_000 };
    return route.fulfill({ json: { shares: [share] } });
  });
  const lines: readonly InspectorEvent[] = [
    { kind: "intercepts", intercepts: [inspected], connected: true },
    { kind: "exchanges", changed: exchanges, oldest: 1 },
  ];
  // a stream that stays open, which a route's answer does not
  await page.addInitScript(
    (text) => {
      const original = globalThis.fetch;
      globalThis.fetch = async (input, init) => {
        if (!String(input).endsWith("/inspect/api/events")) return original(input, init);
        return new Response(new ReadableStream({ start: (body) => body.enqueue(new TextEncoder().encode(text)) }));
      };
    },
    lines.map((line) => `${JSON.stringify(line)}\n`).join(""),
  );
  await page.route("**/inspect/api/**", async (route) => {
    const [, id] = /exchanges\/(\d+)$/.exec(route.request().url()) ?? [];
    const summary = exchanges[Number(id) - 1];
    if (summary !== undefined) return route.fulfill({ json: viewOf(summary) });
    return route.fulfill({ json: {} });
  });
}

async function save(page: Page, name: string): Promise<void> {
  const path = join(folder, `${name}.png`);
  await page.screenshot({ path });
  process.stdout.write(`${name}.png: ${Math.round(statSync(path).size / 1024)} kB\n`);
}

await main();
