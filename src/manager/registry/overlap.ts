// Who may have a port together: intercepts whose filters no request can satisfy both, and those whose owners allow it.
// Of two that may meet, the one that chooses is asked before the one that takes everything, else the older first.
import { AppError } from "#base/error.ts";
import { mayOverlap } from "#filter/overlap.ts";
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
  const port = other.spec.ports.find((taken) => wish.spec.ports.some((wanted) => samePort(taken, wanted)));
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

export function samePort(a: InterceptPort, b: Pick<InterceptPort, "containerPort" | "protocol">): boolean {
  return a.containerPort === b.containerPort && a.protocol === b.protocol;
}

/** The order in which agents ask; the same everywhere. */
export function compareTurns(a: InterceptRecord, b: InterceptRecord): number {
  const whole = Number(a.filter === undefined) - Number(b.filter === undefined);
  if (whole !== 0) return whole;
  return a.createdAtMs - b.createdAtMs || (a.id < b.id ? -1 : 1);
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

export function conflict(wish: Wish, other: InterceptRecord, meeting: Meeting, nowWallMs: number): AppError {
  const { workload, name, filter } = other.spec;
  const { port, reason } = meeting;
  const own = other.session === wish.session;
  const which = filter === undefined ? "" : ` for requests that match ${filter.replaceAll(/\s+/g, " ")}`;
  return new AppError(
    "conflict",
    `port ${port.containerPort}/${port.protocol} of ${workload.kind} ${workload.name} is intercepted by ` +
      `${nameOf(wish.session, other, nowWallMs)}${which}`,
    {
      hint: hintFor(wish, other, own ? `run "telepresence leave ${name}" first` : undefined, reason),
      fields: {
        client: other.session.client,
        interceptId: other.id,
        createdAtMs: other.createdAtMs,
        ...(filter === undefined ? {} : { filter }),
      },
    },
  );
}

function nameOf(session: SessionRecord, other: InterceptRecord, nowWallMs: number): string {
  const { name } = other.spec;
  if (other.session === session) return `this session's intercept "${name}"`;
  return `${other.session.client} (intercept "${name}", since ${formatAge(nowWallMs - other.createdAtMs)})`;
}

function hintFor(wish: Wish, other: InterceptRecord, leave: string | undefined, reason: string): string {
  const askFor = leave ?? `ask ${other.session.client} to leave it`;
  if (wish.filter === undefined && other.filter === undefined) return askFor;
  return `${reason}: choose other requests, ${askFor}, or give --allow-overlap`;
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
