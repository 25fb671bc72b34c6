// Containers that a laptop's process replaces. Each comes back when its replacement ends in order; what a daemon left that
// was killed meanwhile, the next `connect` of the same user puts back.
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { isAppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { replacementOf } from "#installer/replacement.ts";
import { listReplaceable, restoreContainer } from "#installer/rollout.ts";
import type { Kube } from "#kube/client.ts";
import { describeWorkload } from "#kube/workloads/workloads.ts";
import type { WorkloadAccess } from "#daemon/intercepts/workload-access.ts";
import type { WorkloadRef } from "#wire/manager-api.ts";

/** chosen: a rollout of one pod after the other, as long as `quit` may take. */
const putBackMs = 50_000;

interface PutBackOptions {
  readonly access: Pick<WorkloadAccess, "restore">;
  readonly clock: Clock;
  readonly log: Logger;
}

/** For those whose replacement is over whatever comes of this: gives a warning, never rejects. */
export async function putBack(
  workload: WorkloadRef,
  { access, clock, log }: PutBackOptions,
): Promise<string | undefined> {
  const what = describeWorkload(workload);
  try {
    using limit = deadline(clock, putBackMs, `putting the container of ${what} back`);
    return await access.restore(workload, () => undefined, limit.signal);
  } catch (error) {
    const { message } = toAppError(error);
    log.error("a replaced container is not back yet", { workload: what, error: message });
    const next = `the next \`telepresence connect\`, or \`telepresence uninstall --agent ${workload.name}\`, puts it back`;
    return `the replaced container of ${what} is not back yet: ${message}; ${next}`;
  }
}

interface Left {
  readonly installId: string;
  readonly namespaces: readonly string[];
}

/** A sentence for each that is put back; its pods follow. What may not be seen is passed over. */
export async function restoreLeft(kube: Kube, { installId, namespaces }: Left, signal: AbortSignal): Promise<string[]> {
  const warnings: string[] = [];
  for (const namespace of new Set(namespaces)) {
    const found = await listReplaceable(kube, namespace, signal).catch((error: unknown) => {
      if (isAppError(error, "forbidden")) return [];
      throw error;
    });
    for (const { kind, name, object } of found) {
      const record = replacementOf({ kind, object });
      if (record?.installId !== installId) continue;
      const what = `container ${record.container} of ${describeWorkload({ kind, name })}`;
      const request = {
        workload: { kind, name, namespace },
        installId,
        onProgress: () => undefined,
        wait: false,
        signal,
      };
      const failure = await restoreContainer(kube, request).then(
        () => undefined,
        (error: unknown) => toAppError(error).message,
      );
      const done = kind === "CronJob" ? "its schedule goes on" : "its pods are being replaced";
      const said = failure === undefined ? done : `it could not be put back: ${failure}`;
      warnings.push(`${what} was still replaced by a process of yours that is gone; ${said}`);
    }
  }
  return warnings;
}
