// The inspector as a person sees it: a real session, manager and agent, a real browser, callers and processes that are
// real servers. What is looked at is the page, by what it says, not by how it is made.
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, request, type IncomingMessage } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { duplexPair } from "node:stream";
import { buffer } from "node:stream/consumers";
import { setImmediate as turn } from "node:timers/promises";
import axe from "axe-core";
import { chromium, type Browser, type BrowserContext, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { Inspector } from "#daemon/inspector/inspector.ts";
import { silentLogger } from "#base/log.ts";
import { bundlePage } from "#scripts/bundle.ts";
import { anything, never, testManager } from "#test/flow/manager/harness.ts";
import { Cluster, lab, noNetwork, openSession, params, portOf, quiet, stack } from "#test/flow/session/session-lab.ts";

let browser: Browser;
let pageFolder: string;
const contexts: BrowserContext[] = [];
/** What the browser complained about, a policy that was violated for one. */
let complaints: string[] = [];

beforeAll(async () => {
  pageFolder = mkdtempSync(join(tmpdir(), "telepresence-page-"));
  await bundlePage(pageFolder, "inspector");
  // Root has no sandbox of Chromium's; the pages are our own.
  browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
});
afterEach(async () => {
  for (const context of contexts.splice(0)) await context.close();
  complaints = [];
});
afterAll(async () => {
  await browser.close();
  rmSync(pageFolder, { recursive: true });
});

interface Look {
  readonly width?: number;
  readonly colorScheme?: "light" | "dark";
}

async function open(url: string, { width = 1280, colorScheme = "light" }: Look = {}): Promise<Page> {
  const context = await browser.newContext({ viewport: { width, height: 800 }, colorScheme });
  contexts.push(context);
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const page = await context.newPage();
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.goto(url);
  return page;
}

/** Rules of accessibility that the page breaks. */
async function violations(page: Page): Promise<string[]> {
  await page.evaluate(axe.source);
  const { violations: found } = await page.evaluate<{ violations: { id: string }[] }>("axe.run()");
  return found.map(({ id }) => id);
}

async function httpServer(name: string): Promise<number> {
  const server = createServer(async (incoming, response) => {
    const body = (await buffer(incoming)).toString();
    response.setHeader("content-type", "application/json");
    response.statusCode = incoming.url === "/broken" ? 503 : 200;
    response.end(JSON.stringify({ by: name, path: incoming.url?.replace(/token=.*/, "…"), bytes: body.length }));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  stack.use({
    [Symbol.dispose]: () => {
      server.close();
      server.closeAllConnections();
    },
  });
  return (server.address() as AddressInfo).port;
}

async function call(port: number, path: string, body?: string): Promise<string> {
  const headers = { authorization: "Bearer s3cret" };
  const method = body === undefined ? "GET" : "POST";
  const sending = request({ port, host: "127.0.0.1", path, method, headers, agent: false });
  sending.end(body);
  const [response] = (await once(sending, "response")) as [IncomingMessage];
  return (await buffer(response)).toString();
}

describe("the page of one's own intercepts", () => {
  test("shows requests as they come, sends them again, and compares the laptop's answer with the pod's", async () => {
    const { cluster } = await lab();
    const session = stack.use(await openSession(cluster, "eve@laptop", noNetwork, { pageFolder }));
    const [laptop, pod] = [await httpServer("laptop"), await httpServer("pod")];
    await session.intercept(params(laptop), quiet, never);
    const port = portOf(cluster.agents.get("hello-1"));
    cluster.podPorts.set(`hello-1:${session.intercepts[0]?.spec.ports[0]?.containerPort}`, pod);
    const page = await open((await session.openInspector([])).url);
    await page.getByText("No request has come").waitFor();
    expect(page.url()).not.toContain("#"); // the key is not left in the address
    expect(await call(port, "/cart?id=7")).toContain('"by":"laptop"');
    expect(await call(port, "/broken")).toContain("laptop");
    expect(await call(port, "/order", '{"password":"s3cret"}')).toContain("laptop");
    const rows = page.getByRole("option");
    await expect.poll(() => rows.count()).toBe(3);
    await page.keyboard.press("/");
    await page.keyboard.type("status:5xx");
    await expect.poll(() => rows.allTextContents()).toEqual([expect.stringContaining("/broken")]);
    await page.keyboard.press("Escape"); // leaves the field, which said nothing and went on filtering
    await page.keyboard.press("x");
    expect(await page.getByRole("searchbox").inputValue()).toBe("status:5xx");
    await page.getByRole("searchbox").fill("method:post");
    await expect.poll(() => rows.allTextContents()).toEqual([expect.stringContaining("/order")]);
    await page.getByRole("searchbox").fill("");
    await page.getByRole("img", { name: "Requests in each second: 3 in the last minute" }).waitFor();
    const latency = page.getByRole("img", {
      name: /^Slowest answer in each second: half within .*ms, 95 % within .*ms$/,
    });
    expect(await latency.locator("rect").count()).toBeGreaterThan(0);
    await page.getByRole("listbox").press("End");
    await page.getByRole("listbox").press("ArrowUp");
    await page.getByRole("heading", { name: "503 GET /broken" }).waitFor();
    await page.getByRole("listbox").press("Home");
    const detail = page.getByRole("region", { name: "The chosen request" });
    await detail.getByText('"path": "/cart?id=7"').waitFor();
    await detail.getByText(/\S+ → hello-1 → 127\.0\.0\.1:\d+, HTTP\/1\.1$/).waitFor();
    await detail
      .getByText(/^request \S+ ms, waiting \S+ ms, answer \S+ ms; from the pod to the laptop and back \S+ ms more$/)
      .waitFor();
    await detail.getByRole("button", { name: "Compare with the pod" }).click();
    const changed = detail.locator(".difference .left, .difference .right");
    await expect.poll(() => changed.allTextContents()).toEqual(['−   "by": "laptop",\n', '+   "by": "pod",\n']);
    await detail.getByRole("button", { name: "Send again" }).click();
    await expect.poll(() => rows.allTextContents()).toHaveLength(5);
    expect((await rows.allTextContents()).slice(3)).toEqual([
      expect.stringContaining("again, pod"),
      expect.stringContaining("again, laptop"),
    ]);
    expect(complaints).toEqual([]);
  });

  test("hides secrets until they are asked for, in what is copied and saved too", async () => {
    const { cluster } = await lab();
    const session = stack.use(await openSession(cluster, "eve@laptop", noNetwork, { pageFolder }));
    await session.intercept(params(await httpServer("laptop")), quiet, never);
    const page = await open((await session.openInspector(["x-hidden"])).url);
    await call(portOf(cluster.agents.get("hello-1")), "/order?token=s3cret", '{"password":"s3cret"}');
    await page.getByRole("option").click();
    const detail = page.getByRole("region", { name: "The chosen request" });
    await detail.getByText("password").first().waitFor();
    expect(await page.content()).not.toContain("s3cret");
    await detail.getByRole("button", { name: "Copy as curl" }).click();
    await detail.getByRole("button", { name: "Copied" }).waitFor();
    const copied = await page.evaluate<string>("navigator.clipboard.readText()");
    expect(copied).toContain("curl -i --globoff -X POST");
    expect(copied).not.toContain("s3cret");
    const downloading = page.waitForEvent("download");
    await page.getByRole("button", { name: "Save as HAR" }).click();
    const har = (await buffer(await (await downloading).createReadStream())).toString();
    expect(JSON.parse(har)).toMatchObject({ log: { version: "1.2", entries: [{ request: { method: "POST" } }] } });
    expect(har).not.toContain("s3cret");
    await detail.getByRole("checkbox", { name: "Show secrets" }).check();
    await detail.getByText("Bearer s3cret").waitFor();
    expect(complaints).toEqual([]);
  });

  test("says what to do when its address is not complete, and when the daemon is gone", async () => {
    const cluster = new Cluster(stack.use(await testManager({ guard: anything })));
    const session = await openSession(cluster, "eve@laptop", noNetwork, { pageFolder });
    const { url } = await session.openInspector([]);
    const stranger = await open(url.replace(/#.*/, ""));
    await stranger.getByText("This address is not complete").waitFor();
    const page = await open(url);
    await page.getByText("Nothing is intercepted now").waitFor();
    await session[Symbol.asyncDispose]();
    await page.getByText("The daemon does not answer").waitFor();
  });
});

describe("ten thousand requests", () => {
  test.each<Look & { readonly name: string }>([
    { name: "light", colorScheme: "light" },
    { name: "dark", colorScheme: "dark" },
    { name: "400 pixels", width: 400 },
    { name: "400 pixels, dark", width: 400, colorScheme: "dark" },
  ])("are scrolled and searched at once, and anybody can use the page: $name", async ({ name: _name, ...look }) => {
    const inspector = stack.use(
      new Inspector({
        pageFolder,
        intercepts: () => ({ intercepts: [], connected: true }),
        dial: () => Promise.reject(new Error("not here")),
        clock: systemClock,
        log: silentLogger,
      }),
    );
    const { url } = await inspector.open([]);
    await record(inspector, 10_000);
    const page = await open(url, look);
    await page.getByText("10000", { exact: true }).waitFor();
    const rows = page.getByRole("option");
    await expect.poll(() => rows.last().textContent()).toContain("/item/9999");
    expect(await rows.count()).toBeLessThan(60);
    await page.getByRole("listbox").press("Home");
    await page.getByRole("heading", { name: "200 GET /item/0", exact: true }).waitFor();
    await page.getByRole("listbox", { includeHidden: true }).evaluate((list) => list.blur());
    await page.keyboard.press("Escape");
    await expect.poll(() => rows.first().textContent()).toContain("/item/0");
    await page.getByRole("searchbox").fill("/item/777");
    await page.getByText("11 of 10000").waitFor();
    await page.getByRole("listbox").press("End");
    await page.getByRole("region", { name: "The chosen request" }).getByText("No body").first().waitFor();
    expect(await violations(page)).toEqual([]);
    const overflow = await page.evaluate<number>("document.documentElement.scrollWidth - innerWidth");
    expect(overflow).toBeLessThanOrEqual(0);
    expect(complaints).toEqual([]);
  });
});

/** As many requests as are kept, on one connection that nobody delays. */
async function record(inspector: Inspector, count: number): Promise<void> {
  const [caller, callerFar] = duplexPair();
  const [local, localFar] = duplexPair();
  const route = {
    intercept: "hello",
    containerPort: 80,
    podName: "hello-1",
    caller: "10.0.0.9:1",
    target: "127.0.0.1:1",
  };
  inspector.recorder.tap(route, caller, local);
  const [batch, answer] = [50, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"];
  for (let at = 0; at < count; at += batch) {
    const ids = Array.from({ length: batch }, (_none, index) => at + index);
    callerFar.write(ids.map((id) => `GET /item/${id} HTTP/1.1\r\nhost: shop\r\n\r\n`).join(""));
    await until(() => inspector.recorder.find(at + batch) !== undefined);
    localFar.write(answer.repeat(batch));
    await until(() => inspector.recorder.find(at + batch)?.state === "done");
  }
  for (const end of [caller, callerFar, local, localFar]) end.destroy();
}

async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await turn(); // the tier's time limit ends it
}
