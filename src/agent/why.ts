// The answer to `telepresence why`: what became of the last requests, and of one that nobody has sent. Filters say why
// here, when somebody asks, and all they may cost for one question is bounded, because callers wait meanwhile.
// Invariant: of a request no header's value, no body, and unless it is asked for no query leaves this process; reasons
// are texts of the filters and of ours.
import type { Clock } from "#base/clock.ts";
import { explanationMeter } from "#filter/compile.ts";
import type { ConditionValue } from "#filter/compile.ts";
import type { AgentPort, PodProbe } from "#wire/agent-api.ts";
import type { introductionApi } from "#wire/introduction-api.ts";
import type { ParamsOf, ResultOf } from "#wire/rpc.ts";
import type { DecisionInfo, Rule, SupposedRequest, Verdict } from "#wire/why.ts";
import type { AskedRequest, Decision, Decisions } from "./decisions.ts";
import { PortProbes, isProbe } from "./inbound/probes.ts";
import type { ServedIntercepts, Taken } from "./served.ts";

type Meter = ReturnType<typeof explanationMeter>;

/** chosen: a line of a terminal has room for less. */
const maxConditions = 64;
const maxTextChars = 500;
/** chosen: of all conditions; an answer is one message (PROTOCOL §7). */
const maxAnswerChars = 512 * 1024;
/** chosen: more than one question can be about. */
const maxRules = 200;

export interface WhyOptions {
  readonly ports: readonly AgentPort[];
  readonly podProbes: readonly PodProbe[];
  readonly served: ServedIntercepts;
  readonly decisions: Decisions;
  readonly clock: Clock;
}

export function explainWhy(
  options: WhyOptions,
  { limit, withQuery = false, suppose }: ParamsOf<typeof introductionApi, "why">,
): ResultOf<typeof introductionApi, "why"> {
  const { ports, decisions, clock } = options;
  const nowMs = clock.now();
  const explaining = { asked: new AskedList(), meter: explanationMeter(), tell: telling() };
  const verdicts = suppose === undefined ? [] : ports.flatMap((port) => supposeAt(port, options, suppose, explaining));
  // The latest first, should what explanations may cost be spent.
  const latest = decisions.last(limit).toReversed();
  const infos = latest.map((decision) => describe(decision, { ...explaining, nowMs, withQuery }));
  return { intercepts: explaining.asked.list, decisions: infos.toReversed(), verdicts };
}

interface Explaining {
  readonly asked: AskedList;
  readonly meter: Meter;
  readonly tell: (conditions: readonly ConditionValue[]) => Rule["conditions"];
}

/** What does not fit into the answer is left out. */
function telling(): Explaining["tell"] {
  let left = maxAnswerChars;
  return (conditions) => {
    const rule = conditions.map(told);
    for (const { text, reason = "" } of rule) left -= text.length + reason.length;
    return left < 0 ? [] : rule;
  };
}

function describe(
  decision: Decision,
  how: Explaining & { readonly nowMs: number; readonly withQuery: boolean },
): DecisionInfo {
  const { line, taken } = decision;
  return {
    ageMs: how.nowMs - decision.atMs,
    containerPort: decision.containerPort,
    refused: decision.isProbe ? [] : refusals(decision, how),
    ...(line === undefined ? {} : { method: line.method, target: withoutQuery(line.target, how.withQuery) }),
    ...kindOf(decision),
    ...(taken === undefined ? {} : { taken: how.asked.indexOf(taken) }),
    ...(decision.left === undefined ? {} : { left: decision.left }),
    ...(decision.answeredBy === undefined ? {} : { answeredBy: decision.answeredBy }),
    ...(decision.status === undefined ? {} : { status: decision.status }),
    ...(decision.durationMs === undefined ? {} : { durationMs: decision.durationMs }),
    ...(decision.failure === undefined ? {} : { failure: decision.failure }),
    ...(decision.copies.length === 0 ? {} : { copies: copiesOf(decision, how) }),
  };
}

function kindOf({ source, isUdp, isProbe }: Decision): Pick<DecisionInfo, "source" | "isUdp" | "isProbe"> {
  return {
    ...(source === undefined ? {} : { source }),
    ...(isUdp ? { isUdp } : {}),
    ...(isProbe ? { isProbe } : {}),
  };
}

function copiesOf({ copies }: Decision, { asked }: Explaining): DecisionInfo["copies"] {
  return copies.slice(0, maxRules).map(({ tap, cut }) => ({
    intercept: asked.indexOf(tap),
    ...(cut === undefined ? {} : { cut: cut.slice(0, maxTextChars) }),
  }));
}

function withoutQuery(target: string, withQuery: boolean): string {
  const shown = withQuery ? target : target.replace(/\?.*$/s, "");
  return shown.slice(0, 2 * maxTextChars);
}

