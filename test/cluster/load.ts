// A load on a service of the cluster, from a pod of the cluster, that notices every request that fails.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as cluster from "#testbed/cluster.ts";
import { apply, kubectl, rolledOut, toolsImage, until } from "./lab.ts";

export interface Call {
  readonly atMs: number;
  readonly tookMs: number;
  /** On a connection that is kept and used again. */
  readonly kept: boolean;
  /** The pod, or the laptop's server; empty when it failed. */
  readonly who: string;
  readonly error: string;
}

export interface LoadOptions {
  readonly namespace: string;
  readonly target: string;
  readonly perSecond?: number;
  readonly name?: string;
  /** Of fixtures/. */
  readonly program?: string;
}

export class Load {
  readonly #address: string;

  private constructor(address: string) {
    this.#address = address;
  }

  /** Resolves when the target answers it. */
  static async start({ namespace, target, perSecond = 50, ...more }: LoadOptions): Promise<Load> {
    const { name = "load", program = "load.mjs" } = more;
    const script = readFileSync(join(import.meta.dirname, "fixtures", program), "utf8");
    const labels = { app: name };
    const env = Object.entries({ TARGET: target, PER_SECOND: String(perSecond) });
    const container = {
      name,
      image: toolsImage,
      imagePullPolicy: "IfNotPresent",
      command: ["node", "--input-type=module", "-e", script],
      env: env.map(([key, value]) => ({ name: key, value })),
      readinessProbe: { httpGet: { path: "/ready", port: 8080 }, periodSeconds: 1 },
      securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } },
    };
    const spec = {
      terminationGracePeriodSeconds: 1,
      securityContext: { runAsNonRoot: true, runAsUser: 1000, seccompProfile: { type: "RuntimeDefault" } },
      containers: [container],
    };
    await apply(namespace, {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata: { name, labels },
      spec: {
        strategy: { type: "Recreate" },
        selector: { matchLabels: labels },
        template: { metadata: { labels }, spec },
      },
    });
    await rolledOut(namespace, `deployment/${name}`);
    const pods = ["-l", `app=${name}`, "--field-selector=status.phase=Running"];
    const address = await kubectl("get", "pods", "-n", namespace, ...pods, "-o", "jsonpath={.items[0].status.podIP}");
    return new Load(address);
  }

  /** Calls that began at or after a time of the wall clock and have ended. */
  async calls(sinceMs = 0): Promise<readonly Call[]> {
    const url = `http://${this.#address}:8080/calls?since=${sinceMs}`;
    // from the node's network, as a probe comes: much cheaper than an exec
    const stdout = await cluster.runIn(cluster.namespaces.node, "curl", ["-s", "--max-time", "20", url]);
    return JSON.parse(stdout) as Call[];
  }

  /**
   * Waits until so many calls in a row, the latest ones, were answered by somebody of that name; gives all calls. Only
   * new connections count: a kept one stays where it was opened to, which is right.
   */
  async answeredBy(who: RegExp, sinceMs: number, { inARow = 10, limitMs = 60_000 } = {}): Promise<readonly Call[]> {
    return await until(
      `an answer by ${who}`,
      async () => {
        const calls = await this.calls(sinceMs);
        const last = calls.filter((item) => !item.kept).slice(-inARow);
        return last.length === inARow && last.every((call) => who.test(call.who)) && calls;
      },
      { limitMs, everyMs: 200 },
    );
  }
}

/** Those that failed, in a form that says when and why. */
export function failures(calls: readonly Call[], sinceMs = 0): readonly string[] {
  return calls
    .filter((call) => call.error !== "")
    .map((call) => `+${call.atMs - sinceMs} ms, ${call.kept ? "kept" : "new"}, after ${call.tookMs} ms: ${call.error}`);
}

export function countByWho(calls: readonly Call[]): Readonly<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const { who, error } of calls) {
    const key = error === "" ? who.replace(/^(.*)-[a-z0-9]+-[a-z0-9]{5}$/, "$1") : "failed";
    counts[key] = (counts[key] ?? 0) + 1;
  }
  return counts;
}
