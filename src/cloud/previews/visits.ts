// Who has looked at a preview and how often, for its owner: by person, without addresses or paths. Counted in memory and written
// down now and then, so that requests wait for no database; what a server counts in the half minute before it is killed is lost.
import type { Database, Queries } from "#cloud/storage/database.ts";

/** chosen: visitors of one preview; previews. */
const [maxVisitors, maxPreviews] = [50, 2000];
/** chosen: previews that are written at once; the others have their turn the next time. */
const maxWritten = 200;

export interface Visit {
  readonly who: string;
  readonly requests: number;
  readonly lastMs: number;
}

type Counts = Map<string, { requests: number; lastMs: number }>;

interface Row extends Visit {
  readonly previewId: string;
}

export class Visits {
  /** In the order of their last visit, as are the visitors of each. */
  readonly #byPreview = new Map<string, Counts>();
  /** With what is not written yet: visitors by preview. */
  readonly #fresh = new Map<string, Set<string>>();

  note(previewId: string, who: string, nowMs: number): void {
    const requests = (this.#byPreview.get(previewId)?.get(who)?.requests ?? 0) + 1;
    this.#put(previewId, who, { requests, lastMs: nowMs });
    const fresh = this.#fresh.get(previewId) ?? new Set();
    this.#fresh.set(previewId, fresh.add(who));
  }

  /** The last first. */
  of(previewId: string): Visit[] {
    return [...(this.#byPreview.get(previewId) ?? [])].map(([who, visit]) => ({ who, ...visit })).toReversed();
  }

  forget(previewId: string): void {
    this.#byPreview.delete(previewId);
    this.#fresh.delete(previewId);
  }

  /** What an earlier server has written, before the first request comes. */
  async load(queries: Queries): Promise<void> {
    const rows = await queries.all<Row>(
      `SELECT preview_id AS "previewId", who, requests, last_ms AS "lastMs" FROM preview_visits
       ORDER BY last_ms DESC LIMIT ${maxVisitors * maxPreviews}`,
    );
    for (const { previewId, who, requests, lastMs } of rows.toReversed())
      this.#put(previewId, who, { requests, lastMs });
  }

  /** Writes what has changed since the last time: all of it, or as much as is quick. After a failure it is still to be written. */
  async save(database: Database, all = false): Promise<void> {
    const due = [...this.#fresh].slice(0, all ? maxPreviews : maxWritten);
    if (due.length === 0) return;
    for (const [previewId] of due) this.#fresh.delete(previewId);
    try {
      await database.transaction(async (queries) => {
        for (const [previewId, names] of due) await this.#write(queries, previewId, names);
      });
    } catch (error) {
      for (const [previewId, names] of due) {
        if (this.#byPreview.has(previewId))
          this.#fresh.set(previewId, names.union(this.#fresh.get(previewId) ?? new Set()));
      }
      throw error;
    }
  }

  async #write(queries: Queries, previewId: string, names: ReadonlySet<string>): Promise<void> {
    const counts: Counts = this.#byPreview.get(previewId) ?? new Map();
    for (const who of names) {
      const visit = counts.get(who);
      if (visit === undefined) continue; // dropped for later ones
      await queries.run(
        // only of a preview that is there: it may have been removed meanwhile
        `INSERT INTO preview_visits (preview_id, who, requests, last_ms)
         SELECT id, CAST($2 AS TEXT), CAST($3 AS BIGINT), CAST($4 AS BIGINT) FROM previews
         WHERE id = $1 AND removed_ms IS NULL
         ON CONFLICT (preview_id, who) DO UPDATE SET requests = excluded.requests, last_ms = excluded.last_ms`,
        [previewId, who, visit.requests, visit.lastMs],
      );
    }
    const [oldest] = counts.values();
    if (counts.size < maxVisitors || oldest === undefined) return;
    await queries.run("DELETE FROM preview_visits WHERE preview_id = $1 AND last_ms < $2", [previewId, oldest.lastMs]);
  }

  #put(previewId: string, who: string, visit: { readonly requests: number; readonly lastMs: number }): void {
    const visitors: Counts = this.#byPreview.get(previewId) ?? new Map();
    visitors.delete(who);
    visitors.set(who, visit);
    dropOldest(visitors, maxVisitors);
    this.#byPreview.delete(previewId);
    this.#byPreview.set(previewId, visitors);
    const dropped = dropOldest(this.#byPreview, maxPreviews);
    if (dropped !== undefined) this.#fresh.delete(dropped);
  }
}

/** What was dropped. */
function dropOldest(map: Map<string, unknown>, most: number): string | undefined {
  const [oldest] = map.keys();
  if (map.size <= most || oldest === undefined) return undefined;
  map.delete(oldest);
  return oldest;
}
