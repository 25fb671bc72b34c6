// One's own intercepts that somebody else ended: `status` goes on telling until another of that name is made, or this one
// is left.
import type { Clock } from "#base/clock.ts";
import type { EndedIntercept, InterceptInfo } from "#wire/manager-api.ts";

/** chosen: as long as a person may not have looked. */
const maxRemembered = 50;

export class EndedByOthers {
  readonly #clock: Clock;
  readonly #infos = new Map<string, InterceptInfo>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** As they were, with why they ended. */
  get infos(): readonly InterceptInfo[] {
    return [...this.#infos.values()];
  }

  /** Returns the sentence that says so. */
  add(info: InterceptInfo, { reason, by, atMs }: EndedIntercept): string {
    const when = formatTime(atMs, this.#clock.wallMs());
    const how =
      reason === "revoked"
        ? `was revoked by ${by} at ${when}`
        : `was taken over by ${by} at ${when}, because this laptop had been away`;
    const { name } = info.spec;
    this.#infos.delete(name);
    this.#infos.set(name, { ...info, state: "removed", message: how, pods: [] });
    const [oldest] = this.#infos.keys();
    if (this.#infos.size > maxRemembered && oldest !== undefined) this.#infos.delete(oldest);
    return `the intercept ${name} ${how}`;
  }

  /** Why it ended; undefined when nobody else ended it. */
  forget(name: string): string | undefined {
    const message = this.#infos.get(name)?.message;
    this.#infos.delete(name);
    return message;
  }
}

/** `14:03` of today in the laptop's own time, else with the day. */
function formatTime(atMs: number, nowWallMs: number): string {
  const at = new Date(atMs);
  const clock = `${pad(at.getHours())}:${pad(at.getMinutes())}`;
  const isToday = new Date(nowWallMs).toDateString() === at.toDateString();
  return isToday ? clock : `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${clock}`;
}

const pad = (number: number): string => String(number).padStart(2, "0");

/** For whoever got what somebody else had. */
export function takeOverWarnings({ tookOver = [] }: InterceptInfo, nowWallMs: number): readonly string[] {
  return tookOver.map(({ client, name, awaySinceMs }) => {
    const since = formatTime(awaySinceMs, nowWallMs);
    return `it took over from the intercept ${name} of ${client}, whose laptop has been away since ${since}`;
  });
}
