// Waits, inside the node's network namespace, until the cluster works; started by cluster.ts because only there are
// the API server and the cluster's DNS to be reached. `api`: the API server is ready. `ready`: every deployment of the
// testbed is available, CoreDNS answers and so does the sample behind a service address.
import { Resolver } from "node:dns/promises";
import { readFileSync } from "node:fs";
import { get, Agent } from "node:https";
import { setTimeout as sleep } from "node:timers/promises";
import { apiServerPort, clusterDnsAddress, family } from "./layout.ts";
import { pkiFile, tokenOf } from "./pki.ts";

const pollMs = 100;
const requestTimeoutMs = 5_000;

interface Deployment {
  readonly metadata: { readonly name: string; readonly generation: number };
  readonly spec: { readonly replicas: number };
  readonly status: {
    readonly observedGeneration?: number;
    readonly updatedReplicas?: number;
    readonly availableReplicas?: number;
  };
}

async function until(check: () => Promise<string | undefined>): Promise<void> {
  for (let last = ""; ;) {
    const missing = await check().catch((error: Error) => error.message);
    if (missing === undefined) return;
    if (missing !== last) process.stdout.write(`${missing}\n`);
    last = missing;
    await sleep(pollMs);
  }
}

const agent = new Agent({ keepAlive: true });

function askApi(path: string): Promise<{ readonly status: number; readonly body: string }> {
  return new Promise((resolve, reject) => {
    const options = {
      agent,
      ca: readFileSync(pkiFile("ca.crt")),
      headers: { authorization: `Bearer ${tokenOf("admin")}` },
      timeout: requestTimeoutMs,
    };
    const request = get(`https://127.0.0.1:${apiServerPort}${path}`, options, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => (body += chunk));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
    });
    request.on("timeout", () => request.destroy(new Error("the API server does not answer")));
    request.on("error", reject);
  });
}

async function apiIsReady(): Promise<string | undefined> {
  const { status } = await askApi("/readyz").catch(() => ({ status: 0 }));
  return status === 200 ? undefined : "the API server is not ready";
}

async function deploymentsAreAvailable(): Promise<string | undefined> {
  const { body } = await askApi("/apis/apps/v1/deployments?labelSelector=app.kubernetes.io%2Fpart-of%3Dtestbed");
  const { items } = JSON.parse(body) as { readonly items: readonly Deployment[] };
  const missing = items.filter(({ metadata, spec, status }) => {
    const seen = (status.observedGeneration ?? 0) >= metadata.generation;
    return !seen || status.updatedReplicas !== spec.replicas || status.availableReplicas !== spec.replicas;
  });
  const names = missing.map(({ metadata }) => metadata.name);
  return names.length === 0 ? undefined : `not available yet: ${names.join(", ")}`;
}

async function sampleAnswers(): Promise<string | undefined> {
  const resolver = new Resolver({ timeout: 1_000, tries: 1 });
  resolver.setServers([clusterDnsAddress]);
  const name = "hello.default.svc.cluster.local";
  const [address] = family === "ipv6" ? await resolver.resolve6(name) : await resolver.resolve4(name);
  const response = await fetch(`http://${family === "ipv6" ? `[${address}]` : address}/`, {
    signal: AbortSignal.timeout(requestTimeoutMs),
  });
  return response.ok ? undefined : `hello answers ${response.status}`;
}

const [what] = process.argv.slice(2);
await until(apiIsReady);
if (what === "ready") {
  await until(deploymentsAreAvailable);
  await until(sampleAnswers);
}
agent.destroy();
