// The cloud server put into a real cluster by one command: under pod security level `restricted`, changed in place, and
// gone again without a trace, but for fields and objects that are somebody else's.
import { afterAll, beforeAll, expect, test } from "vitest";
import { Lab, kubectl, report } from "./lab.ts";
import { stage } from "./stage.ts";

const namespace = "it-cloud-server";
const lab = new Lab({ managerNamespace: "it-cloud-manager" });
const command = ["cloud", "install", "--url", "https://telepresence.example.com", "--cloud-namespace", namespace];
const install = (...more: readonly string[]): Promise<string> => lab.ok(...command, ...more);
const kinds = "deployment,service,ingress,secret,persistentvolumeclaim";
const names = async (): Promise<readonly string[]> =>
  (await kubectl("get", kinds, "-n", namespace, "-o", "name")).split("\n").filter((name) => name !== "");

stage([lab], "it-cloud");
const remove = (): Promise<unknown> => kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=true");
beforeAll(remove);
afterAll(remove);

test("stands under pod security level restricted and answers", async () => {
  const startedMs = performance.now();
  const said = await install("--no-storage", "--preview-domain", "preview.example.net", "--ingress-class", "nginx");
  report("cloud install, until it is ready", `${Math.round(performance.now() - startedMs)} ms`);
  expect(said).toContain("forgets everything when its pod ends");
  const enforced = "jsonpath={.metadata.labels.pod-security\\.kubernetes\\.io/enforce}";
  expect(await kubectl("get", "namespace", namespace, "-o", enforced)).toBe("restricted");
  const ready = `/api/v1/namespaces/${namespace}/services/telepresence-cloud:80/proxy/readyz`;
  expect(await kubectl("get", "--raw", ready)).toContain("ok");
  const log = await kubectl("logs", "-n", namespace, "deployment/telepresence-cloud");
  expect(log).toMatch(/https:\/\/telepresence\.example\.com\/invite\/tpi_/);
  expect((await names()).length).toBe(3);
});

test("is changed in place: what is not wanted goes, what others have set stays, and none of it is overwritten", async () => {
  await kubectl("annotate", "service", "telepresence-cloud", "-n", namespace, "team/owner=shop");
  await install("--no-storage", "--no-ingress");
  expect(await names()).toEqual(["deployment.apps/telepresence-cloud", "service/telepresence-cloud"]);
  const annotation = [
    "get",
    "service",
    "telepresence-cloud",
    "-n",
    namespace,
    "-o",
    "jsonpath={.metadata.annotations}",
  ];
  expect(await kubectl(...annotation)).toContain("shop");
  await kubectl("set", "image", "-n", namespace, "deployment/telepresence-cloud", "telepresence-cloud=mine:1");
  const refused = await lab.cli([...command, "--no-storage", "--no-ingress"]);
  expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining("conflict") as string]);
});

test("is gone again with the namespace that was made for it", async () => {
  const said = await lab.ok("cloud", "uninstall", "--cloud-namespace", namespace);
  expect(said).toContain(`Deployment telepresence-cloud in namespace ${namespace} removed`);
  await kubectl("wait", "--for=delete", `namespace/${namespace}`, "--timeout=60s");
  expect(await lab.ok("cloud", "uninstall", "--cloud-namespace", namespace)).toContain("Nothing to remove");
});
