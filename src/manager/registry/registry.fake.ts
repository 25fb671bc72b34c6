// A registry with laptops and agents that are not there: what they are told is written down.
import { FakeClock } from "#base/clock.fake.ts";
import { AppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import type { ServedIntercept } from "#wire/agent-api.ts";
import type { EndedIntercept, InterceptInfo, InterceptSpec, TrustedAgent, WorkloadRef } from "#wire/manager-api.ts";
import type { AgentLink, AgentRecord } from "./agents.ts";
import { Registry } from "./registry.ts";
import type { LaptopLink, SessionRecord } from "./sessions.ts";

export const workload: WorkloadRef = { kind: "Deployment", name: "hello", namespace: "shop" };
export const never = new AbortController().signal;
export const fingerprintOf = (number: number): string => number.toString(16).padStart(64, "0");
export const trustOf = (number: number, of: WorkloadRef = workload): TrustedAgent => ({
  fingerprint: fingerprintOf(number),
  podUid: `uid-${number}`,
  podName: `hello-${number}`,
  workload: of,
});
export const specOf = (name: string, containerPort = 8080, protocol: "tcp" | "udp" = "tcp"): InterceptSpec => ({
  name,
  workload,
  containerName: "app",
  ports: [{ containerPort, protocol, targetHost: "127.0.0.1", targetPort: 8000 }],
});

class FakeLaptop implements LaptopLink {
  keptBytes = 0;
  intercepts: readonly InterceptInfo[] = [];
  notifications = 0;
  readonly lostAgents: string[] = [];
  readonly ended: EndedIntercept[] = [];
  destroyed: AppError | undefined;
  notifyIntercepts(intercepts: readonly InterceptInfo[]): void {
    this.intercepts = intercepts;
    this.notifications += 1;
  }
  notifyAgentLost(podUid: string): void {
    this.lostAgents.push(podUid);
  }
  notifyEnded(ended: EndedIntercept): void {
    this.ended.push(ended);
  }
  openInbound(): Promise<never> {
    return Promise.reject(new AppError("refused", "not here"));
  }
  destroy(error: AppError): void {
    this.destroyed = error;
  }
}

export class FakeAgent implements AgentLink {
  readonly fingerprint: string;
  readonly podName: string;
  readonly workload: WorkloadRef;
  readonly podIps = ["10.0.0.1"];
  filters = true;
  tls = true;
  probes = true;
  wiretaps = true;
  suspends = true;
  suspended: readonly string[] = [];
  sets: string[][] = [];
  answer: (intercepts: readonly ServedIntercept[]) => Promise<void> = () => Promise.resolve();
  closed = false;
  destroyed: AppError | undefined;
  constructor(number: number, of: WorkloadRef) {
    this.fingerprint = fingerprintOf(number);
    this.podName = `hello-${number}`;
    this.workload = of;
  }
  setIntercepts(intercepts: readonly ServedIntercept[], suspended: readonly string[]): Promise<void> {
    this.suspended = suspended.map((id) => id.split(":")[1] ?? "");
    this.sets.push(intercepts.map((intercept) => intercept.id.split(":")[1] ?? ""));
    return this.answer(intercepts);
  }
  close(): void {
    this.closed = true;
  }
  destroy(error: AppError): void {
    this.destroyed = error;
  }
  get last(): readonly string[] | undefined {
    return this.sets.at(-1);
  }
}

export function setup(): {
  clock: FakeClock;
  registry: Registry;
  laptop: (client: string) => { link: FakeLaptop; session: SessionRecord };
  /** Introduced by every laptop that is here, as far as they vouch for it. */
  agent: (number: number, of?: WorkloadRef) => { link: FakeAgent; record: AgentRecord };
} {
  const clock = new FakeClock();
  const registry = new Registry({ clock, log: silentLogger });
  const introducedBy: string[] = [];
  return {
    clock,
    registry,
    laptop: (client) => {
      const link = new FakeLaptop();
      const session = registry.arrive({ client, installId: `id-${client}`, version: "1", namespace: "shop" }, link);
      introducedBy.push(session.id);
      return { link, session };
    },
    agent: (number, of = workload) => {
      const link = new FakeAgent(number, of);
      const { sessions } = registry.admit({ fingerprint: link.fingerprint, workload: of, introducedBy });
      return { link, record: registry.connectAgent(link, sessions) };
    },
  };
}
