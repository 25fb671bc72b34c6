// How many requests each preview had in the last minutes, and how long they took: for the dashboard's plots. Bounded:
// times are counted in classes, and the preview that was quiet the longest is forgotten first.
import type { Clock } from "#base/clock.ts";
import type { TrafficStep, TrafficView } from "#wire/dashboard-api.ts";

/** chosen: ten minutes. */
const [stepMs, stepsKept] = [10_000, 60];
/** chosen. */
const maxPreviews = 1000;
/** Upper ends of the classes; the last one has none. */
const classesMs = [1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 2000, 5000, 10_000];

interface Step {
  readonly number: number;
  readonly counts: Uint32Array;
}

export class Traffic {
  readonly #clock: Pick<Clock, "now">;
  /** In the order of their last request; steps with requests only, oldest first. */
  readonly #previews = new Map<string, Step[]>();

  constructor(clock: Pick<Clock, "now">) {
    this.#clock = clock;
  }

  /** A request to this preview was answered after `ms`. */
  note(previewId: string, ms: number): void {
    const number = this.#now();
    const steps = (this.#previews.get(previewId) ?? []).filter((step) => step.number > number - stepsKept);
    let step = steps.at(-1);
    if (step?.number !== number) {
      step = { number, counts: new Uint32Array(classesMs.length + 1) };
      steps.push(step);
    }
    const place = classesMs.findIndex((end) => ms <= end);
    const index = place === -1 ? classesMs.length : place;
    step.counts[index] = (step.counts[index] ?? 0) + 1;
    this.#previews.delete(previewId);
    this.#previews.set(previewId, steps);
    if (this.#previews.size > maxPreviews) this.#previews.delete(this.#previews.keys().next().value ?? "");
  }

  /** Of these previews together. */
  view(previewIds: readonly string[]): TrafficView {
    const now = this.#now();
    const sums = Array.from({ length: stepsKept }, () => new Uint32Array(classesMs.length + 1));
    for (const { number, counts } of previewIds.flatMap((id) => this.#previews.get(id) ?? [])) {
      const sum = sums[stepsKept - 1 - (now - number)];
      if (sum === undefined) continue;
      for (const [index, count] of counts.entries()) sum[index] = (sum[index] ?? 0) + count;
    }
    return { stepMs, steps: sums.map(stepOf) };
  }

  #now(): number {
    return Math.floor(this.#clock.now() / stepMs);
  }
}

function stepOf(counts: Uint32Array): TrafficStep {
  const count = counts.reduce((sum, some) => sum + some, 0);
  return count === 0 ? { count } : { count, halfMs: within(counts, count / 2), mostMs: within(counts, count * 0.95) };
}

/** The end of the class in which this many are reached. */
function within(counts: Uint32Array, wanted: number): number {
  let sum = 0;
  const place = counts.findIndex((count) => (sum += count) >= wanted);
  return classesMs[place] ?? (classesMs.at(-1) ?? 0) * 2;
}
