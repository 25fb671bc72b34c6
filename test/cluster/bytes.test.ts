// TARGETS' row "bytes moved": each byte arrives, once, in its place, both ways, through the whole product; each way in one
// connection, with a digest taken at both ends. What daemon and manager hold does not grow with it.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { countOf, patience } from "#test/rounds.ts";
import { readProcess } from "#testbed/processes.ts";
import { Lab, apply, fixture, report, rolledOut, service, toolsImage } from "./lab.ts";
import { stage } from "./stage.ts";

const namespace = "it-bytes";
const lab = new Lab({ managerNamespace: "it-manager" });
/** Each way: 2 GB in all, or 100. */
const [usual, full] = [1, 50];
const gigabytes = countOf(usual, full);
/** chosen: what a process may have more of its own after a gigabyte than before. */
const growthMegabytes = 64;

stage([lab], namespace);

function anonymousMegabytes(pid: number): number {
  expect(readProcess(pid)).toBeDefined();
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^RssAnon:\s+(\d+) kB/m.exec(status)?.[1]) / 1000;
}

test(
  `${gigabytes} GB up and ${gigabytes} GB down arrive byte for byte`,
  { timeout: patience(300_000, usual, full) },
  async () => {
    const script = readFileSync(join(import.meta.dirname, "fixtures/bytes.mjs"), "utf8");
    const container = {
      name: "bytes",
      image: toolsImage,
      imagePullPolicy: "IfNotPresent",
      command: ["node", "--input-type=module", "-e", script, "fixture", "serve", "9000"],
      readinessProbe: { tcpSocket: { port: 9000 }, periodSeconds: 1 },
    };
    const labels = { app: "bytes" };
    const template = { metadata: { labels }, spec: { terminationGracePeriodSeconds: 1, containers: [container] } };
    const spec = { selector: { matchLabels: labels }, template };
    await apply(
      namespace,
      { apiVersion: "apps/v1", kind: "Deployment", metadata: { name: "bytes" }, spec },
      service("bytes", [{ name: "bytes", port: 9000 }]),
    );
    await rolledOut(namespace, "deployment/bytes");
    await lab.ok("connect", "-n", namespace);
    const [daemon = 0] = lab.pids("daemon");
    const beforeMegabytes = anonymousMegabytes(daemon);
    for (const way of ["up", "down"]) {
      const bytes = gigabytes * 1e9;
      const startMs = performance.now();
      await using program = lab.spawn(fixture("bytes.mjs", way, `bytes.${namespace}:9000`, String(bytes)));
      await program.says("}");
      const seconds = (performance.now() - startMs) / 1000;
      const grownMegabytes = Math.round(anonymousMegabytes(daemon) - beforeMegabytes);
      const gbitPerSecond = Number(((bytes * 8) / seconds / 1e9).toFixed(2));
      report(`${gigabytes} GB ${way} in one connection`, { gbitPerSecond, grownMegabytes, said: program.stdout });
      expect(JSON.parse(program.stdout)).toEqual({ sent: bytes, received: bytes, same: true });
      expect(grownMegabytes).toBeLessThan(growthMegabytes);
    }
  },
);
