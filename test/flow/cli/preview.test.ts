// Preview URLs from the command line: what is asked, what is remembered, and what becomes of an intercept whose preview
// cannot be made. Daemon and cloud server are scripted.
// Regression: the original remembered the workload's own service as the ingress of the whole cluster.
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { AppError } from "#base/error.ts";
import type { Machine } from "#cli/machine.ts";
import type { PreviewView } from "#wire/cloud-api.ts";
import type { FoundIngress } from "#wire/preview.ts";
import { createIdentity } from "#tunnel/identity.ts";
import { CliLab } from "./cli-lab.ts";
import type { Outcome } from "./run-cli.ts";

const lab = CliLab.forEachTest();
const edge: FoundIngress = { source: "load-balancer", host: "edge.infra", port: 443, tls: true };
const own: FoundIngress = { source: "service", host: "hello.default", port: 80, tls: false };
const finding = (...found: FoundIngress[]) => ({ findIngress: () => ({ cluster: "https://c/test", found }) });

const view: PreviewView = {
  id: "p1",
  url: "https://calm-fox.preview.test/",
  host: "calm-fox.preview.test",
  clusterId: "c1",
  cluster: "test",
  team: { id: "t1", name: "blue" },
  owner: { id: "u1", name: "Ann" },
  interceptId: "s1:hello",
  intercept: "hello",
  workload: { kind: "Deployment", name: "hello", namespace: "default" },
  ingress: { host: "edge.infra", port: 443, tls: true },
  insecure: false,
  headers: [],
  banner: true,
  access: "team",
  state: "live",
  createdMs: 0,
  visitors: [{ who: "Bob", requests: 3, lastMs: 0 }],
};
const share = { id: "s1", by: "Ann", createdMs: 0, expiresMs: 3_600_000 };

