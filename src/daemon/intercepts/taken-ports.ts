// One port of the laptop takes the requests of one intercept.
import { AppError } from "#base/error.ts";
import type { InterceptPort, InterceptSpec } from "#wire/manager-api.ts";

export function refuseTakenPorts(spec: InterceptSpec, others: readonly InterceptSpec[]): void {
  if (spec.kind === "wiretap") return; // copies disturb nobody
  for (const other of others.filter(({ kind }) => kind !== "wiretap")) {
    const port = spec.ports.find((wanted) => other.ports.some((used) => isSame(used, wanted)));
    if (port === undefined) continue;
    throw new AppError(
      "port_in_use",
      `Port ${port.targetHost}:${port.targetPort} is already in use by intercept ${other.name}`,
      { hint: "choose another local port with --port" },
    );
  }
}

function isSame(a: InterceptPort, b: InterceptPort): boolean {
  return a.targetHost === b.targetHost && a.targetPort === b.targetPort && a.protocol === b.protocol;
}
