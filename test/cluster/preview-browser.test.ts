// The whole way of a preview: login, preview, team, dashboard, inspector, share link, revocation, logout, in a real browser on the
// real cluster. Browser and cloud server are on the laptop, as in the README's try-out; the cluster's ingress is the
// service itself, and the server's tunnel comes from the manager by way of the laptop.
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium, type Browser, type BrowserContext, type Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import * as cluster from "#testbed/cluster.ts";
import { Lab, apply, fixture, kubectl, report, rolledOut, until, webApp, type Running } from "./lab.ts";
import { stage } from "./stage.ts";
import { startToolsPod } from "./tools-pod.ts";

const namespace = "it-preview";
const lab = new Lab({ managerNamespace: "it-manager" });
const url = "http://localhost:8443";
const scratch = mkdtempSync(join(tmpdir(), "telepresence-preview-"));
let browser: Browser;
let server: Running;
/** The process that the intercept leads to. */
let laptop: Running;
/** Made by the tests in turn; each a profile of its own. */
let ann: Page;
let previewUrl = "";

stage([lab], namespace);
beforeAll(async () => {
  // A pipe leads to the browser, so it may be in the laptop's network. Root has no sandbox of Chromium's.
  const executablePath = join(scratch, "browser");
  const { file, args } = cluster.laptop(["/usr/bin/chromium"], { user: "root" });
  writeFileSync(executablePath, `#!/bin/sh\nexec ${[file, ...args].map((word) => `'${word}'`).join(" ")} "$@"\n`);
  chmodSync(executablePath, 0o755);
  browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  server = lab.spawn(["telepresence", "cloud", "serve", "--database", "sqlite::memory:"]);
  await server.says("/invite/");
  laptop = lab.spawn(fixture("laptop-server.mjs", "18950"));
  await laptop.says("listens on");
  await apply(namespace, ...webApp({ name: "shop" }));
  await startToolsPod(namespace, "caller");
  await rolledOut(namespace, "deployment/shop");
});
afterAll(async () => {
  await lab.cli(["logout"]);
  await browser?.close();
  for (const running of [server, laptop]) {
    running?.kill();
    await running?.ends();
  }
  rmSync(scratch, { recursive: true });
});

async function profile(): Promise<Page> {
  const context: BrowserContext = await browser.newContext();
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  return page;
}

const submit = (page: Page, name: string): Promise<void> => page.getByRole("button", { name, exact: true }).click();

async function createAccount(page: Page, link: string, [name, login]: readonly [string, string]): Promise<void> {
  await page.goto(link);
  await page.getByLabel("Your name").fill(name);
  await page.getByLabel("Name to log in with").fill(login);
  await page.getByLabel("Password").fill(`password of ${login}`);
  await submit(page, "Create the account");
  await page.getByText(`Logged in as ${name}`).waitFor();
}

const isPod = async (page: Page): Promise<void> => await page.getByText("Hello from the cluster").waitFor();
const isLaptop = async (page: Page): Promise<void> => await page.getByText("hello from laptop").waitFor();
/** What somebody in the cluster gets who knows nothing of the preview. */
const byAnother = (): Promise<string> =>
  kubectl(
    "exec",
    "-n",
    namespace,
    "caller",
    "--",
    "node",
    "-e",
    `fetch("http://shop").then((answer) => answer.text()).then(console.log)`,
  );

test("the first administrator comes in by the printed link, and the laptop by a code", async () => {
  ann = await profile();
  await createAccount(ann, /http\S+\/invite\/\S+/.exec(server.said)?.[0] ?? "", ["Ann", "ann"]);
  await using login = lab.start(["login", "--device", "--cloud-url", url]);
  await login.says("enter the code");
  const [, page = "", code = ""] = /Open (\S+) .*the code (\S+)/.exec(login.said) ?? [];
  await ann.goto(page);
  await ann.getByLabel("The code").fill(code);
  await submit(ann, "Continue");
  await submit(ann, "Log in");
  expect(await login.ends()).toBe(0);
  expect(login.said).toContain("Login successful.");
  expect(await lab.ok("status")).toContain(`Ann at ${url}`);
});

