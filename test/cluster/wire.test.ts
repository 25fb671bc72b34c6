// TARGETS' row "wire down; change of the laptop's address; SIGSTOP of the daemon": an open SSH-like stream and a download
// go on, byte-exact, whatever becomes of the connection that carries them, and so does what a caller in the cluster has
// with a process on the laptop. `npm run soak` waits as long as the row says.
// The trap: with the port-forward every connection into the cluster ended, and every one out of it.
import { afterAll, expect, test } from "vitest";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as cluster from "#testbed/cluster.ts";
import { checkoutRoot, laptopAddresses } from "#testbed/layout.ts";
import { soaking } from "#test/rounds.ts";
import { Lab, apply, fixture, report, rolledOut, service, toolsImage, until, webApp, type Running } from "./lab.ts";
import { startRawStream } from "./raw-stream.ts";
import { stage } from "./stage.ts";

const namespace = "it-wire";
const lab = new Lab({ managerNamespace: "it-manager", agent: "ephemeral" });
const echoApp = {
  ports: [{ name: "tcp", containerPort: 7000 }],
  servicePorts: [{ name: "tcp", port: 7000, targetPort: "tcp" }],
  container: {
    command: ["python3", "/samples/echo.py"],
    readinessProbe: { tcpSocket: { port: 7000 }, periodSeconds: 1 },
  },
};

afterAll(async () => {
  await cluster.restoreWire();
  await cluster.readdress(laptopAddresses(1).address);
});
stage([lab], namespace);

interface Said {
  readonly echoed: number;
  /** Of the lines that came back late. */
  readonly lateMs: readonly number[];
  readonly bytes: number;
  readonly errors: readonly string[];
  readonly over?: boolean;
  readonly sent?: number;
}

/** What the streams' program has said, each time. */
function said(program: Running): readonly Said[] {
  return program.stdout
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Said);
}

async function daemonPid(): Promise<number> {
  const { stdout } = await lab.sh("pgrep -u dev -f 'daemon/start' | head -1");
  return Number(stdout);
}

/** What happens, for how long, and how soon both streams must go on afterwards where that was ever too late. */
type Fault = readonly [what: string, fault: () => Promise<() => Promise<void>>, ms: number, limitMs?: number];
const downMs = soaking ? [5000, 30_000, 100_000] : [5000];
const faults: readonly Fault[] = [
  ...downMs.map((ms): Fault => ["the wire is down", async () => (await cluster.cutWire(), cluster.restoreWire), ms]),
  ["the network swallows everything", async () => (await cluster.blackHole(), () => cluster.restoreWire()), 8000],
  [
    "the laptop gets another address",
    async () => (await cluster.readdress("192.168.77.99"), async () => undefined),
    0,
    // At once, not by silence, which takes 5 s: three round trips of patience, 2 s at most, and the way anew.
    3500,
  ],
  [
    "the daemon stands still",
    async () => {
      const pid = await daemonPid();
      process.kill(pid, "SIGSTOP");
      return async () => void process.kill(pid, "SIGCONT");
    },
    soaking ? 100_000 : 8000,
  ],
  [
    "the API server is restarted",
    async () => (await cluster.restartApiServer("SIGKILL"), async () => undefined),
    0,
    3000,
  ],
];

test(
  "an SSH-like stream and a download go on, byte-exact, through every fault",
  { timeout: soaking ? 900_000 : 240_000 },
  async () => {
    const script = readFileSync(join(import.meta.dirname, "fixtures/source.mjs"), "utf8");
    const container = {
      name: "source",
      image: toolsImage,
      imagePullPolicy: "IfNotPresent",
      command: ["node", "--input-type=module", "-e", script],
      readinessProbe: { tcpSocket: { port: 9000 }, periodSeconds: 1 },
    };
    const labels = { app: "source" };
    const spec = {
      selector: { matchLabels: labels },
      template: { metadata: { labels }, spec: { containers: [container] } },
    };
    await apply(
      namespace,
      { apiVersion: "apps/v1", kind: "Deployment", metadata: { name: "source" }, spec },
      service("source", [{ name: "blocks", port: 9000 }]),
      ...webApp({ name: "raw", ...echoApp }),
    );
    await rolledOut(namespace, "deployment/source", "deployment/raw");
    await lab.ok("connect", "-n", namespace);
    await using _echo = lab.spawn(["env", "PORT=18790", "python3", join(checkoutRoot, "testbed/samples/echo.py")]);
    await until("the laptop's echo", async () => (await lab.sh("ss -Hltn sport = :18790")).stdout !== "");
    await lab.ok("intercept", "raw", "--port", "18790");
    const caller = await startRawStream(namespace, `raw.${namespace}:7000`);
    await until("the caller at the laptop's process", async () => {
      return (await lab.sh("ss -Htn state established sport = :18790")).stdout !== "";
    });
    await using program = lab.spawn(fixture("wire-streams.mjs", "echo.default:7000", `source.${namespace}:9000`));
    const latest = (): Said | undefined => said(program).at(-1);
    const grows = async (): Promise<void> => {
      const before = latest();
      await until("both streams going on", async () => {
        const now = latest();
        if (now !== undefined && now.errors.length > 0) throw new Error(now.errors.join(", "));
        return (now?.bytes ?? 0) > (before?.bytes ?? 0) + 500_000 && (now?.echoed ?? 0) > (before?.echoed ?? 0) + 5;
      });
    };
    await grows();
    for (const [what, fault, ms, limitMs = 5000] of faults) {
      const undo = await fault();
      await sleep(ms);
      const backMs = Date.now();
      await undo();
      await grows();
      const goOnAfterMs = Date.now() - backMs;
      report(`streams while ${what} for ${ms} ms`, { goOnAfterMs, ...latest() });
      expect(goOnAfterMs).toBeLessThan(limitMs);
      const { opened, errors } = await caller();
      report(`a caller while ${what}`, { opened, errors });
      expect(errors).toEqual([]);
      expect(latest()?.errors).toEqual([]);
    }
    program.child.stdin?.write("end\n");
    await program.says('"over":true');
    const end = latest();
    expect(end?.errors).toEqual([]);
    expect(end?.echoed).toBe(end?.sent);
    expect(await lab.ok("status")).toContain("Connected");
  },
);
