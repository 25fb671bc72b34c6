// `telepresence why`: all agents of a workload are asked what became of its requests, since callers reach any of its pods.
// Who may port-forward to a pod may ask, as he may intercept it.
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { controlApi, WhyWorkload } from "#wire/control-api.ts";
import { workloadKey, type InterceptInfo, type WorkloadRef } from "#wire/manager-api.ts";
import type { ParamsOf, ResultOf } from "#wire/rpc.ts";
import { chooseWorkloads, type Everybody } from "./named-intercepts.ts";
import { askAgents, listAgentPods, type WorkloadAgents } from "./workload-agents.ts";

export interface WhyOptions {
  readonly access: WorkloadAgents["access"];
  readonly everybody: Everybody;
  readonly namespace: string;
  readonly clock: Clock;
}

type Question = ParamsOf<typeof controlApi, "why">;
type Answer = ResultOf<typeof controlApi, "why">;

export async function askWhy(options: WhyOptions, question: Question, signal: AbortSignal): Promise<Answer> {
  const { everybody, namespace } = options;
  const workloads = chooseWorkloads(everybody, question.name, namespace);
  const warnings: string[] = [];
  const told: Answer["workloads"] = [];
  for (const workload of workloads) told.push(await askWorkload(options, workload, { question, warnings }, signal));
  return { workloads: told, warnings };
}

async function askWorkload(
  { access, everybody, clock }: WhyOptions,
  workload: WorkloadRef,
  { question, warnings }: { readonly question: Question; readonly warnings: string[] },
  signal: AbortSignal,
): Promise<Answer["workloads"][number]> {
  const agents = { access, workload, clock };
  const running = await listAgentPods(agents, signal);
  const { limit, withQuery, suppose } = question;
  const asked = await askAgents(
    agents,
    running,
    (rpc, asking) => rpc.call("why", { limit, withQuery, suppose }, asking),
    signal,
  );
  const intercepts = ofWorkload(everybody, workload);
  if (asked.answers.length === 0) {
    const where = `${workload.kind} ${workload.name} in namespace ${workload.namespace}`;
    const [why = "none of its pods has a traffic-agent that runs"] = asked.failures;
    throw new AppError("unreachable", `nobody can tell of the requests of ${where}: ${why}`, {
      hint: "see `telepresence status` and `kubectl get pods`",
    });
  }
  warnings.push(...asked.failures);
  const pods = asked.answers.map(({ podName, answer }) => ({ podName, ...answer }));
  return {
    workload,
    pods: keepLatest(pods, limit),
    intercepts: intercepts.map((info) => ({ ...info, mine: everybody.own.has(info.id) })),
  };
}

/** As many as were asked for, of all pods together. */
function keepLatest(pods: WhyWorkload["pods"], limit: number): WhyWorkload["pods"] {
  const ages = pods.flatMap(({ decisions }) => decisions.map(({ ageMs }) => ageMs)).toSorted((a, b) => a - b);
  const oldestMs = ages[limit - 1] ?? Number.POSITIVE_INFINITY;
  return pods.map((pod) => ({ ...pod, decisions: pod.decisions.filter(({ ageMs }) => ageMs <= oldestMs) }));
}

function ofWorkload({ infos }: Everybody, workload: WorkloadRef): readonly InterceptInfo[] {
  return infos.filter(({ spec }) => workloadKey(spec.workload) === workloadKey(workload));
}