test("a preview is the laptop's page for whoever is logged in, and the pod's for everybody else", async () => {
  await lab.ok("connect", "-n", namespace);
  const ingress = ["--ingress-host", `shop.${namespace}`, "--ingress-port", "80", "--ingress-l5", `shop.${namespace}`];
  const said = await lab.ok("intercept", "shop", "--port", "18950", "--preview-url", ...ingress);
  report("intercept with a preview", said);
  previewUrl = /https?:\/\/\S+\.preview\.localhost:8443/.exec(said)?.[0] ?? "";
  expect(previewUrl).not.toBe("");
  const startMs = Date.now();
  await until("the preview", async () => {
    await ann.goto(previewUrl);
    return (await ann.content()).includes("hello from laptop");
  });
  report("preview opened by who is logged in, ms after the command", Date.now() - startMs);
  expect(await byAnother()).toContain("Hello from the cluster");
});

test("a colleague is invited, and has to log in in another profile", async () => {
  const invitations = await profile();
  await ann.goto(`${url}/`);
  await submit(ann, "Make a link");
  const link = (await ann.locator("code").first().textContent()) ?? "";
  await createAccount(invitations, link, ["Bob", "bob"]);
  await invitations.context().close();
  const bob = await profile();
  await bob.goto(previewUrl);
  await bob.getByLabel("Name").fill("bob");
  await bob.getByLabel("Password").fill("password of bob");
  await submit(bob, "Log in");
  await isLaptop(bob);
  expect(new URL(bob.url()).origin).toBe(previewUrl);
  await bob.context().close();
});

test("the dashboard tells of it; its inspector shows a request, sends it again, and compares with the pod", async () => {
  await ann.goto(`${url}/dashboard`);
  await ann.getByRole("button", { name: "Previews" }).click();
  await ann.getByRole("option").first().click();
  await ann.getByRole("region", { name: "What was chosen" }).getByText("Bob").first().waitFor();
  await ann.getByRole("button", { name: "Intercepts" }).click();
  await ann.getByRole("option").first().click();
  await ann.getByRole("link", { name: "Look at its requests" }).click();
  await ann.getByText("No request has come").waitFor();
  const other = await ann.context().newPage();
  await other.goto(`${previewUrl}/cart`);
  await ann.getByRole("option", { name: "/cart" }).click();
  const detail = ann.getByRole("region", { name: "The chosen request" });
  await detail.getByText("hello from laptop").first().waitFor();
  await detail.getByRole("button", { name: "Compare with the pod" }).click();
  await detail.locator(".difference").getByText("Hello from the cluster").first().waitFor();
  const rows = await ann.getByRole("option").count();
  await detail.getByRole("button", { name: "Send again" }).click();
  await expect.poll(() => ann.getByRole("option").count(), { timeout: 10_000 }).toBeGreaterThan(rows);
});

test("a link opens it for somebody without a login, until it is revoked", async () => {
  const shared = await lab.ok("preview", "share", "shop", "--expires", "1h");
  const guest = await profile();
  await guest.goto(/https?:\/\/\S+telepresence-share=\S+/.exec(shared)?.[0] ?? "");
  await isLaptop(guest);
  expect(guest.url()).not.toContain("telepresence-share");
  await lab.ok("preview", "share", "shop", "--revoke");
  await guest.goto(previewUrl);
  await guest.getByLabel("Password").waitFor();
  await guest.context().close();
});

test("the preview ends with its intercept, the login with logout, and the connection with neither", async () => {
  await lab.ok("leave", "shop");
  const gone = await ann.goto(previewUrl);
  expect(gone?.status()).toBe(404);
  report("a preview that is gone", await ann.locator("main").textContent());
  expect(await byAnother()).toContain("Hello from the cluster");
  await lab.ok("logout");
  await ann.goto(`${url}/`);
  await ann.getByText("None is logged in.").waitFor();
  const said = await lab.cli(["preview", "list"]);
  expect(said.code).not.toBe(0);
  await stillConnected();
});

/** The laptop goes on to be in the cluster without any login. */
async function stillConnected(): Promise<void> {
  const page = await profile();
  await page.goto(`http://shop.${namespace}/`);
  await isPod(page);
  await page.context().close();
}