let server: Server;
let url: string;
let asked: string[] = [];
let previews: PreviewView[] = [];
beforeAll(async () => {
  server = createServer((request, response) => {
    request.resume();
    asked.push(`${request.method} ${request.url}`);
    const answers: Record<string, unknown> = {
      "GET /api/previews": { previews },
      "POST /api/previews/p1/access": { ...view, access: "public" },
      "POST /api/previews/p1/shares": { ...share, url: "https://calm-fox.preview.test/?share=x" },
      "GET /api/previews/p1/shares": { shares: [share, { ...share, id: "s2" }] },
    };
    const answer = answers[`${request.method} ${request.url}`];
    response.writeHead(request.method === "DELETE" ? 204 : 200, { "content-type": "application/json" });
    response.end(answer === undefined ? undefined : JSON.stringify(answer));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});
beforeEach(() => {
  asked = [];
  previews = [view];
});

function logIn(): void {
  const config = join(lab.home.path, ".config", "telepresence");
  mkdirSync(config, { recursive: true });
  const secret = { key: `tpk_${"x".repeat(43)}` };
  writeFileSync(join(config, "cloud.json"), JSON.stringify({ url, name: "Ann", secret }), { mode: 0o600 });
}
const answersFile = (): string => join(lab.home.path, ".cache", "telepresence", "ingresses.json");
const remembered = (): unknown => JSON.parse(readFileSync(answersFile(), "utf8"));

/** At a terminal, with somebody who answers so. */
function typing(...answers: readonly string[]) {
  const left = [...answers];
  const machine = (real: Machine): Machine => ({ ...real, readAnswer: () => Promise.resolve(left.shift() ?? "") });
  return { terminal: true, machine };
}
const run = (...argv: string[]): Promise<Outcome> => lab.run(argv);
const paramsOf = (method: string): unknown => lab.daemon.calls.find((call) => call.method === method)?.params;

describe("the questions", () => {
  test("have the detected answers for defaults, loop until an answer is valid, and are asked once", async () => {
    logIn();
    await lab.startConnected(finding(edge, own));
    const first = await lab.run(["intercept", "hello"], typing("", "port", "8443", "y", "shop.example"));
    expect(first.code).toBe(0);
    expect(first.stderr).toContain("1/4");
    expect(first.stderr).toContain("[default: edge.infra]:");
    expect(first.stderr).toContain("Please answer with a number from 1 to 65535.");
    expect(first.stderr).toContain("4/4");
    expect(first.stdout).toContain("Preview URL     : https://calm-fox.preview.test/");
    expect(first.stdout).toContain("Layer 5 Hostname: shop.example");
    expect(first.stdout).toContain("because you are logged in; --http-header all takes all");
    const ingress = { host: "edge.infra", port: 8443, tls: true, l5host: "shop.example" };
    expect(paramsOf("createPreview")).toMatchObject({ intercept: "hello", ingress, banner: true });
    expect(paramsOf("intercept")).toMatchObject({
      filter: expect.stringContaining("x-telepresence-intercept-id") as string,
    });
    expect(remembered()).toEqual({ "https://c/test": ingress });
    expect(statSync(answersFile()).mode & 0o777).toBe(0o600);
    const second = await lab.run(["intercept", "other"], typing());
    expect(second.stderr).not.toContain("1/4");
    expect(second.stdout).toContain("Using ingress edge.infra:8443 (TLS), asked for shop.example");
  });

  test("end when nobody answers", async () => {
    logIn();
    await lab.startConnected(finding());
    const { code, stderr } = await lab.run(["intercept", "hello"], typing());
    expect([code, lab.daemon.methods().includes("intercept")]).toEqual([2, false]);
    expect(stderr).toContain("[no default]:");
    expect(stderr).toContain("--ingress-host, --ingress-port, --ingress-tls and --ingress-l5 answer the questions");
  });

  test("are answered by flags; the workload's own service is not remembered for others", async () => {
    logIn();
    const { certificatePem } = createIdentity("ca");
    const file = join(lab.home.path, "ca.pem");
    writeFileSync(file, `words\n${certificatePem}-----BEGIN PRIVATE KEY-----\nx`);
    const { findIngress } = finding(own);
    await lab.startConnected({
      findIngress: () => {
        rmSync(file); // it may be a pipe, `<(kubectl get …)`, which gives what it has once
        return findIngress();
      },
    });
    const more = ["--ingress-insecure", "--ingress-ca", "ca.pem", "-b=false"];
    const flags = ["--ingress-host", "hello.default", "--ingress-port", "80", ...more];
    const { code, stderr } = await lab.run(["intercept", "hello", ...flags], typing());
    expect([code, stderr.includes("/4")]).toEqual([0, false]);
    const ingress = { host: "hello.default", port: 80, tls: false };
    expect(paramsOf("createPreview")).toMatchObject({
      ingress,
      insecure: true,
      ingressCa: certificatePem.trim(),
      banner: false,
    });
    expect(() => remembered()).toThrow("ENOENT");
  });
});

describe("a script", () => {
  test("that does not ask for a preview has the intercept that it had before the login", async () => {
    logIn();
    await lab.startConnected(finding(edge));
    expect(await run("intercept", "hello")).toMatchObject({ code: 0, stderr: "" });
    expect(lab.daemon.methods()).not.toContain("findIngress");
    expect(paramsOf("intercept")).not.toHaveProperty("filter");
  });
  test("that asks for one uses what was found, and says so", async () => {
    logIn();
    await lab.startConnected(finding(edge, own));
    const { code, stdout } = await run("intercept", "hello", "--preview-url");
    expect([code, stdout.includes("Using ingress edge.infra:443 (TLS);")]).toEqual([0, true]);
  });
  test("is told which flags are missing before anything is intercepted", async () => {
    logIn();
    await lab.startConnected(finding());
    const { code, stderr } = await run("intercept", "hello", "--preview-url");
    expect([code, lab.daemon.methods().includes("intercept")]).toEqual([2, false]);
    expect(stderr).toContain("is not known, expected --ingress-host and --ingress-port");
  });
  test("is told to log in", async () => {
    await lab.startConnected(finding(edge));
    const { code, stderr } = await run("intercept", "hello", "--preview-url");
    expect([code, stderr]).toEqual([
      1,
      "telepresence: error: nobody is logged in at a cloud server here, which a preview needs; log in first: telepresence login\n",
    ]);
    expect(lab.daemon.methods()).not.toContain("intercept");
  });
  test("reads the URL in JSON", async () => {
    logIn();
    await lab.startConnected(finding(edge));
    const words = ["intercept", "hello", "--preview-url", "--detailed-output", "--format", "json"];
    expect(JSON.parse((await run(...words)).stdout)).toMatchObject({
      preview_domain: "calm-fox.preview.test",
      preview_url: "https://calm-fox.preview.test/",
    });
  });
});

test("a preview that cannot be made fails no intercept", async () => {
  logIn();
  await lab.startConnected({
    ...finding(edge),
    createPreview: () => {
      throw new AppError("unreachable", "https://cloud.test cannot be reached: nothing listens there");
    },
  });
  const { code, stdout, stderr } = await run("intercept", "hello", "--preview-url");
  expect([code, stdout.includes("ACTIVE")]).toEqual([0, true]);
  expect(stderr).toBe(
    "Warning: hello has no preview URL: https://cloud.test cannot be reached: nothing listens there; the intercept stands, and `telepresence preview create hello` tries again\n",
  );
  expect(lab.daemon.methods()).not.toContain("leave");
});

// A daemon of before an update refused what it did not know, and with it every intercept of whoever was logged in.
test("a preview that nobody asked for keeps nobody from an intercept", async () => {
  logIn();
  await lab.startConnected({
    findIngress: () => {
      throw new AppError("unsupported", "the daemon does not know findIngress");
    },
  });
  const { code, stderr } = await lab.run(["intercept", "hello"], typing());
  expect([code, lab.daemon.methods().includes("intercept")]).toEqual([0, true]);
  expect(stderr).toContain("Warning: hello gets no preview URL: the daemon does not know findIngress");
  expect((await lab.run(["intercept", "other", "--preview-url"], typing())).code).toBe(1);
});

describe("preview", () => {
  test("create is for an intercept that is there", async () => {
    logIn();
    await lab.start();
    expect((await run("preview", "create", "hello")).stderr).toContain("you have no intercept named hello");
    expect(lab.daemon.methods()).not.toContain("connect");
    await lab.daemon[Symbol.asyncDispose]();
    await lab.startConnected(finding(edge));
    expect((await run("preview", "create", "hello")).stderr).toContain("you have no intercept named hello");
    await run("intercept", "hello");
    const { stdout } = await run(
      "preview",
      "create",
      "hello",
      "--public",
      "--preview-url-add-request-headers=x-a=1,x-b=2",
    );
    expect(stdout).toContain("Preview URL   : https://calm-fox.preview.test/");
    expect(paramsOf("createPreview")).toMatchObject({
      access: "public",
      headers: [
        { name: "x-a", value: "1" },
        { name: "x-b", value: "2" },
      ],
    });
  });
  test("list, public, share and revocation", async () => {
    logIn();
    const { stdout } = await run("preview", "list");
    expect(stdout).toContain("hello: live\n   Preview URL: https://calm-fox.preview.test/");
    expect(stdout).toContain("Visitors   : 3 requests of Bob");
    expect((await run("preview", "public", "calm-fox")).stdout).toContain("is open to anybody who has the address");
    const link = await run("preview", "share", "hello", "--expires=30m", "--format=json");
    expect(JSON.parse(link.stdout)).toMatchObject({ id: "s1", url: "https://calm-fox.preview.test/?share=x" });
    expect((await run("preview", "share", "hello", "--revoke")).stdout).toBe("Revoked 2 share links of hello\n");
    expect(asked.filter((call) => call.startsWith("DELETE"))).toEqual([
      "DELETE /api/previews/p1/shares/s1",
      "DELETE /api/previews/p1/shares/s2",
    ]);
  });
  test("remove goes by the daemon when it is one of its intercepts", async () => {
    logIn();
    await run("preview", "remove", "hello");
    expect(asked).toContain("DELETE /api/previews/p1");
    const daemon = await lab.startConnected();
    await run("intercept", "hello");
    daemon.intercepts = daemon.intercepts.map((info) => ({ ...info, preview: { id: "p1", url: view.url } }));
    expect((await run("status")).stdout).toContain("Preview URL: https://calm-fox.preview.test/");
    asked = [];
    await run("preview", "remove", "hello");
    expect([daemon.methods().includes("removePreview"), asked]).toEqual([true, ["GET /api/previews"]]);
  });
  test("of a name that several have is told apart by the host", async () => {
    logIn();
    previews = [view, { ...view, id: "p2", host: "red-owl.preview.test", owner: { id: "u2", name: "Bob" } }];
    expect((await run("preview", "remove", "hello")).stderr).toContain(
      "there are 2 previews of hello; name one by its host: calm-fox.preview.test (Ann), red-owl.preview.test (Bob)",
    );
    expect((await run("preview", "share", "nothing")).stderr).toContain("there is no preview of nothing");
  });
  test("without a word or with a wrong one says what there is", async () => {
    expect(await run("preview", "crate")).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("create") as string,
    });
    expect(await run("preview")).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("expected one of") as string,
    });
  });
});
