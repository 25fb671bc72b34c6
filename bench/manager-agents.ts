// One process of the manager's benchmark: COUNT agents, two for each workload, each a whole one in front of nothing. Tells
// its parent where each takes introductions, and by which key it is known.
import { startAgent } from "#agent/agent.ts";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { agentsOfOne, containerPort, workloadOf } from "./manager-shape.ts";

const told: { readonly introductionPort: number; readonly fingerprint: string }[] = [];
for (let number = 0; number < Number(process.argv[2]); number += 1) {
  const port = { agentPort: 0, containerPort, containerName: "app", protocol: "tcp", takeover: "name" } as const;
  const workload = workloadOf(Math.floor(number / agentsOfOne));
  const { introductionPort, fingerprint } = await startAgent({
    settings: {
      config: { workload, containerName: "app", certificateVolumes: [], probes: [], ports: [port] },
      podName: `pod-${number}`,
      podUid: `uid-${number}`,
      podIps: ["127.0.0.1"],
      logLevel: "silent",
      drainMs: 0,
      ports: { introduction: 0, health: 0 },
      doorName: `telepresence-bench-${process.pid}-${number}`,
    },
    clock: systemClock,
    log: silentLogger,
    lateMs: Number.POSITIVE_INFINITY,
  });
  told.push({ introductionPort, fingerprint });
}
process.send?.(told);
