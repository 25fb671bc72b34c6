// Commands in a large cluster: 1,000 namespaces and 5,000 services, 300 workloads in the connection's namespace; beside
// the same commands before these were made. The cluster ends with it: the controllers would work for minutes on taking
// so much away.
import { down, kubectl } from "#testbed/cluster.ts";
import { median, Results } from "./results.ts";
import type { Report } from "./results.ts";
import { anonymousMegabytes, laptopProcess, namespace, onLaptop, withTarget } from "./stage.ts";
import { manifest } from "./target.ts";

const runs = 5;
const namespaces = 1000;
const services = 5000;
const workloads = 300;
/** Of all services, in the connection's namespace. */
const servicesHere = 1000;
/** Each kubectl makes at most 50 objects a second. */
const makers = 6;

export async function benchLarge(report: Report): Promise<void> {
  const results = new Results("large", report);
  const say = (line: string): void => report(line, "");
  await withTarget(manifest, say, async () => {
    await onLaptop(`telepresence connect -n ${namespace}`); // installs the manager
    const small = await measure();
    say(`making ${namespaces} namespaces, ${services} services, ${workloads} workloads (usually 1 min)`);
    await make(Array.from({ length: namespaces }, (_, number) => namespaceOf(number)));
    await make([
      ...Array.from({ length: services }, (_, number) => serviceOf(number)),
      ...Array.from({ length: workloads }, (_, number) => workloadOf(number)),
    ]);
    await results.begin();
    const large = await measure();
    for (const what of ["connect", "list"] as const) {
      const base = { base: small[what], baseName: "in a small cluster", unit: "ms" };
      results.add({ what: `${what}, ${namespaces} namespaces and ${services} services`, ours: large[what], ...base });
    }
    const base = { base: small.megabytes, baseName: "in a small cluster", unit: "MB" };
    results.add({ what: "anonymous memory of the daemon there", ours: large.megabytes, ...base });
  });
  results.write();
  await down({ say });
}

/** Medians, ms; the daemon's memory after its last connect. */
async function measure(): Promise<{ connect: number; list: number; megabytes: number }> {
  const [connect, list]: [number[], number[]] = [[], []];
  for (let run = 0; run < runs; run++) {
    await onLaptop("telepresence quit");
    connect.push(await wall(`telepresence connect -n ${namespace}`));
    list.push(await wall(`telepresence list -n ${namespace}`));
  }
  const megabytes = anonymousMegabytes(laptopProcess("daemon/start.js"));
  return { connect: median(connect), list: median(list), megabytes };
}

async function wall(line: string): Promise<number> {
  const startMs = performance.now();
  await onLaptop(line);
  return performance.now() - startMs;
}

async function make(objects: readonly object[]): Promise<void> {
  const shares = Array.from({ length: makers }, (_, maker) => objects.filter((_object, at) => at % makers === maker));
  await Promise.all(
    shares.map(async (items) => {
      const input = JSON.stringify({ apiVersion: "v1", kind: "List", items });
      await kubectl(["create", "--validate=false", "-f", "-"], { input, timeoutMs: 180_000 });
    }),
  );
}

const namespaceName = (number: number): string => `large-${number}`;

function namespaceOf(number: number): object {
  return { apiVersion: "v1", kind: "Namespace", metadata: { name: namespaceName(number) } };
}

function serviceOf(number: number): object {
  const home = number < servicesHere ? namespace : namespaceName(number % namespaces);
  const metadata = { name: `service-${number}`, namespace: home };
  const ports = [{ name: "http", port: 80, targetPort: 8080 }];
  return { apiVersion: "v1", kind: "Service", metadata, spec: { selector: { app: `workload-${number}` }, ports } };
}

/** Without pods: what the API server answers is what counts. */
function workloadOf(number: number): object {
  const labels = { app: `workload-${number}` };
  const containers = [{ name: "web", image: "web", ports: [{ name: "http", containerPort: 8080 }] }];
  const template = { metadata: { labels }, spec: { containers } };
  const metadata = { name: `workload-${number}`, namespace };
  const spec = { replicas: 0, selector: { matchLabels: labels }, template };
  return { apiVersion: "apps/v1", kind: "Deployment", metadata, spec };
}
