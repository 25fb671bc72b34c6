// The intercepts and their states. A state is never stored: it follows from the session's link and from what the agents
// have confirmed, so it cannot drift from the truth.
//
//   create ──► waiting ──first agent confirms──► active ◄──► waiting (all its agents gone)
//                 │ every agent refuses            │ link lost
//                 ▼                                ▼
//               error                          suspended ──► removed (laptop arrives anew, or 24 h)
import { AppError } from "#base/error.ts";
import { compileFilter } from "#filter/compile.ts";
import type { Filter } from "#filter/compile.ts";
import { workloadKey } from "#wire/manager-api.ts";
import type { InterceptInfo, InterceptSpec } from "#wire/manager-api.ts";
import { checkFilterable, conflict, findMeeting, isIdle } from "./overlap.ts";
import type { Now, Wish } from "./overlap.ts";
import type { SessionRecord } from "./sessions.ts";

/** chosen: intercepts of one session. */
const maxPerSession = 200;
/** chosen: longer than anybody leaves one alone; a laptop that claims more is believed this much. */
const maxAgeMs = 30 * 24 * 60 * 60_000;

/** What is to be added, and when. */
export interface Adding extends Now {
  readonly session: SessionRecord;
  readonly spec: InterceptSpec;
  /** When it was created first, as its laptop remembers. */
  readonly createdAtMs?: number | undefined;
}

export interface InterceptRecord {
  readonly id: string;
  readonly session: SessionRecord;
  readonly spec: InterceptSpec;
  /** Undefined takes everything. */
  readonly filter: Filter | undefined;
  /** Others that may take the same requests, by consent. */
  readonly overlaps: Set<InterceptRecord>;
  readonly createdAtMs: number;
  /** Being removed: agents are told to stop, streams that are under way still pass. */
  draining: boolean;
  refusedByLaptop: number;
  /** Of a wiretap, once there are some. */
  copies: InterceptInfo["copies"];
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
  add(adding: Adding): { record: InterceptRecord; displaced: readonly InterceptRecord[] } {
    const { session, spec, nowWallMs, createdAtMs = nowWallMs } = adding;
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
    checkFilterable(spec);
    const filter = spec.filter === undefined ? undefined : compileFilter(spec.filter);
    const { displaced, overlaps } = this.#clearWay({ session, spec, filter }, adding);
    const record: InterceptRecord = {
      id: `${session.id}:${spec.name}`,
      session,
      spec,
      filter,
      overlaps: new Set(overlaps),
      createdAtMs: Math.min(nowWallMs, Math.max(nowWallMs - maxAgeMs, createdAtMs)),
      draining: false,
      refusedByLaptop: 0,
      copies: undefined,
    };
    for (const other of overlaps) other.overlaps.add(record);
    this.#byId.set(record.id, record);
    session.intercepts.set(spec.name, record);
    session.ended.delete(spec.name);
    const key = workloadKey(spec.workload);
    const others = this.#byWorkload.get(key);
    if (others === undefined) this.#byWorkload.set(key, new Set([record]));
    else others.add(record);
    return { record, displaced };
  }

  delete(record: InterceptRecord): void {
    if (this.#byId.get(record.id) === record) this.#byId.delete(record.id);
    if (record.session.intercepts.get(record.spec.name) === record) record.session.intercepts.delete(record.spec.name);
    for (const other of record.overlaps) other.overlaps.delete(record);
    const key = workloadKey(record.spec.workload);
    const others = this.#byWorkload.get(key);
    others?.delete(record);
    if (others?.size === 0) this.#byWorkload.delete(key);
  }

  /** An owner who has been away for long makes way; one who is there, or was just now, keeps what it has. */
  #clearWay(
    wish: Wish,
    now: Now,
  ): { readonly displaced: readonly InterceptRecord[]; readonly overlaps: readonly InterceptRecord[] } {
    const displaced: InterceptRecord[] = [];
    const overlaps: InterceptRecord[] = [];
    for (const other of this.ofWorkload(workloadKey(wish.spec.workload))) {
      const meeting = findMeeting(wish, other);
      if (meeting === undefined) continue;
      if (meeting.allowed) overlaps.push(other);
      else if (isIdle(other.session, now)) displaced.push(other);
      else throw conflict(wish, other, meeting, now);
    }
    for (const other of displaced) this.delete(other);
    return { displaced, overlaps };
  }
}
