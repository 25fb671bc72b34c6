// Who has looked at a preview and how often, for its owner: by person, in memory, without addresses or paths.

/** chosen: visitors of one preview; previews. */
const [maxVisitors, maxPreviews] = [50, 2000];

export interface Visit {
  readonly who: string;
  readonly requests: number;
  readonly lastMs: number;
}

export class Visits {
  /** In the order of their last visit, as are the visitors of each. */
  readonly #byPreview = new Map<string, Map<string, { requests: number; lastMs: number }>>();

  note(previewId: string, who: string, nowMs: number): void {
    const visitors = this.#byPreview.get(previewId) ?? new Map<string, { requests: number; lastMs: number }>();
    const requests = (visitors.get(who)?.requests ?? 0) + 1;
    visitors.delete(who);
    visitors.set(who, { requests, lastMs: nowMs });
    dropOldest(visitors, maxVisitors);
    this.#byPreview.delete(previewId);
    this.#byPreview.set(previewId, visitors);
    dropOldest(this.#byPreview, maxPreviews);
  }

  /** The last first. */
  of(previewId: string): Visit[] {
    return [...(this.#byPreview.get(previewId) ?? [])].map(([who, visit]) => ({ who, ...visit })).toReversed();
  }

  forget(previewId: string): void {
    this.#byPreview.delete(previewId);
  }
}

function dropOldest(map: Map<string, unknown>, most: number): void {
  const [oldest] = map.keys();
  if (map.size > most && oldest !== undefined) map.delete(oldest);
}