/** Those that were asked before the one that took it. */
function refusals({ asked, taken, request, isRequest }: Decision, how: Explaining): Rule[] {
  // What is served may have been set anew between the two: then nobody can tell who was asked before.
  const before = taken === undefined ? asked : asked.slice(0, Math.max(0, asked.indexOf(taken)));
  return before.slice(0, maxRules).map((other) => {
    const intercept = how.asked.indexOf(other);
    if (request === undefined) return { intercept, conditions: [], ...(isRequest ? {} : { matched: false }) };
    const { matched, joined, conditions } = explain(other, request, how.meter);
    const decisive = joined === "&&" ? decisiveOf(conditions) : conditions;
    return { intercept, joined, conditions: how.tell(decisive), ...(matched === undefined ? {} : { matched }) };
  });
}

/** Of conditions that must all hold: one that does not, else those of which that is not known. */
function decisiveOf(conditions: readonly ConditionValue[]): readonly ConditionValue[] {
  const wrong = conditions.find(({ value }) => value === false);
  return wrong === undefined ? conditions.filter(({ value }) => value === undefined) : [wrong];
}

function supposeAt(
  port: AgentPort,
  { podProbes, served }: WhyOptions,
  suppose: SupposedRequest,
  explaining: Explaining,
): readonly Verdict[] {
  const probes = new PortProbes(port, podProbes, served);
  if (port.protocol !== "tcp" || !served.isTaken(port)) return [];
  const { containerPort } = port;
  const request = asRequest(suppose);
  const all = isProbe(request) ? probes.takers : served.of(port);
  if (all.length === 0 && isProbe(request)) {
    return [{ containerPort, rules: [], isProbe: true, ...(probes.isAgents(request) ? { byAgent: true } : {}) }];
  }
  // Where nobody speaks HTTP no filter is asked.
  const asked = port.http === false && port.tls !== true ? all.filter(({ filter }) => filter === undefined) : all;
  const rules = asked.slice(0, maxRules).map((one) => ruleOf(one, request, explaining));
  return [{ containerPort, rules, ...outcomeOf(rules), ...supposeCopies(served.tapsOf(port), request, explaining) }];
}

function outcomeOf(rules: readonly Rule[]): Pick<Verdict, "taken" | "undecided"> {
  const taken = rules.find(({ matched }) => matched === true)?.intercept;
  const undecided = rules.find(({ matched }) => matched === undefined)?.intercept;
  return { ...(taken === undefined ? {} : { taken }), ...(undecided === undefined ? {} : { undecided }) };
}

function supposeCopies(taps: readonly Taken[], request: AskedRequest, { asked, meter }: Explaining) {
  const matching = isProbe(request) ? [] : taps.filter((tap) => explain(tap, request, meter).matched === true);
  return matching.length === 0 ? {} : { copies: matching.slice(0, maxRules).map((tap) => asked.indexOf(tap)) };
}

function ruleOf(one: Taken, request: AskedRequest, { asked, meter, tell }: Explaining): Rule {
  const { matched, joined, conditions } = explain(one, request, meter);
  return {
    intercept: asked.indexOf(one),
    joined,
    conditions: tell(conditions),
    ...(matched === undefined ? {} : { matched }),
  };
}

function asRequest({ method, target, headers }: SupposedRequest): AskedRequest {
  const lower = headers.map(({ name, value }) => ({ name: name.toLowerCase(), value: asReceived(value) }));
  const authority = lower.find(({ name }) => name === "host")?.value ?? "";
  return { method, target: asReceived(target), authority, headers: lower };
}

/** A request's bytes are read as Latin-1 first, whatever they are. */
function asReceived(text: string): string {
  return Buffer.from(text).toString("latin1");
}

function explain({ filter }: Taken, request: AskedRequest, meter: Meter) {
  if (filter === undefined) return { matched: true, joined: "&&", conditions: [] } as const;
  const { matched, joined, conditions } = filter.explain(request, meter);
  return { matched, joined, conditions: conditions.slice(0, maxConditions) };
}

function told({ text, value, reason }: ConditionValue): Rule["conditions"][number] {
  return {
    text: text.slice(0, maxTextChars),
    ...(value === undefined ? {} : { value }),
    ...(reason === undefined ? {} : { reason: reason.slice(0, maxTextChars) }),
  };
}

/** Each intercept once, however often it was asked. */
class AskedList {
  readonly list: ResultOf<typeof introductionApi, "why">["intercepts"] = [];
  readonly #indexes = new Map<string, number>();

  indexOf({ interceptId, client, filter }: Taken): number {
    // One that was made again has the id of the one before, and perhaps another filter.
    const key = JSON.stringify([interceptId, client, filter?.text]);
    let index = this.#indexes.get(key);
    if (index === undefined) {
      index = this.list.length;
      this.#indexes.set(key, index);
      this.list.push({ id: interceptId, client, ...(filter === undefined ? {} : { filter: filter.text }) });
    }
    return index;
  }
}
