// The cloud server put into a real cluster by one command, under pod security level `restricted`: with a volume, then on
// PostgreSQL and with an outside identity provider, changed in place, and gone again without a trace, but for fields and
// objects that are somebody else's. A browser of the laptop comes to it by its Ingress.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { PostgresServer } from "#test/services/postgres-server.ts";
import * as layout from "#testbed/layout.ts";
import { Lab, Running, apply, fixture, kubectl, report, rolledOut, service, until, webApp } from "./lab.ts";
import { createAccount, launchOnLaptop, profile, submit } from "./laptop-browser.ts";
import { Authority, ingressClass, ingressLog, removeIngress, startIngress } from "./small-ingress.ts";
import { stage } from "./stage.ts";

const namespace = "it-cloud-server";
/** Of the ingress, and the names that lead to it. */
const entry = "it-cloud";
const [url, issuer] = [`https://cloud.${entry}`, `https://provider.${entry}`];
const previewDomain = "preview.example.net";
const providerPort = 4000;
const lab = new Lab({ managerNamespace: "it-cloud-manager" });
const volume = "it-cloud-volume";
const volumeFolder = join(layout.dataDir, volume);
const scratch = mkdtempSync(join(tmpdir(), "telepresence-cloud-"));
const node = layout.namespaceFile(layout.namespaces.node);
const kinds = "deployment,service,ingress,secret,persistentvolumeclaim";
const ingressFlags = ["--preview-domain", previewDomain, "--ingress-class", ingressClass];
const certificates = ["--tls-secret", "cloud-tls", "--preview-tls-secret", "preview-tls"];
let authority: Authority;
let browser: Browser;
let postgres: PostgresServer;
let provider: Running;

const install = (...more: readonly string[]): Promise<string> =>
  lab.ok("cloud", "install", "--url", url, "--cloud-namespace", namespace, ...more);
/** On a laptop that trusts the authority; the daemon is told of it by the first command. */
async function trusting(...words: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await lab.cli(words, { env: { NODE_EXTRA_CA_CERTS: authority.file } });
  expect([words, code, stderr.replaceAll(/^Warning: .*\n/gm, "")]).toEqual([words, 0, ""]);
  if (stderr !== "") report(`warnings of ${words[0]}`, stderr);
  return stdout;
}
const names = async (): Promise<readonly string[]> =>
  (await kubectl("get", kinds, "-n", namespace, "-o", "name")).split("\n").filter((name) => name !== "");
const serverLog = (): Promise<string> => kubectl("logs", "-n", namespace, "deployment/telepresence-cloud");

stage([lab], entry);
async function remove(): Promise<void> {
  await kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=true");
  await kubectl("delete", "persistentvolume", volume, "--ignore-not-found", "--wait=true");
  await removeIngress(entry);
  rmSync(volumeFolder, { recursive: true, force: true });
}
beforeAll(remove);
beforeAll(async () => {
  mkdirSync(volumeFolder);
  await apply(entry, volumeOnNode());
  authority = await Authority.make(scratch);
  await startIngress(entry, ["cloud", "provider"]);
  postgres = await PostgresServer.start({
    namespaceFile: node,
    address: layout.nodeAddress,
    clients: layout.podRanges,
  });
  postgres.query("ALTER ROLE cloud PASSWORD 'a password'");
  const words = fixture("oidc-provider.mjs", String(providerPort), issuer, `${url}/login/oidc/callback`);
  provider = new Running({ file: "nsenter", args: [`--net=${node}`, "env", "CLIENT_SECRET=secret of both", ...words] });
  await provider.says("provider listens");
  await serveProvider();
  // DNS of the world, as who has the domain would make it: its names lead to the ingress
  browser = await launchOnLaptop(scratch, `--host-resolver-rules=MAP *.${previewDomain} cloud.${entry}`);
  await trusting("connect", "-n", entry);
});
afterAll(async () => {
  await browser?.close();
  await provider?.[Symbol.asyncDispose]();
  await postgres?.[Symbol.asyncDispose]();
  await remove();
  rmSync(scratch, { recursive: true });
});

/** Of a class of its own: only who names that gets it. */
function volumeOnNode(): Readonly<Record<string, unknown>> {
  const here = { key: "kubernetes.io/hostname", operator: "In", values: [layout.nodeName] };
  const spec = {
    capacity: { storage: "64Mi" },
    accessModes: ["ReadWriteOnce"],
    storageClassName: volume,
    persistentVolumeReclaimPolicy: "Retain",
    local: { path: volumeFolder },
    nodeAffinity: { required: { nodeSelectorTerms: [{ matchExpressions: [here] }] } },
  };
  return { apiVersion: "v1", kind: "PersistentVolume", metadata: { name: volume }, spec };
}

