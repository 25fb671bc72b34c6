// `cloud install` and `cloud uninstall`: what is asked of the daemon for the flags, what is said, and what is refused
// before anything is touched.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, expect, test } from "vitest";
import { parseAllDocuments } from "yaml";
import { CliLab } from "./cli-lab.ts";
import type { Outcome } from "./run-cli.ts";

const lab = CliLab.forEachTest();
beforeEach(async () => {
  await lab.start();
});
const run = (...argv: string[]): Promise<Outcome> => lab.run(["cloud", ...argv]);
const url = "https://telepresence.example.com";

test("says what was put there, and what is to be done then", async () => {
  const { code, stdout, stderr } = await run("install", "--url", url, "--image", "mine:1");
  expect([code, stderr]).toEqual([0, ""]);
  expect(stdout).toContain(`stands in namespace telepresence-cloud, and is at ${url}`);
  expect(stdout).toContain("kubectl logs -n telepresence-cloud deployment/telepresence-cloud | grep /invite/");
  expect(stdout).toContain(`telepresence login --cloud-url ${url}`);
  expect(lab.daemon.paramsOf("cloudInstall")).toMatchObject({
    target: { image: "mine:1" },
    onlyPrint: false,
    installation: { namespace: "telepresence-cloud", url, ingress: {}, storage: { size: "1Gi" } },
  });
});

test("prints the manifests and changes nothing", async () => {
  writeFileSync(join(lab.home.path, "database"), "postgres://x:pw@db/cloud\n");
  const more = ["--preview-domain", "*.preview.example.net", "--database-url-file", "database"];
  const { stdout } = await run("install", "--url", url, "--print", ...more);
  const objects = parseAllDocuments(stdout).map((document) => document.toJS() as { kind: string });
  expect(objects.map(({ kind }) => kind)).toEqual(["Service", "Deployment", "Ingress"]);
  expect(stdout).toContain('host: "*.preview.example.net"');
  expect(stdout).toContain('proxy-buffering: "off"'); // without quotes kubectl takes it for a boolean, and refuses it
  expect(lab.daemon.paramsOf("cloudInstall")).toMatchObject({ onlyPrint: true });
});

test("prints what a Secret holds only when asked for it", async () => {
  writeFileSync(join(lab.home.path, "database"), "postgres://x:pw@db/cloud\n");
  const command = ["install", "--url", url, "--database-url-file", "database"];
  for (const form of [["--print"], ["--print", "--format", "json"], ["--print", "--format", "yaml"]]) {
    const { stdout, stderr } = await run(...command, ...form);
    expect([`${stdout}${stderr}`.includes("pw"), stdout.includes("Deployment")]).toEqual([false, true]);
    expect(stderr).toContain("the Secret with database is not among these manifests; make it yourself");
  }
  const asked = await run(...command, "--print-secret");
  const [secret] = parseAllDocuments(asked.stdout).map((document) => document.toJS() as object);
  expect([asked.stderr, secret]).toEqual([
    "",
    expect.objectContaining({ kind: "Secret", stringData: { database: "postgres://x:pw@db/cloud" } }) as object,
  ]);
  expect(lab.daemon.paramsOf("cloudInstall")).toMatchObject({ onlyPrint: true });
  const referred = await run("install", "--url", url, "--print", "--secret", "mine");
  expect([referred.stderr, referred.stdout.includes("kind: Secret")]).toEqual(["", false]);
});

test("removes it again, and its data only when told", async () => {
  expect((await run("uninstall", "--cloud-namespace", "mine")).stdout).toBe("Deployment in mine\n");
  expect(lab.daemon.paramsOf("cloudUninstall")).toMatchObject({ namespace: "mine", deleteData: false });
  await run("uninstall", "--delete-data", "--yes");
  expect(lab.daemon.paramsOf("cloudUninstall")).toMatchObject({ deleteData: true });
});

test.each([
  [["install"], 2, "cloud install needs --url https://NAME"],
  [["install", "--url", "http://example.com"], 2, "expected https://NAME without a path"],
  [["install", "--url", url, "--oidc-issuer", "https://id"], 2, "belong together"],
  [["install", "--url", url, "--secret", "s", "--metrics-token-file", "x"], 2, "--secret excludes"],
  [["install", "--url", url, "--secret", "s", "--secret-keys", "password"], 2, '--secret-keys has "password"'],
  [["install", "--url", url, "--metrics-token-file", "nowhere"], 2, "nowhere cannot be read"],
  [["install", "--url", url, "--metrics-token-file", "/dev/null"], 2, "/dev/null is empty"],
  [["install", "--url", url, "--extra-ca-file", "/proc/version"], 2, "/proc/version, expected PEM certificates"],
  [["install", "--url", url, "--cloud-namespace", "a.b"], 2, '--cloud-namespace is "a.b", expected lower-case'],
  [["uninstall", "--cloud-namespace", "a.b"], 2, '--cloud-namespace is "a.b", expected lower-case'],
  [["install", "--url", url, "--preview-domain", "a b"], 2, '--preview-domain is "a b", expected a domain'],
  [["install", "--url", url, "--tls-secret", "A"], 2, "--tls-secret has a value that is not possible"],
  [["dance"], 2, "unknown command 'cloud dance', expected serve, install or uninstall"],
])("refuses %j", async (words, code, text) => {
  expect(await run(...words)).toMatchObject({ code, stderr: expect.stringContaining(text) as string });
});
