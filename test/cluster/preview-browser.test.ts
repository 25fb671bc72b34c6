// The whole way of a preview: login, preview, team, dashboard, inspector, share link, revocation, logout, in a real browser on the
// real cluster. Browser and cloud server are on the laptop, as in the README's try-out; the cluster's ingress is the
// service itself, then one with TLS, and the server's tunnel comes from the manager by way of the laptop.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Lab, apply, fixture, kubectl, report, rolledOut, until, webApp, type Running } from "./lab.ts";
import { createAccount, launchOnLaptop, profile, submit } from "./laptop-browser.ts";
import { Authority, ingressClass, ingressLog, removeIngress, startIngress } from "./small-ingress.ts";
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
  browser = await launchOnLaptop(scratch);
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
  await removeIngress(namespace);
});

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
  ann = await profile(browser);
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
  const invitations = await profile(browser);
  await ann.goto(`${url}/`);
  await submit(ann, "Make a link");
  const link = (await ann.locator("code").first().textContent()) ?? "";
  await createAccount(invitations, link, ["Bob", "bob"]);
  await invitations.context().close();
  const bob = await profile(browser);
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
  const guest = await profile(browser);
  await guest.goto(/https?:\/\/\S+telepresence-share=\S+/.exec(shared)?.[0] ?? "");
  await isLaptop(guest);
  expect(guest.url()).not.toContain("telepresence-share");
  await lab.ok("preview", "share", "shop", "--revoke");
  await guest.goto(previewUrl);
  await guest.getByLabel("Password").waitFor();
  await guest.context().close();
});

describe("a preview through an ingress with TLS, whose certificate is of a private authority,", () => {
  const host = "shop.example.com";
  const entry = [
    "--ingress-host",
    `entry.${namespace}`,
    "--ingress-port",
    "443",
    "--ingress-tls",
    "--ingress-l5",
    host,
  ];
  const make = (...more: readonly string[]): Promise<string> => lab.ok("preview", "create", "shop", ...entry, ...more);
  let authority: Authority;

  beforeAll(async () => {
    authority = await Authority.make(scratch);
    await authority.putSecret(namespace, "shop-tls", host);
    const backend = { service: { name: "shop", port: { number: 80 } } };
    const spec = {
      ingressClassName: ingressClass,
      tls: [{ hosts: [host], secretName: "shop-tls" }],
      rules: [{ host, http: { paths: [{ path: "/", pathType: "Prefix", backend }] } }],
    };
    await apply(namespace, { apiVersion: "networking.k8s.io/v1", kind: "Ingress", metadata: { name: "shop" }, spec });
    await startIngress(namespace, ["entry"]);
  });

  test("says what is to be done, where nobody has named the authority", async () => {
    await make();
    const answer = await ann.goto(`${previewUrl}/unnamed`);
    expect(answer?.status()).toBe(502);
    const said = (await ann.locator("main").textContent()) ?? "";
    report("a preview whose ingress nobody vouches for", said);
    expect(said).toContain("--ingress-ca FILE");
    expect(said).toContain("--ingress-insecure");
    expect(await ingressLog(namespace)).not.toContain("/unnamed");
  });

  test.each([
    ["with --ingress-ca", (): string[] => ["--ingress-ca", authority.file], "/named"],
    ["with --ingress-insecure", (): string[] => ["--ingress-insecure"], "/unverified"],
  ])("is the laptop's page %s, and the ingress sees its own name", async (how, flags, path) => {
    await make(...flags());
    await ann.goto(`${previewUrl}${path}`);
    await isLaptop(ann);
    const seen = (await ingressLog(namespace)).split("\n").filter((line) => line.endsWith(` ${path}`));
    report(`what the ingress saw of a preview ${how}`, seen);
    expect(seen).toEqual([`sni ${host} host ${host} to shop.${namespace}.svc:80 GET ${path}`]);
    expect(await byAnother()).toContain("Hello from the cluster");
  });
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
  const page = await profile(browser);
  await page.goto(`http://shop.${namespace}/`);
  await isPod(page);
  await page.context().close();
}
