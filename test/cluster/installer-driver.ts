// Runs on the laptop for installer.test.ts: calls the installer with the laptop's kubeconfig and prints what came out
// as one JSON line. `node installer-driver.ts CALL JSON`.
import { isAppError } from "#base/error.ts";
import type { ImageChoice } from "#installer/agent-container.ts";
import { planRemoval } from "#installer/agent.ts";
import { ensureManager, removeManager } from "#installer/manager.ts";
import { injectAgent, listAgents, removeAgent } from "#installer/rollout.ts";
import type { Kube } from "#kube/client.ts";
import { openKube } from "#kube/client.ts";
import { loadTarget } from "#kube/config.ts";
import { execInPod } from "#kube/streams/exec.ts";
import { openPortForward } from "#kube/streams/port-forward.ts";
import { discoverSubnets } from "#kube/subnets.ts";
import { resolveWorkload } from "#kube/workloads/resolve-workload.ts";

export interface DriverArgs {
  readonly namespace: string;
  readonly name: string;
  readonly image: ImageChoice;
  readonly timeoutMs?: number;
  readonly pod?: string;
  readonly port?: number;
}

const [call = "", text = "{}"] = process.argv.slice(2);
const args = JSON.parse(text) as DriverArgs;
const { signal } = new AbortController();
const progress: string[] = [];
const onProgress = (line: string): void => void progress.push(line);

const calls: Readonly<Record<string, (kube: Kube) => Promise<unknown>>> = {
  inject: async (kube) => {
    const query = { name: args.name, namespace: args.namespace, ports: ["8000"] };
    const found = await resolveWorkload(kube, query, { signal, withoutAgent: planRemoval });
    return await injectAgent(kube, {
      workload: { kind: found.workload.kind, name: found.workload.name, namespace: args.namespace },
      services: found.services,
      needed: found.ports,
      image: args.image,
      onProgress,
      signal,
      ...(args.timeoutMs === undefined ? {} : { timeoutMs: args.timeoutMs }),
    });
  },
  remove: async (kube) => {
    const agents = await listAgents(kube, args.namespace, signal);
    for (const { workload } of agents) await removeAgent(kube, { workload, onProgress, signal });
    return agents.map((agent) => agent.workload.name);
  },
  manager: (kube) => ensureManager(kube, { namespace: args.namespace, image: args.image, onProgress, signal }),
  anyManager: (kube) => ensureManager(kube, { image: args.image, onProgress, signal }),
  removeManager: (kube) => removeManager(kube, { namespace: args.namespace, signal }),
  subnets: (kube) => discoverSubnets(kube, [args.namespace], signal),
  exec: async (kube) => {
    const command = ["/bin/sh", "-c", "echo out; echo err >&2; exit 3"];
    const result = await execInPod(kube, {
      namespace: args.namespace,
      pod: args.pod ?? "",
      container: args.name,
      command,
      signal,
    });
    return { stdout: result.stdout.toString(), stderr: result.stderr.toString(), exitCode: result.exitCode };
  },
  forward: async (kube) => {
    const stream = await openPortForward(kube, {
      namespace: args.namespace,
      pod: args.pod ?? "",
      port: args.port ?? 0,
      signal,
    });
    stream.write("GET /healthz HTTP/1.0\r\n\r\n");
    for await (const chunk of stream) return (chunk as Buffer).toString().split("\r\n")[0];
    return "";
  },
};

const kube = openKube(await loadTarget({ flags: {}, cwd: process.cwd(), env: process.env as Record<string, string> }));
const startMs = performance.now();
const outcome = await calls[call]?.(kube).then(
  (value) => ({ value }),
  (error: unknown) => {
    if (!isAppError(error)) throw error;
    return { error: { code: error.code, message: error.message, hint: error.hint } };
  },
);
kube.close();
process.stdout.write(`${JSON.stringify({ ...outcome, progress, tookMs: Math.round(performance.now() - startMs) })}\n`);
