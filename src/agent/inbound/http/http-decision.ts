// Who answers a request: decided over its parsed head at the moment it comes, each request by itself, and over its body
// where a filter asks for it.
import { Unclear, parseRequestHead, valuesOf } from "#http/head.ts";
import type { RequestHead } from "#http/head.ts";
import type { FilterRequest } from "#filter/request-view.ts";
import type { AskedRequest, Decisions, Outcome } from "#agent/decisions.ts";
import type { ReceivedHead } from "#agent/kept-heads.ts";
import { sameIntercept } from "#agent/served.ts";
import type { ServedIntercepts, Taken } from "#agent/served.ts";
import type { AgentPort } from "#wire/agent-api.ts";
import { isProbe } from "#agent/inbound/probes.ts";
import type { PortProbes } from "#agent/inbound/probes.ts";

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
  /** A probe that the agent answers by itself; it is decided for the application. */
  isAgents(request: AskedRequest): boolean;
  /** Whether this is still an intercept that may take requests. */
  isCurrent(taken: Taken): boolean;
  /** Written down for `why`; what becomes of it is told to what is returned. */
  began(request: AskedRequest, taken: Taken | undefined, head: ReceivedHead): Outcome;
  /** The application gets the whole connection, because its requests cannot be told apart. */
  gaveUp(reason: string): Outcome;
}

export interface RoutesOptions {
  readonly port: AgentPort;
  readonly served: ServedIntercepts;
  readonly probes: PortProbes;
  readonly decisions: Decisions;
}

export function routesOf({ served, port, probes, decisions }: RoutesOptions): HttpRoutes {
  const { containerPort } = port;
  return {
    began: (request, taken, head) => {
      const asked = served.of(port);
      const probe = asked.length > 0 && isProbe(request);
      return decisions.add({ containerPort, head, asked, taken, isProbe: probe });
    },
    gaveUp: (reason) => {
      const outcome = decisions.add({ containerPort, asked: [], taken: undefined });
      outcome.leftToApplication(reason);
      return outcome;
    },
    isAgents: (request) => probes.isAgents(request),
    decide: (request, body) => firstMatch(isProbe(request) ? probes.takers : served.of(port), request, body),
    isCurrent: (taken) => served.of(port).some((other) => sameIntercept(taken, other)),
  };
}

/** For a decision over a request of HTTP/1.1. */
export function askedOf({ method, target, ...head }: RequestHead): AskedRequest {
  const [authority = ""] = valuesOf(head, "host");
  return { method, target, authority, headers: head.fields };
}

/** The same over its bytes, once nobody waits. */
export function readAsked(bytes: Buffer): AskedRequest | undefined {
  const head = parseRequestHead(bytes);
  return head instanceof Unclear ? undefined : askedOf(head);
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