/** The provider is a process of the node; the ingress leads to it, with TLS. */
async function serveProvider(): Promise<void> {
  const name = "provider-itself";
  await authority.putSecret(entry, "provider-tls", new URL(issuer).hostname);
  const { selector: _selector, ...spec } = service(name, [{ port: providerPort }])["spec"] as Record<string, unknown>;
  const backend = { service: { name, port: { number: providerPort } } };
  const [host] = [new URL(issuer).hostname];
  await apply(
    entry,
    { apiVersion: "v1", kind: "Service", metadata: { name }, spec },
    {
      apiVersion: "discovery.k8s.io/v1",
      kind: "EndpointSlice",
      metadata: { name, labels: { "kubernetes.io/service-name": name } },
      addressType: "IPv4",
      ports: [{ port: providerPort }],
      endpoints: [{ addresses: [layout.nodeAddress] }],
    },
    {
      apiVersion: "networking.k8s.io/v1",
      kind: "Ingress",
      metadata: { name },
      spec: {
        ingressClassName: ingressClass,
        tls: [{ hosts: [host], secretName: "provider-tls" }],
        rules: [{ host, http: { paths: [{ path: "/", pathType: "Prefix", backend }] } }],
      },
    },
  );
}

/** A file that the laptop's user may read. */
function file(name: string, text: string): string {
  const path = join(scratch, name);
  writeFileSync(path, `${text}\n`);
  return path;
}

test("stands under pod security level restricted and answers", async () => {
  const startedMs = performance.now();
  const said = await install(...ingressFlags, ...certificates, "--storage-class", volume, "--storage-size", "64Mi");
  report("cloud install, until it is ready", `${Math.round(performance.now() - startedMs)} ms`);
  expect(said).toContain(`telepresence login --cloud-url ${url}`);
  const enforced = "jsonpath={.metadata.labels.pod-security\\.kubernetes\\.io/enforce}";
  expect(await kubectl("get", "namespace", namespace, "-o", enforced)).toBe("restricted");
  const ready = `/api/v1/namespaces/${namespace}/services/telepresence-cloud:80/proxy/readyz`;
  expect(await kubectl("get", "--raw", ready)).toContain("ok");
  expect((await names()).length).toBe(4);
});

test("is served by its Ingress, under its own name and those of previews", async () => {
  await authority.putSecret(namespace, "cloud-tls", new URL(url).hostname);
  await authority.putSecret(namespace, "preview-tls", `*.${previewDomain}`);
  const curl = `curl -sS --cacert ${authority.file}`;
  const own = await lab.sh(`${curl} ${url}/readyz`);
  expect([own.stdout, own.stderr]).toEqual(["ok\n", ""]);
  const preview = `otter.${previewDomain}`;
  const strange = await lab.sh(`${curl} --connect-to ${preview}:443:cloud.${entry}:443 https://${preview}/`);
  expect([strange.stdout, strange.stderr]).toEqual(["There is no preview of this name.\n", ""]);
  const seen = (await ingressLog(entry)).split("\n").filter((line) => line.startsWith("sni "));
  report("what the ingress saw", seen);
  const to = `to telepresence-cloud.${namespace}.svc:80 GET`;
  expect(seen).toEqual([
    `sni cloud.${entry} host cloud.${entry} ${to} /readyz`,
    `sni ${preview} host ${preview} ${to} /`,
  ]);
});

