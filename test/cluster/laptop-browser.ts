// A real browser in a laptop's network, and what people do with it at the cloud server.
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { chromium, type Browser, type Page } from "playwright-core";
import * as cluster from "#testbed/cluster.ts";

/** `folder` is the test's own. A pipe leads to the browser, so it may be in the laptop's network. */
export async function launchOnLaptop(folder: string, ...more: readonly string[]): Promise<Browser> {
  const executablePath = join(folder, "browser");
  const { file, args } = cluster.laptop(["/usr/bin/chromium"], { user: "root" });
  writeFileSync(executablePath, `#!/bin/sh\nexec ${[file, ...args].map((word) => `'${word}'`).join(" ")} "$@"\n`);
  chmodSync(executablePath, 0o755);
  // root has no sandbox of Chromium's
  return await chromium.launch({ executablePath, args: ["--no-sandbox", ...more] });
}

/** A browser profile of its own. */
export async function profile(browser: Browser, options: Parameters<Browser["newContext"]>[0] = {}): Promise<Page> {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  return page;
}

export const submit = (page: Page, name: string): Promise<void> =>
  page.getByRole("button", { name, exact: true }).click();

export async function createAccount(page: Page, link: string, [name, login]: readonly [string, string]): Promise<void> {
  await page.goto(link);
  await page.getByLabel("Your name").fill(name);
  await page.getByLabel("Name to log in with").fill(login);
  await page.getByLabel("Password").fill(`password of ${login}`);
  await submit(page, "Create the account");
  await page.getByText(`Logged in as ${name}`).waitFor();
}
