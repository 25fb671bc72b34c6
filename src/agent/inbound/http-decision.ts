// Who answers a request: decided over its parsed head at the moment it comes, each request by itself, and over its body
// where a filter asks for it.
import { valuesOf } from "#http/head.ts";
import type { RequestHead } from "#http/head.ts";
import type { FilterRequest } from "#filter/request-view.ts";
import type { AskedRequest, Decision, Decisions } from "#agent/decisions.ts";
import type { ServedIntercepts, Taken } from "#agent/served.ts";
import type { AgentPort } from "#wire/agent-api.ts";

/** Kubelet, over HTTP or gRPC, and the program that probes gRPC for older ones. */
const proberAgent = /^(?:kube-probe\/|grpc[-_]health[-_]probe)/;

/** What is known of a request's body. */
export interface KnownBody {
  /** Undefined unless the whole of it was read. */
  readonly bytes: Buffer | undefined;
  /** No more of it will be known: decide without. */
  readonly final: boolean;
}

export interface HttpRoutes {
  /** The intercept that takes the request; undefined is the application. */
  decide(request: AskedRequest, body: KnownBody): Taken | undefined | "needs-body";
  /** Whether this is still an intercept that may take requests. */
  isCurrent(taken: Taken): boolean;
  /** Written down for `why`; what becomes of it is told to what is returned. */
  began(request: AskedRequest, taken: Taken | undefined): Decision;
  /** The application gets the whole connection, because its requests cannot be told apart. */
  gaveUp(reason: string): Decision;
}

export function routesOf(served: ServedIntercepts, port: AgentPort, decisions: Decisions): HttpRoutes {
  const { containerPort } = port;
  return {
    began: (request, taken) => {
      const asked = served.of(port);
      const probe = taken === undefined && asked.length > 0 && isProbe(request);
      return decisions.add({ containerPort, request, asked, taken, isProbe: probe });
    },
    gaveUp: (reason) => {
      const decision = decisions.add({ containerPort, asked: [], taken: undefined });
      decision.leftToApplication(reason);
      return decision;
    },
    decide: (request, body) => (isProbe(request) ? undefined : firstMatch(served.of(port), request, body)),
    isCurrent: (taken) => served.of(port).some((other) => sameIntercept(taken, other)),
  };
}

export function sameIntercept(one: Taken, other: Taken | undefined): boolean {
  return other !== undefined && one.interceptId === other.interceptId && one.opener === other.opener;
}

/** For a decision over a request of HTTP/1.1. */
export function askedOf({ method, target, ...head }: RequestHead): AskedRequest {
  const [authority = ""] = valuesOf(head, "host");
  return { method, target, authority, headers: head.fields };
}

function firstMatch(asked: readonly Taken[], request: AskedRequest, body: KnownBody): Taken | undefined | "needs-body" {
  let view: FilterRequest | undefined;
  for (const taken of asked) {
    const { filter } = taken;
    if (filter === undefined) return taken;
    view ??= { ...request, body: body.bytes };
    const verdict = body.final ? filter.evaluate(view) : filter.decide(view);
    if (verdict === "needs-body") return verdict;
    if (verdict) return taken;
  }
  return undefined;
}

/** Kubelet asks how the pod is, not the laptop: a breakpoint there must not have the pod restarted. */
export function isProbe({ headers }: AskedRequest): boolean {
  return headers.some(({ name, value }) => name === "user-agent" && proberAgent.test(value));
}
