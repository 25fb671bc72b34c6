// `telepresence revoke`: ends another person's intercept. The right to it is `pods/exec` on the workload's pods, which the
// API server checks (docs/decisions/0010): a program in an agent's container tells the agent, and that the manager.
import type { Clock } from "#base/clock.ts";
import { deadline } from "#base/abort.ts";
import { AppError, isAppError, toAppError } from "#base/error.ts";
import type { Kube } from "#kube/client.ts";
import { execInPod } from "#kube/streams/exec.ts";
import { agentContainerName } from "#wire/agent-api.ts";
import { doorAnswerSchema, revokeCommand, type DoorAnswer, type Revocation } from "#wire/agent-door.ts";
import type { InterceptInfo } from "#wire/manager-api.ts";
import { listAgentPods } from "./workload-agents.ts";
import type { WorkloadAccess, WorkloadPod } from "#daemon/intercepts/workload-access.ts";

/** chosen: pods that are tried before it is given up. */
const maxTries = 3;
const revokeMs = 20_000;

export interface RevocationOptions {
  readonly access: WorkloadAccess;
  /** `user@host`, for the owner. */
  readonly by: string;
  readonly clock: Clock;
}

/** Resolves when the agents have confirmed that new connections go to the application. */
export async function revokeIntercept(
  { access, by, clock }: RevocationOptions,
  info: InterceptInfo,
  signal: AbortSignal,
): Promise<void> {
  const { id, spec, client } = info;
  const { workload, name } = spec;
  using limit = deadline(clock, revokeMs, `ending the intercept ${name} of ${client}`, signal);
  const pods = servingFirst(await listAgentPods({ access, workload, clock }, limit.signal), info);
  let failure = new AppError(
    "unreachable",
    `no pod of ${workload.kind} ${workload.name} has a traffic-agent that runs`,
    {
      hint: "nothing is intercepted there until one does",
    },
  );
  for (const pod of pods.slice(0, maxTries)) {
    try {
      await access.revoke(workload.namespace, pod, { id, by }, limit.signal);
      await tell({ access, by, clock }, info, limit.signal);
      return;
    } catch (error) {
      limit.signal.throwIfAborted();
      failure = explain(toAppError(error), workload.namespace);
      if (isAppError(failure, "forbidden")) break;
    }
  }
  throw failure;
}

/** Its owner's laptop may be away. */
async function tell(
  { access, by, clock }: RevocationOptions,
  { spec, client }: InterceptInfo,
  signal: AbortSignal,
): Promise<void> {
  const { workload, name } = spec;
  const message = `intercept ${name} of ${client} was revoked by ${by}: the application answers its callers again`;
  const news = { workload, reason: "InterceptRevoked", message, type: "Warning", atMs: clock.wallMs() } as const;
  await access.recordEvent(news, signal).catch(() => undefined); // best effort, as all events are
}

function servingFirst(pods: readonly WorkloadPod[], { pods: serving }: InterceptInfo): readonly WorkloadPod[] {
  const uids = new Set(serving.map(({ uid }) => uid));
  return pods.toSorted((a, b) => Number(uids.has(b.uid)) - Number(uids.has(a.uid)));
}

function explain(error: AppError, namespace: string): AppError {
  if (!isAppError(error, "forbidden")) return error;
  return new AppError(
    "forbidden",
    `ending somebody else's intercept needs the right to run programs in its pods: ${error.message}`,
    {
      cause: error,
      hint: `ask for \`create\` and \`get\` on \`pods/exec\` in namespace ${namespace}, or ask its owner to leave it`,
    },
  );
}

/** Fulfils WorkloadAccess. */
export async function execRevocation(
  kube: Kube,
  { namespace, pod }: { readonly namespace: string; readonly pod: WorkloadPod },
  { id, by }: Revocation,
  signal: AbortSignal,
): Promise<void> {
  const { stdout, stderr } = await execInPod(kube, {
    namespace,
    pod: pod.name,
    container: pod.agent ?? agentContainerName,
    command: ["/telepresence", "traffic-agent", revokeCommand, id, by],
    signal,
  });
  const answer = readAnswer(stdout.toString("utf8"));
  if (answer === undefined) {
    const said = stderr.toString("utf8").trim().split("\n")[0] ?? "";
    throw new AppError(
      "version_mismatch",
      `the traffic-agent in pod ${pod.name} does not know how to revoke: ${said}`,
      {
        hint: "upgrade it with `telepresence uninstall --agent` and a new intercept",
      },
    );
  }
  if (answer.error !== undefined) throw new AppError(answer.error.code, answer.error.message);
}

/** Of an older version: log lines, or nothing. */
function readAnswer(text: string): DoorAnswer | undefined {
  try {
    const { success, data } = doorAnswerSchema.strict().safeParse(JSON.parse(text));
    return success ? data : undefined;
  } catch {
    return undefined;
  }
}
