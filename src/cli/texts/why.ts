// What the agents tell of requests, for people and for scripts. Texts of filters, paths and names come from other people:
// nothing in them may move the cursor or turn the direction of writing.
import type { WhyWorkload } from "#wire/control-api.ts";
import type { InterceptInfo } from "#wire/manager-api.ts";
import type { DecisionInfo, Rule, SupposedRequest, Verdict, WhyAnswer } from "#wire/why.ts";
import { printable } from "./filter.ts";

type Asked = WhyAnswer["intercepts"][number];
type Pod = WhyWorkload["pods"][number];
type Entry = DecisionInfo & { readonly pod: Pod };
type Line = (text: string) => string;

const indent: Line = (text) => `   ${text}`;

// ---- the last requests

export function formatDecisions(workloads: readonly WhyWorkload[], limit: number): readonly string[] {
  return workloads.flatMap((item) => {
    const { kind, name, namespace } = item.workload;
    const entries = lastEntries(item, limit);
    const place = `${kind} ${name} in namespace ${namespace}`;
    const title = entries.length === 0 ? `No request has come to ${place} yet` : `Last requests to ${place}`;
    return [title, ...entries.map(formatEntry).map(indent), ...olderLines(item).map(indent)];
  });
}

/** Of all pods, the oldest first. */
function lastEntries({ pods }: WhyWorkload, limit: number): readonly Entry[] {
  const all = pods.flatMap((pod) => pod.decisions.map((decision): Entry => ({ ...decision, pod })));
  const sorted = all.toSorted((a, b) => b.ageMs - a.ageMs);
  return limit === 0 ? [] : sorted.slice(-limit);
}

function formatEntry(entry: Entry): string {
  const { method, target, source, isUdp, pod, ageMs } = entry;
  const whole = `${isUdp === true ? "datagrams" : "connection"} from ${source ?? "?"}`;
  const what = method === undefined ? whole : `${method} ${target ?? ""}`;
  const line = `${formatAge(ageMs).padStart(6)}  ${pod.podName}  ${what} → ${answererOf(entry)}: ${reasonOf(entry)}${copiesOf(entry)}`;
  return printable(line);
}

function answererOf(entry: Entry): string {
  const { answeredBy, status, durationMs, failure } = entry;
  const who = {
    laptop: () => `laptop of ${interceptAt(entry.pod, entry.taken)?.client ?? "?"}`,
    application: () => "application",
    agent: () => "traffic-agent",
  };
  const over = failure === undefined ? "" : ` (${failure})`;
  const nobody = durationMs === undefined ? "not answered yet" : "no answer";
  const name = answeredBy === undefined ? nobody : who[answeredBy]();
  const how = status === undefined ? "" : `, ${status}`;
  return `${name}${how}${durationMs === undefined ? "" : ` in ${formatAge(durationMs)}`}${over}`;
}

function copiesOf({ copies = [], pod }: Entry): string {
  const names = copies.map(({ intercept, cut }) => `${tapAt(pod, intercept)}${cut === undefined ? "" : ` (${cut})`}`);
  return names.length === 0 ? "" : `; copied to ${names.join(", ")}`;
}

function reasonOf(entry: Entry): string {
  const { isProbe, left, taken, refused, pod, method } = entry;
  const one = interceptAt(pod, taken);
  if (isProbe === true) return probeReasonOf(entry, one);
  if (one !== undefined) return left === undefined ? tookIt(one) : `${nameOf(one)} took it, but ${left}`;
  if (left !== undefined) return left;
  if (refused.length === 0) return "no intercept takes requests of this port";
  return refused.map((rule) => refusalOf(rule, pod, method !== undefined)).join("; ");
}

/** Kubelet asks for the application, unless an intercept says otherwise. */
function probeReasonOf({ answeredBy, failure, left }: Entry, taken: Asked | undefined): string {
  const probe = "a probe of the kubelet's, which";
  if (answeredBy === "agent" && failure === undefined) return `${probe} --probes agent has the agent answer`;
  if (taken === undefined) return `${probe} asks for the application`;
  return `${probe} --probes laptop gives to ${nameOf(taken)}${left === undefined ? "" : `, but ${left}`}`;
}

