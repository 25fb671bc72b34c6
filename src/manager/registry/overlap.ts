// Who may have a port together: intercepts whose filters no request can satisfy both, and those whose owners allow it.
// A wiretap takes nothing, so it is in nobody's way. Of two that may meet, the one that chooses is asked before the one that takes everything, else the older first.
import { AppError } from "#base/error.ts";
import { mayOverlap } from "#filter/overlap.ts";
import { isSamePort } from "#wire/agent-api.ts";
import type { InterceptInfo, InterceptPort, InterceptSpec } from "#wire/manager-api.ts";
import type { InterceptRecord } from "./intercepts.ts";
import type { SessionRecord } from "./sessions.ts";

/** What is to be created. */
export type Wish = Pick<InterceptRecord, "session" | "spec" | "filter">;

/** A port of both that the same request, or connection, may come to. */
export interface Meeting {
  readonly port: InterceptPort;
  readonly reason: string;
  /** One of them wants it so. Two that take everything cannot. */
  readonly allowed: boolean;
}

export function findMeeting(wish: Wish, other: InterceptRecord): Meeting | undefined {
  if (wish.spec.kind === "wiretap" || other.spec.kind === "wiretap") return undefined;
  const port = other.spec.ports.find((taken) => wish.spec.ports.some((wanted) => isSamePort(taken, wanted)));
  if (port === undefined) return undefined;
  const reason = overlapReason(wish, other);
  if (reason === undefined) return undefined;
  const one = wish.spec.allowOverlap === true || other.spec.allowOverlap === true;
  return { port, reason, allowed: one && (wish.filter !== undefined || other.filter !== undefined) };
}

function overlapReason({ filter }: Wish, other: InterceptRecord): string | undefined {
  if (filter === undefined) return "this one takes every request";
  if (other.filter === undefined) return "the other takes every request";
  const overlap = mayOverlap(filter, other.filter);
  return overlap.mayOverlap ? overlap.reason : undefined;
}

/** The order in which agents ask; the same everywhere. */
export function compareTurns(a: InterceptRecord, b: InterceptRecord): number {
  const whole = Number(a.filter === undefined) - Number(b.filter === undefined);
  if (whole !== 0) return whole;
  // Ids are new when a manager has restarted; who and what are not.
  return a.createdAtMs - b.createdAtMs || compareTexts(personOf(a), personOf(b)) || compareTexts(a.id, b.id);
}

const personOf = ({ session, spec }: InterceptRecord): string => JSON.stringify([session.client, spec.name]);

function compareTexts(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}

/** For `status` of both. */
export function describeOverlaps(record: InterceptRecord): InterceptInfo["overlaps"] {
  if (record.overlaps.size === 0) return undefined;
  return [...record.overlaps].toSorted(compareTurns).map((other) => ({
    id: other.id,
    client: other.session.client,
    name: other.spec.name,
    createdAtMs: other.createdAtMs,
    ...(other.spec.filter === undefined ? {} : { filter: other.spec.filter }),
    first: compareTurns(other, record) < 0,
  }));
}

/** `nowMs` is the clock's, `nowWallMs` the same moment for people. */
export interface Now {
  readonly nowMs: number;
  readonly nowWallMs: number;
  /** An owner whose laptop has been away for so long loses a conflict. */
  readonly idleOwnerMs: number;
}

/** Away means without a link. Whether requests come says nothing of an owner who is there. */
export function isIdle({ lostAtMs }: SessionRecord, { nowMs, idleOwnerMs }: Now): boolean {
  return lostAtMs !== undefined && nowMs - lostAtMs >= idleOwnerMs;
}

export function conflict(wish: Wish, other: InterceptRecord, meeting: Meeting, now: Now): AppError {
  const { workload, name, filter } = other.spec;
  const { port, reason } = meeting;
  const own = other.session === wish.session;
  const which = filter === undefined ? "" : ` for requests that match ${filter.replaceAll(/\s+/g, " ")}`;
  return new AppError(
    "conflict",
    `port ${port.containerPort}/${port.protocol} of ${workload.kind} ${workload.name} is intercepted by ` +
      `${nameOf(wish.session, other, now)}${which}`,
    {
      hint: hintFor(wish, other, own ? `run "telepresence leave ${name}" first` : askFor(other, now), reason),
      fields: {
        client: other.session.client,
        interceptId: other.id,
        createdAtMs: other.createdAtMs,
        ...(filter === undefined ? {} : { filter }),
      },
    },
  );
}

function nameOf(session: SessionRecord, other: InterceptRecord, { nowWallMs }: Now): string {
  const { name } = other.spec;
  if (other.session === session) return `this session's intercept "${name}"`;
  return `${other.session.client} (intercept "${name}", since ${formatAge(nowWallMs - other.createdAtMs)})`;
}

function askFor({ session }: InterceptRecord, { nowMs, idleOwnerMs }: Now): string {
  const ask = `ask ${session.client} to leave it`;
  if (session.lostAtMs === undefined) return ask;
  const awayMs = nowMs - session.lostAtMs;
  return `${ask} (away for ${formatAge(awayMs)}: it makes way in ${formatAge(idleOwnerMs - awayMs)})`;
}

function hintFor(wish: Wish, other: InterceptRecord, way: string, reason: string): string {
  if (wish.filter === undefined && other.filter === undefined) return way;
  return `${reason}: choose other requests, ${way}, or give --allow-overlap`;
}

function formatAge(ms: number): string {
  const minutes = Math.max(0, Math.floor(ms / 60_000));
  if (minutes < 2) return `${Math.max(0, Math.floor(ms / 1000))} s`;
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h`;
}

/** Datagrams are no requests. */
export function checkFilterable(spec: InterceptSpec): void {
  const port = spec.ports.find(({ protocol }) => protocol !== "tcp");
  if (spec.filter === undefined || port === undefined) return;
  throw new AppError(
    "unsupported",
    `port ${port.containerPort}/${port.protocol} of ${spec.workload.kind} ${spec.workload.name} has no requests to choose from, expected TCP`,
    { hint: "leave out the filter, or that port" },
  );
}

/** For the answer to a creation. */
export function describeTakenOver(
  displaced: readonly InterceptRecord[],
  { nowMs, nowWallMs }: Now,
): Pick<InterceptInfo, "tookOver"> {
  if (displaced.length === 0) return {};
  return {
    tookOver: displaced.map(({ session, spec }) => ({
      client: session.client,
      name: spec.name,
      awaySinceMs: nowWallMs - (nowMs - (session.lostAtMs ?? nowMs)),
    })),
  };
}
