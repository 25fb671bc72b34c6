// The team that the manager's benchmark stands for: TARGETS' row.
import type { WorkloadRef } from "#wire/manager-api.ts";

export const [laptops, agents, intercepts] = [500, 2000, 1000];
export const agentsOfOne = agents / intercepts;
export const containerPort = 8080;

export const workloadOf = (number: number): WorkloadRef => ({
  kind: "Deployment",
  name: `app-${number}`,
  namespace: "shop",
});
