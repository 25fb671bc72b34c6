// What an application sees of its callers while the agent is in their way (DESIGN 15): where the agent has NET_ADMIN,
// the calling pod's address, as without an agent; else the pod's own, and every report says so.
import { afterAll, beforeAll, expect, test } from "vitest";
import * as cluster from "#testbed/cluster.ts";
import { Lab, apply, field, rolledOut, webApp } from "./lab.ts";
import { stage } from "./stage.ts";
import { startToolsPod } from "./tools-pod.ts";

const namespace = "it-caller-address";
const lab = new Lab({ managerNamespace: "it-caller-address-manager" });

/** Answers with the address that it was called from. */
const whoCalls = `
from http.server import *
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.client_address[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
ThreadingHTTPServer(("", 8000), Handler).serve_forever()
`;
const container = { command: ["python3", "-c", whoCalls] };
const apps = [
  ...webApp({ name: "number", servicePorts: [{ port: 80, targetPort: 8000 }], container }),
  ...webApp({ name: "named", container }),
];

stage([lab], namespace);
beforeAll(async () => {
  await apply(namespace, ...apps);
  await startToolsPod(namespace, "caller");
  await rolledOut(namespace, "deployment/number", "deployment/named");
  await lab.ok("connect", "-n", namespace);
});
afterAll(async () => {
  await lab.cli(["uninstall", "--everything"]);
});

async function call(name: string): Promise<string> {
  const argv = ["exec", "-n", namespace, "caller", "--", "curl", "-sS", "--max-time", "10", `http://${name}/`];
  return (await cluster.kubectl(argv)).stdout;
}
interface Status {
  readonly user_daemon: { readonly intercepts?: readonly { readonly caller_address_kept?: boolean }[] };
}
async function kept(): Promise<boolean | undefined> {
  return (await lab.json<Status>("status")).user_daemon.intercepts?.[0]?.caller_address_kept;
}

test("the calling pod's, with a redirect", async () => {
  const callerIp = await field(namespace, "pod/caller", ".status.podIP");
  expect(await call("number")).toBe(callerIp);
  // nothing listens on the laptop: the application answers although the redirect is on
  const said = await lab.ok("intercept", "number", "--port", "18191");
  expect(said).not.toContain("Caller address");
  expect(await kept()).toBe(true);
  for (let count = 0; count < 20; count += 1) expect(await call("number")).toBe(callerIp);
  expect(await lab.ok("list", "--debug")).toContain("Caller address     : kept");
  await lab.ok("leave", "number");
  expect(await call("number")).toBe(callerIp);
});

test("the pod's own, with a port-name take-over, and it is said", async () => {
  const said = await lab.ok("intercept", "named", "--port", "18191");
  expect(said).toMatch(/Caller address\s*: the pod's own while passed through \(the agent has no NET_ADMIN\)/);
  expect(await kept()).toBe(false);
  const podIps = await field(namespace, "pod", ".items[?(@.metadata.labels.app=='named')].status.podIP");
  expect(podIps.split(" ")).toContain(await call("named")); // the pod before the rollout may still be listed
  await lab.ok("leave", "named");
});