function tookIt(intercept: Asked): string {
  return intercept.filter === undefined ? `${nameOf(intercept)} takes everything` : `${nameOf(intercept)} matches`;
}

function refusalOf(rule: Rule, pod: Pod, isRequest: boolean): string {
  const name = nameOf(interceptAt(pod, rule.intercept));
  if (!isRequest) return `${name} takes requests of HTTP only`;
  if (rule.conditions.length === 0) return `${name} does not match, and it is too long ago to say why`;
  return `${name}: ${rule.conditions.map(formatCondition).join(`, `)}`;
}

function formatCondition({ text, value, reason }: Rule["conditions"][number]): string {
  if (value !== undefined) return `${text} is ${value}`;
  return `${text} is not known${reason === undefined ? "" : ` (${reason})`}`;
}

/** Requests on connections that are older than an intercept are not seen by the agent. */
function olderLines({ intercepts }: WhyWorkload): readonly string[] {
  const older = intercepts.find(({ olderConnections }) => (olderConnections?.connections ?? 0) > 0)?.olderConnections;
  if (older === undefined) return [];
  const which = older.connections === 1 ? "An older connection goes" : `${older.connections} older connections go`;
  return [`${which} to the application, and what is on them is not seen here`];
}

// ---- a request that nobody has sent

export function formatVerdicts(workloads: readonly WhyWorkload[], suppose: SupposedRequest): readonly string[] {
  return workloads.flatMap((item) => {
    const { kind, name } = item.workload;
    const what = printable(`${suppose.method} ${suppose.target} to ${kind} ${name}`);
    const same = Map.groupBy(item.pods, (pod) => JSON.stringify(verdictsToJson(pod)));
    const groups = [...same.values()].flatMap((pods) => formatGroup(what, pods));
    return [...groups, ...inactiveLines(item.intercepts)];
  });
}

/** Pods that say the same. */
function formatGroup(what: string, pods: readonly Pod[]): readonly string[] {
  const [first] = pods;
  if (first === undefined) return [];
  const where = pods.length === 1 ? `in pod ${first.podName}` : `in ${pods.length} pods`;
  if (first.verdicts.length === 0) return [`${what} goes to the application ${where}: nothing is intercepted there`];
  return first.verdicts.flatMap((verdict) => {
    const title = `${what}, port ${verdict.containerPort}, goes to ${destinationOf(verdict, first)} ${where}`;
    const copies = (verdict.copies ?? []).map((at) => printable(indent(`copied to ${tapAt(first, at)}`)));
    return [printable(title), ...verdict.rules.flatMap((rule) => ruleLines(rule, verdict, first)), ...copies];
  });
}

function destinationOf({ taken, undecided, isProbe, byAgent }: Verdict, pod: Pod): string {
  if (byAgent === true) return "the agent, by --probes agent,";
  if (isProbe === true) return "the application, as probes do,";
  const one = interceptAt(pod, taken);
  const to = one === undefined ? "the application" : `the laptop of ${one.client} (intercept ${shortName(one)})`;
  const isOpen = undecided !== undefined && (taken === undefined || undecided < taken);
  return isOpen ? `whom its body decides, else ${to},` : to;
}

function ruleLines(rule: Rule, { taken }: Verdict, pod: Pod): readonly string[] {
  const intercept = interceptAt(pod, rule.intercept);
  const says = rule.matched === undefined ? "only the body can tell" : rule.matched ? "matches" : "does not match";
  const late = rule.matched === true && rule.intercept !== taken ? ", but is asked later" : "";
  const all = intercept?.filter === undefined ? "takes everything" : says;
  const joined = rule.joined === "||" ? "one of:" : "all of:";
  const lines = rule.conditions.map(formatCondition);
  const below = lines.length < 2 ? lines : [joined, ...lines.map(indent)];
  return [`${nameOf(intercept)}: ${all}${late}`, ...below.map(indent)].map((line) => printable(indent(line)));
}

