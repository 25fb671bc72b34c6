// The agents of a workload's pods, asked once each: for questions that no intercept of one's own follows.
import { deadline, linkSignals } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, isAppError, toAppError } from "#base/error.ts";
import { inParallel } from "#base/in-parallel.ts";
import { silentLogger } from "#base/log.ts";
import type { WorkloadRef } from "#wire/manager-api.ts";
import { openConversation, type IntroductionRpc } from "./laptop-session.ts";
import type { WorkloadAccess, WorkloadPod } from "#daemon/intercepts/workload-access.ts";

/** chosen: an agent answers at once; a pod that went away meanwhile keeps nobody waiting. */
const answerMs = 5000;
const listMs = 10_000;
const maxParallel = 8;

export interface WorkloadAgents {
  readonly access: Pick<WorkloadAccess, "watchPods" | "openIntroduction">;
  readonly workload: WorkloadRef;
  readonly clock: Clock;
}

export interface AgentAnswers<T> {
  readonly answers: readonly { readonly podName: string; readonly answer: T }[];
  /** A sentence for each agent that did not answer. */
  readonly failures: readonly string[];
}

/** The workload's pods whose agents run, as they are now. */
export async function listAgentPods(
  { access, workload, clock }: WorkloadAgents,
  signal: AbortSignal,
): Promise<readonly WorkloadPod[]> {
  using limit = deadline(clock, listMs, `listing the pods of ${workload.kind} ${workload.name}`, signal);
  const enough = new AbortController();
  using either = linkSignals(limit.signal, enough.signal);
  const { promise, resolve, reject } = Promise.withResolvers<readonly WorkloadPod[]>();
  const watching = access.watchPods(workload, resolve, either.signal).then(() => {
    reject(new AppError("unreachable", `the pods of ${workload.kind} ${workload.name} could not be listed`));
  }, reject);
  try {
    return (await promise).filter((pod) => pod.agentRunning);
  } finally {
    enough.abort(new AppError("cancelled", "the pods are known"));
    await watching;
  }
}

/** Asks each. What one cannot answer is told in a sentence; rejects only with the signal's reason. */
export async function askAgents<T>(
  agents: WorkloadAgents,
  pods: readonly WorkloadPod[],
  ask: (rpc: IntroductionRpc, signal: AbortSignal) => Promise<T>,
  signal: AbortSignal,
): Promise<AgentAnswers<T>> {
  const answers: { readonly podName: string; readonly answer: T }[] = [];
  const failures: string[] = [];
  await inParallel(pods, maxParallel, async ({ name: podName }) => {
    try {
      answers.push({ podName, answer: await askOne(agents, podName, ask, signal) });
    } catch (error) {
      signal.throwIfAborted();
      failures.push(describeFailure(podName, error));
    }
  });
  return { answers: answers.toSorted((a, b) => (a.podName < b.podName ? -1 : 1)), failures };
}

async function askOne<T>(
  { access, workload, clock }: WorkloadAgents,
  podName: string,
  ask: (rpc: IntroductionRpc, signal: AbortSignal) => Promise<T>,
  signal: AbortSignal,
): Promise<T> {
  using limit = deadline(clock, answerMs, `the answer of the traffic-agent in pod ${podName}`, signal);
  const transport = await access.openIntroduction(workload.namespace, podName, limit.signal);
  using agent = await openConversation(transport, { api: "introduction", clock, log: silentLogger }, limit.signal);
  return await ask(agent.rpc, limit.signal);
}

function describeFailure(podName: string, error: unknown): string {
  if (isAppError(error, "unsupported")) {
    return `the traffic-agent in pod ${podName} is of an older version, which does not know this question`;
  }
  return `the traffic-agent in pod ${podName} did not answer: ${toAppError(error).message}`;
}
