// Who answers a request: decided over its parsed head at the moment it comes, each request by itself.
import type { RequestHead } from "#http/head.ts";
import { valuesOf } from "#http/head.ts";
import type { ServedIntercepts, Taken } from "#agent/served.ts";
import type { AgentPort } from "#wire/agent-api.ts";

export interface HttpRoutes {
  /** The intercept that takes the request; undefined is the application. */
  decide(request: RequestHead): Taken | undefined;
  /** Whether this is still an intercept that may take requests. */
  isCurrent(taken: Taken): boolean;
}

export function routesOf(served: ServedIntercepts, port: AgentPort): HttpRoutes {
  const find = (): Taken | undefined => served.find(port.containerPort, port.protocol);
  return {
    decide: (request) => {
      const taken = find();
      return taken === undefined || isProbe(request) ? undefined : taken;
    },
    isCurrent: (taken) => sameIntercept(taken, find()),
  };
}

export function sameIntercept(one: Taken, other: Taken | undefined): boolean {
  return other !== undefined && one.interceptId === other.interceptId && one.opener === other.opener;
}

/** Kubelet asks how the pod is, not the laptop: a breakpoint there must not have the pod restarted. */
function isProbe(request: RequestHead): boolean {
  return valuesOf(request, "user-agent").some((agent) => agent.startsWith("kube-probe/"));
}
