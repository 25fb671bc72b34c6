// The cloud server's pages in a real browser: what it sends with a form (Origin, cookies) and where a form may lead are
// the browser's to decide, and tests that play one send what they expect of it.
import { once } from "node:events";
import { createServer } from "node:http";
import type { IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import axe from "axe-core";
import { chromium, type Browser, type Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { startCloud, type Cloud } from "#cloud/cloud.ts";
import { parseCloudConfig } from "#cloud/config.ts";
import { cloudClientId, deviceGrantType, type DeviceAnswer } from "#wire/cloud-api.ts";

let browser: Browser;
let cloud: Cloud;
let page: Page;
let url: string;

beforeAll(async () => {
  const words = ["serve", "--listen", "127.0.0.1:0", "--database", "sqlite::memory:"];
  const config = parseCloudConfig(words, () => undefined, {});
  cloud = await startCloud({ config, clock: systemClock, log: silentLogger });
  url = `http://localhost:${cloud.port}`;
  // Root has no sandbox of Chromium's; the pages are our own.
  browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
  page = await browser.newPage();
  page.setDefaultTimeout(10_000);
});
afterAll(async () => {
  await browser.close();
  await cloud[Symbol.asyncDispose]();
});

const ask = async (path: string, fields: Readonly<Record<string, string>>): Promise<unknown> => {
  const body = new URLSearchParams({ client_id: cloudClientId, ...fields });
  return (await fetch(`${url}${path}`, { method: "POST", body })).json();
};

/** As the page's browser would. */
async function fetchAs(path: string): Promise<Response> {
  const cookie = (await page.context().cookies()).map(({ name, value }) => `${name}=${value}`).join("; ");
  return fetch(`${url}${path}`, { headers: { cookie } });
}

/** Rules of accessibility that the page breaks. */
async function violations(look: Page): Promise<string[]> {
  await look.evaluate(axe.source);
  const { violations: found } = await look.evaluate<{ violations: { id: string }[] }>("axe.run()");
  return found.map(({ id }) => id);
}

const overflow = (look: Page): Promise<number> =>
  look.evaluate<number>("Math.max(0, document.documentElement.scrollWidth - innerWidth)");

/** What a mouse could use and the Tab key does not come to. */
const unreachable = (look: Page): Promise<string[]> =>
  look.evaluate<string[]>(`[...document.querySelectorAll("a[href], button, input:not([type=hidden]), select")]
    .filter((part) => part.tabIndex < 0 || part.disabled).map((part) => part.outerHTML)`);

test("the first administrator comes in by the printed link", async () => {
  await page.goto(/http\S+\/invite\/\S+/.exec(cloud.greeting.join("\n"))?.[0] ?? "");
  await page.getByLabel("Your name").fill("Ann");
  await page.getByLabel("Name to log in with").fill("ann");
  await page.getByLabel("Password").fill("correct horse battery");
  await page.getByRole("button", { name: "Create the account" }).click();
  await page.getByText("Ann, an administrator").waitFor();
});

test("a yes on the page leads to the laptop's own port with a code", async () => {
  const requests: IncomingMessage[] = [];
  const laptop = createServer((request, response) => {
    requests.push(request);
    response.end("seen");
  }).listen(0, "127.0.0.1");
  await once(laptop, "listening");
  const target = `http://127.0.0.1:${(laptop.address() as AddressInfo).port}/callback`;
  const wanted = { client_id: cloudClientId, response_type: "code", redirect_uri: target, state: "s" };
  const proof = { code_challenge: "c".repeat(43), code_challenge_method: "S256" };
  await page.goto(`${url}/oauth/authorize?${new URLSearchParams({ ...wanted, ...proof })}`);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByText("seen").waitFor();
  expect(requests[0]?.url).toMatch(/^\/callback\?state=s&code=tpc_/);
  expect(requests[0]?.headers.referer).toBeUndefined();
  laptop.close();
  laptop.closeAllConnections();
});

test("a code that is typed logs a device in", async () => {
  const { user_code, device_code } = (await ask("/oauth/device", { device: "build-7" })) as DeviceAnswer;
  await page.goto(`${url}/device`);
  await page.getByLabel("The code").fill(user_code);
  await page.getByRole("button", { name: "Continue" }).click();
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByText("The device is logged in.").waitFor();
  expect(await ask("/oauth/token", { grant_type: deviceGrantType, device_code })).toMatchObject({
    token_type: "Bearer",
  });
});

describe.each([
  ["dark", 400],
  ["light", 400],
] as const)("everybody can use the pages, %s at %i pixels", (colorScheme, width) => {
  test("of people, of oneself, of logins, and those that say no", async () => {
    const cookies = await page.context().cookies();
    const me = (await (await fetchAs("/api/dashboard")).json()) as { readonly me: { readonly id: string } };
    const ours = ["/", "/people", `/people/${me.me.id}`, "/audit", "/password", "/device?code=AAAA-AAAA"];
    const nobodys = new URL(url);
    nobodys.hostname = "nobody.preview.localhost";
    const refusals = ["/nowhere", nobodys.href, `${nobodys.href}?telepresence-share=tps_x`];
    const anybodys = ["/login", "/invite/unknown", ...refusals];
    for (const [paths, jar] of [
      [ours, cookies],
      [anybodys, []],
    ] as const) {
      await using context = await browser.newContext({ viewport: { width, height: 800 }, colorScheme });
      await context.addCookies([...jar]);
      const look = await context.newPage();
      for (const path of paths) {
        await look.goto(new URL(path, url).href);
        expect([path, (await look.locator("main").textContent())?.trim()]).not.toEqual([path, ""]);
        expect([path, await violations(look)]).toEqual([path, []]);
        expect([path, await overflow(look)]).toEqual([path, 0]);
        expect([path, await unreachable(look)]).toEqual([path, []]);
      }
    }
  });
});
