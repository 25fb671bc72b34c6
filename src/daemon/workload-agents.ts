// The agents of a workload's pods, asked once each: for questions that no intercept of one's own follows.
import { deadline, linkSignals } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, isAppError, toAppError } from "#base/error.ts";
import { inParallel } from "#base/in-parallel.ts";
import { silentLogger } from "#base/log.ts";
import type { WorkloadRef } from "#wire/manager-api.ts";
import { openConversation, type Conversation, type IntroductionRpc } from "#daemon/link/laptop-session.ts";
import { mayAnswer } from "#daemon/intercepts/introductions.ts";
import type { WorkloadAccess, WorkloadPod } from "#daemon/intercepts/workload-access.ts";

/** chosen: an agent answers at once; a pod that went away meanwhile keeps nobody waiting. */
const answerMs = 5000;
const knockMs = 100;
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

/** The workload's pods whose agents may answer, as they are now. */
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
    return (await promise).filter(mayAnswer);
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
  await inParallel(pods, maxParallel, async (pod) => {
    const podName = pod.name;
    try {
      answers.push({ podName, answer: await askOne(agents, pod, ask, signal) });
    } catch (error) {
      signal.throwIfAborted();
      failures.push(describeFailure(podName, error));
    }
  });
  return { answers: answers.toSorted((a, b) => (a.podName < b.podName ? -1 : 1)), failures };
}

async function askOne<T>(
  agents: WorkloadAgents,
  pod: WorkloadPod,
  ask: (rpc: IntroductionRpc, signal: AbortSignal) => Promise<T>,
  signal: AbortSignal,
): Promise<T> {
  using limit = deadline(agents.clock, answerMs, `the answer of the traffic-agent in pod ${pod.name}`, signal);
  using agent = await reach(agents, pod, limit.signal);
  return await ask(agent.rpc, limit.signal);
}

/** One that is about to run is knocked at until it listens. */
async function reach(
  { access, workload, clock }: WorkloadAgents,
  { name, agentRunning }: WorkloadPod,
  signal: AbortSignal,
): Promise<Conversation<"introduction">> {
  for (;;) {
    try {
      const transport = await access.openIntroduction(workload.namespace, name, signal);
      return await openConversation(transport, { api: "introduction", clock, log: silentLogger }, signal);
    } catch (error) {
      if (agentRunning || signal.aborted) throw error;
      await clock.sleep(knockMs, signal);
    }
  }
}

function describeFailure(podName: string, error: unknown): string {
  if (isAppError(error, "unsupported")) {
    return `the traffic-agent in pod ${podName} is of an older version, which does not know this question`;
  }
  return `the traffic-agent in pod ${podName} did not answer: ${toAppError(error).message}`;
}