test("keeps people in its file on a volume, when its pod is deleted", async () => {
  const invite =
    /https:\/\/\S+\/invite\/tpi_\S+?(?=")|https:\/\/\S+\/invite\/tpi_\S+/.exec(await serverLog())?.[0] ?? "";
  const first = await profile(browser, { ignoreHTTPSErrors: true });
  await createAccount(first, invite, ["Ann", "ann"]);
  const pod = await kubectl("get", "pod", "-n", namespace, "-o", "name");
  await kubectl("delete", "-n", namespace, pod.trim(), "--wait=true");
  await rolledOut(namespace, "deployment/telepresence-cloud");
  const after = await kubectl("get", "pod", "-n", namespace, "-o", "name");
  expect(after).not.toBe(pod);
  await first.goto(url);
  await first.getByText("Logged in as Ann").waitFor(); // the session, too
  const second = await profile(browser, { ignoreHTTPSErrors: true });
  await second.goto(`${url}/login`);
  await second.getByLabel("Name").fill("ann");
  await second.getByLabel("Password").fill("password of ann");
  await submit(second, "Log in");
  await second.getByText("Logged in as Ann").waitFor();
  report("account and session after the pod's end", `${pod.trim()} then ${after.trim()}`);
  await Promise.all([first, second].map((page) => page.context().close()));
});

const outside = (): readonly string[] => [
  "--database-url-file",
  file("database", `postgres://cloud:a%20password@${layout.nodeAddress}:5432/postgres`),
  "--oidc-issuer",
  issuer,
  "--oidc-client-id",
  "telepresence",
  "--oidc-admin-group",
  "ops",
  "--oidc-client-secret-file",
  file("client", "secret of both"),
  "--extra-ca-file",
  authority.file,
];

/** From the server's page of login through the provider's. */
async function logInAs(page: Page, who: string): Promise<void> {
  await page.getByRole("link", { name: "Continue" }).click();
  await page.locator("input[name=login]").fill(who);
  await page.locator("input[name=password]").fill("any");
  await page.locator("button[type=submit]").click();
  await page.locator("input[name=prompt][value=consent]").waitFor({ state: "attached" });
  await page.locator("button[type=submit]").click();
}

test("has people of an outside provider log in, and keeps them in PostgreSQL", async () => {
  await install(...ingressFlags, ...certificates, ...outside());
  const page = await profile(browser, { ignoreHTTPSErrors: true });
  await page.goto(`${url}/login`);
  await logInAs(page, "ann");
  await page.getByText("Logged in as Person ann, an administrator").waitFor();
  const rows = postgres.query(
    "SELECT people.name, teams.name FROM people JOIN members ON person_id = people.id JOIN teams ON teams.id = team_id ORDER BY 2",
  );
  report("PostgreSQL has of a person of the provider", rows.split("\n"));
  expect(rows.split("\n")).toEqual(["Person ann|blue", "Person ann|ops"]);
  expect(await serverLog()).not.toMatch(/a password|secret of both/);
  await page.context().close();
});

test("opens previews to who is logged in, through its Ingress and its tunnel from the manager", async () => {
  await apply(entry, ...webApp({ name: "shop" }));
  await rolledOut(entry, "deployment/shop");
  await using laptop = lab.spawn(fixture("laptop-server.mjs", "18951"));
  await laptop.says("listens on");
  const ann = await profile(browser, { ignoreHTTPSErrors: true });
  await using login = lab.start(["login", "--device", "--cloud-url", url], {
    env: { NODE_EXTRA_CA_CERTS: authority.file },
  });
  await login.says("enter the code");
  const [, page = "", code = ""] = /Open (\S+) .*the code (\S+)/.exec(login.said) ?? [];
  await ann.goto(page);
  await logInAs(ann, "ann");
  await ann.getByLabel("The code").fill(code);
  await submit(ann, "Continue");
  await submit(ann, "Log in");
  expect(await login.ends()).toBe(0);
  const ingress = ["--ingress-host", `shop.${entry}`, "--ingress-port", "80", "--ingress-l5", `shop.${entry}`];
  const said = await trusting("intercept", "shop", "--port", "18951", "--preview-url", "--team", "blue", ...ingress);
  const previewUrl = /https:\/\/\S+\.preview\.example\.net/.exec(said)?.[0] ?? said;
  const startMs = Date.now();
  await until("the preview", async () => {
    await ann.goto(previewUrl);
    return (await ann.content()).includes("hello from laptop");
  });
  report("preview opened, ms after the command", Date.now() - startMs);
  const bob = await profile(browser, { ignoreHTTPSErrors: true });
  await bob.goto(previewUrl);
  expect(new URL(bob.url()).origin).toBe(url);
  await logInAs(bob, "bob");
  await bob.getByText("hello from laptop").waitFor();
  expect(new URL(bob.url()).origin).toBe(previewUrl);
  const other = await profile(browser);
  await other.goto(`http://shop.${entry}/`);
  await other.getByText("Hello from the cluster").waitFor();
  const seen = (await ingressLog(entry)).split("\n").filter((line) => line.includes(new URL(previewUrl).hostname));
  report("what the ingress saw of the preview", seen);
  expect(seen.at(-1)).toContain(`to telepresence-cloud.${namespace}.svc:80 GET /`);
  await trusting("leave", "shop");
  await trusting("logout");
  await Promise.all([ann, bob, other].map((each) => each.context().close()));
});

/** Each pod has another, and none is left of an earlier one. */
async function onlyPod(): Promise<string> {
  let found: readonly string[] = [];
  await until("one pod", async () => {
    found = (await kubectl("get", "pod", "-n", namespace, "-o", "name")).split("\n").filter((name) => name !== "");
    return found.length === 1;
  });
  return found[0] ?? "";
}

test("takes a Secret of its administrator's, leaves it as it is, and makes a new pod for another content", async () => {
  const databaseUrl = `postgres://cloud:a%20password@${layout.nodeAddress}:5432/postgres`;
  const secret = (database: string) => ({
    apiVersion: "v1",
    kind: "Secret",
    metadata: { name: "mine" },
    stringData: { database, "oidc-client-secret": "secret of both", "extra-ca": readFileSync(authority.file, "utf8") },
  });
  await apply(namespace, secret(databaseUrl));
  const version = ["get", "secret", "mine", "-n", namespace, "-o", "jsonpath={.metadata.resourceVersion}"];
  const before = await kubectl(...version);
  const words = outside().filter(
    (word, at, all) =>
      ![word, all[at - 1]].some((each) => /^--(database|oidc-client-secret|extra-ca)/.test(each ?? "")),
  );
  const command = [
    ...ingressFlags,
    ...certificates,
    ...words,
    "--secret",
    "mine",
    "--secret-keys",
    "database,oidc-client-secret,extra-ca",
  ];
  expect(await install(...command)).toContain("Secret telepresence-cloud removed, it is not wanted any more");
  const first = await onlyPod();
  const page = await profile(browser, { ignoreHTTPSErrors: true });
  await page.goto(`${url}/login`);
  await logInAs(page, "ann");
  await page.getByText("Logged in as Person ann, an administrator").waitFor(); // as they were in that database
  await page.context().close();
  await install(...command);
  expect(await onlyPod()).toBe(first);
  expect(await kubectl(...version)).toBe(before);
  await apply(namespace, secret(`${databaseUrl}?application_name=changed`));
  await install(...command);
  const second = await onlyPod();
  expect(second).not.toBe(first);
  const connections = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'changed'";
  expect(postgres.query(connections)).toBe("t");
  report("pods before and after the Secret's change", [first, second]);
});

test("is changed in place: what is not wanted goes, what others have set stays, and none of it is overwritten", async () => {
  await kubectl("annotate", "service", "telepresence-cloud", "-n", namespace, "team/owner=shop");
  const forgetful = await lab.cli(["cloud", "install", "--url", url, "--cloud-namespace", namespace]);
  expect([forgetful.code, forgetful.stderr]).toEqual([1, expect.stringContaining("this names none") as string]);
  await install(...outside(), "--no-ingress");
  expect((await names()).filter((name) => !name.endsWith("-tls"))).toEqual([
    "deployment.apps/telepresence-cloud",
    "service/telepresence-cloud",
    "secret/mine",
    "secret/telepresence-cloud",
    "persistentvolumeclaim/telepresence-cloud",
  ]);
  const annotations = ["-o", "jsonpath={.metadata.annotations}"];
  expect(await kubectl("get", "service", "telepresence-cloud", "-n", namespace, ...annotations)).toContain("shop");
  await kubectl("set", "image", "-n", namespace, "deployment/telepresence-cloud", "telepresence-cloud=mine:1");
  const words = ["cloud", "install", "--url", url, "--cloud-namespace", namespace, ...outside(), "--no-ingress"];
  const refused = await lab.cli(words);
  expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining("conflict") as string]);
});

test("is gone again with the namespace that was made for it", async () => {
  await kubectl("delete", "secret", "-n", namespace, "cloud-tls", "preview-tls", "mine");
  const command = ["cloud", "uninstall", "--cloud-namespace", namespace];
  const said = await lab.ok(...command, "--delete-data", "--yes");
  expect(said).toContain(`Deployment telepresence-cloud in namespace ${namespace} removed`);
  await kubectl("wait", "--for=delete", `namespace/${namespace}`, "--timeout=60s");
  expect(await lab.ok(...command)).toContain("Nothing to remove");
});
