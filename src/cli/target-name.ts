// `kind/name`, as kubectl has it, where a service or workload is named: `deploy/hello` is hello.
import { AppError } from "#base/error.ts";

export interface TargetName {
  readonly name: string;
  /** What the kind says it is. */
  readonly as: "service" | "workload" | undefined;
}

const serviceKinds = /^(services?|svc)$/i;
const workloadKinds =
  /^((deployments?|deploy|statefulsets?|sts|replicasets?|rs)(\.apps)?|(rollouts?|ro)(\.argoproj\.io)?)$/i;

/** Throws for a kind that cannot be intercepted. */
export function readTargetName(text: string): TargetName {
  const slash = text.indexOf("/");
  if (slash === -1) return { name: text, as: undefined };
  const kind = text.slice(0, slash);
  const as = serviceKinds.test(kind) ? "service" : workloadKinds.test(kind) ? "workload" : undefined;
  const name = text.slice(slash + 1);
  if (as !== undefined && name !== "" && !name.includes("/")) return { name, as };
  throw new AppError(
    "usage",
    `the name is "${text}", expected that of a service or workload, as hello or deploy/hello`,
  );
}