function inactiveLines(intercepts: readonly InterceptInfo[]): readonly string[] {
  return intercepts
    .filter(({ state }) => state !== "active")
    .map(({ spec, client, state, message }) => {
      return printable(`   intercept ${spec.name} of ${client} is not asked: ${state}${message && `, ${message}`}`);
    });
}

// ---- both

const interceptAt = (pod: Pod, index: number | undefined): Asked | undefined =>
  index === undefined ? undefined : pod.intercepts[index];

const shortName = ({ id }: Asked): string => id.slice(id.indexOf(":") + 1);

function nameOf(intercept: Asked | undefined): string {
  return intercept === undefined ? "an intercept" : `intercept ${shortName(intercept)} of ${intercept.client}`;
}

/** A wiretap, after `copied to`. */
function tapAt(pod: Pod, index: number): string {
  const tap = interceptAt(pod, index);
  return tap === undefined ? "a wiretap" : `${shortName(tap)} of ${tap.client}`;
}

export function formatAge(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = Math.floor(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  return seconds < 7200 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3600)} h`;
}

// ---- for scripts

export function whyToJson(workloads: readonly WhyWorkload[], limit: number): readonly unknown[] {
  return workloads.map((item) => ({
    workload: item.workload,
    intercepts: item.intercepts.map(({ id, spec, client, state, mine }) => ({
      id,
      name: spec.name,
      client,
      state,
      kind: spec.kind,
      filter: spec.filter,
      mine,
    })),
    requests: lastEntries(item, limit).map(entryToJson),
    verdicts: item.pods.flatMap((pod) => verdictsToJson(pod).map((verdict) => ({ pod: pod.podName, ...verdict }))),
  }));
}

function entryToJson(entry: Entry): Readonly<Record<string, unknown>> {
  const { pod } = entry;
  return {
    pod: pod.podName,
    age_ms: Math.round(entry.ageMs),
    container_port: entry.containerPort,
    kind: entry.method === undefined ? "connection" : "request",
    method: entry.method,
    path: entry.target,
    source: entry.source,
    protocol: entry.isUdp === true ? "udp" : undefined,
    probe: entry.isProbe,
    taken_by: interceptToJson(interceptAt(pod, entry.taken)),
    left_because: entry.left,
    answered_by: entry.answeredBy,
    status: entry.status,
    duration_ms: entry.durationMs === undefined ? undefined : Math.round(entry.durationMs),
    failure: entry.failure,
    copied_to: entry.copies?.map(({ intercept, cut }) => ({ ...interceptToJson(interceptAt(pod, intercept)), cut })),
    refused_by: entry.refused.map((rule) => ruleToJson(rule, pod)),
  };
}

function verdictsToJson(pod: Pod): readonly Readonly<Record<string, unknown>>[] {
  return pod.verdicts.map((verdict) => ({
    container_port: verdict.containerPort,
    goes_to: verdict.taken === undefined ? "application" : "laptop",
    taken_by: interceptToJson(interceptAt(pod, verdict.taken)),
    body_decides: verdict.undecided === undefined ? undefined : true,
    probe: verdict.isProbe,
    by_agent: verdict.byAgent,
    copied_to: verdict.copies?.map((at) => interceptToJson(interceptAt(pod, at))),
    rules: verdict.rules.map((rule) => ruleToJson(rule, pod)),
  }));
}

function ruleToJson(rule: Rule, pod: Pod): Readonly<Record<string, unknown>> {
  return {
    ...interceptToJson(interceptAt(pod, rule.intercept)),
    matched: rule.matched,
    joined: rule.joined,
    conditions: rule.conditions,
  };
}

const interceptToJson = (intercept: Asked | undefined): Readonly<Record<string, unknown>> | undefined =>
  intercept && { id: intercept.id, name: shortName(intercept), client: intercept.client, filter: intercept.filter };
