// The intercepts and their states. A state is never stored: it follows from the session's link and from what the agents
// have confirmed, so it cannot drift from the truth.
//
//   create ──► waiting ──first agent confirms──► active ◄──► waiting (all its agents gone)
//                 │ every agent refuses            │ link lost
//                 ▼                                ▼
//               error                          suspended ──► removed (laptop arrives anew, or 24 h)
import { AppError } from "#base/error.ts";
import type { InterceptPort, InterceptSpec } from "#wire/manager-api.ts";
import type { SessionRecord } from "./sessions.ts";
import { workloadKey } from "./sessions.ts";

/** chosen: intercepts of one session. */
const maxPerSession = 200;

export interface InterceptRecord {
  readonly id: string;
  readonly session: SessionRecord;
  readonly spec: InterceptSpec;
  readonly createdAtMs: number;
  /** Being removed: agents are told to stop, streams that are under way still pass. */
  draining: boolean;
  refusedByLaptop: number;
}

export class InterceptTable {
  readonly #byId = new Map<string, InterceptRecord>();
  readonly #byWorkload = new Map<string, Set<InterceptRecord>>();

  get size(): number {
    return this.#byId.size;
  }
  all(): Iterable<InterceptRecord> {
    return this.#byId.values();
  }
  get(id: string): InterceptRecord | undefined {
    return this.#byId.get(id);
  }
  ofWorkload(key: string): ReadonlySet<InterceptRecord> {
    return this.#byWorkload.get(key) ?? new Set();
  }

  /** Throws when the name is taken or the ports belong to somebody; returns what it displaced (owners who are gone). */
  add(
    session: SessionRecord,
    spec: InterceptSpec,
    nowWallMs: number,
  ): { record: InterceptRecord; displaced: readonly InterceptRecord[] } {
    const existing = session.intercepts.get(spec.name);
    if (existing !== undefined) {
      throw new AppError("intercept_exists", `intercept "${spec.name}" exists already in this session`, {
        hint: `run "telepresence leave ${spec.name}" first`,
      });
    }
    if (session.intercepts.size >= maxPerSession) {
      throw new AppError(
        "busy",
        `this session has ${session.intercepts.size} intercepts, expected at most ${maxPerSession}`,
      );
    }
    const displaced = this.#clearWay(session, spec, nowWallMs);
    const record: InterceptRecord = {
      id: `${session.id}:${spec.name}`,
      session,
      spec,
      createdAtMs: nowWallMs,
      draining: false,
      refusedByLaptop: 0,
    };
    this.#byId.set(record.id, record);
    session.intercepts.set(spec.name, record);
    const key = workloadKey(spec.workload);
    const others = this.#byWorkload.get(key);
    if (others === undefined) this.#byWorkload.set(key, new Set([record]));
    else others.add(record);
    return { record, displaced };
  }

  delete(record: InterceptRecord): void {
    if (this.#byId.get(record.id) === record) this.#byId.delete(record.id);
    if (record.session.intercepts.get(record.spec.name) === record) record.session.intercepts.delete(record.spec.name);
    const key = workloadKey(record.spec.workload);
    const others = this.#byWorkload.get(key);
    others?.delete(record);
    if (others?.size === 0) this.#byWorkload.delete(key);
  }

  /** An owner whose link is lost has lost the port as well; a live one keeps it. */
  #clearWay(session: SessionRecord, spec: InterceptSpec, nowWallMs: number): readonly InterceptRecord[] {
    const displaced: InterceptRecord[] = [];
    for (const other of this.ofWorkload(workloadKey(spec.workload))) {
      const port = other.spec.ports.find((taken) => spec.ports.some((wanted) => samePort(taken, wanted)));
      if (port === undefined) continue;
      if (other.session.link === undefined) displaced.push(other);
      else throw conflict(session, other, port, nowWallMs);
    }
    for (const other of displaced) this.delete(other);
    return displaced;
  }
}

export function samePort(a: InterceptPort, b: Pick<InterceptPort, "containerPort" | "protocol">): boolean {
  return a.containerPort === b.containerPort && a.protocol === b.protocol;
}

function conflict(session: SessionRecord, other: InterceptRecord, port: InterceptPort, nowWallMs: number): AppError {
  const { workload, name } = other.spec;
  const own = other.session === session;
  const age = formatAge(nowWallMs - other.createdAtMs);
  const who = own
    ? `this session's intercept "${name}"`
    : `${other.session.client} (intercept "${name}", since ${age})`;
  return new AppError(
    "intercept_exists",
    `port ${port.containerPort}/${port.protocol} of ${workload.kind} ${workload.name} is intercepted by ${who}`,
    {
      hint: own ? `run "telepresence leave ${name}" first` : `ask ${other.session.client} to leave it`,
      fields: { client: other.session.client, interceptId: other.id, createdAtMs: other.createdAtMs },
    },
  );
}

function formatAge(ms: number): string {
  const minutes = Math.max(0, Math.floor(ms / 60_000));
  if (minutes < 2) return `${Math.max(0, Math.floor(ms / 1000))} s`;
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h`;
}
