// Tells the user of a command after `--` that listens nowhere near the intercept's port: until it does no caller
// reaches the laptop, and nothing else would say so.
import type { Clock } from "#base/clock.ts";
import type { InterceptPort } from "#wire/manager-api.ts";

/** chosen: most servers listen within this; one that takes longer is told of once. */
const patienceMs = 10_000;
const pollMs = 250;

export interface ListenWatch {
  readonly ports: readonly InterceptPort[];
  /** Never rejects. */
  readonly isListening: (port: number) => Promise<boolean | undefined>;
  readonly warn: (text: string) => void;
  readonly clock: Clock;
}

/** Warns once of the ports at which nothing has listened for a while, unless the signal aborts before. */
export async function watchListening(watch: ListenWatch, over: AbortSignal): Promise<void> {
  try {
    for (const { targetHost, targetPort } of await stillSilent(watch, over)) {
      watch.warn(
        `nothing listens on ${targetHost}:${targetPort} yet, and no caller reaches this laptop until something does`,
      );
    }
  } catch (error) {
    if (!over.aborted) throw error;
  }
}

async function stillSilent(
  { ports, isListening, clock }: ListenWatch,
  over: AbortSignal,
): Promise<readonly InterceptPort[]> {
  let silent = ports.filter(({ protocol, targetHost }) => protocol === "tcp" && isHere(targetHost));
  for (let waitedMs = 0; waitedMs < patienceMs && silent.length > 0; waitedMs += pollMs) {
    await clock.sleep(pollMs, over);
    const answers = await Promise.all(silent.map(({ targetPort }) => isListening(targetPort)));
    silent = silent.filter((_, index) => answers[index] === false);
  }
  over.throwIfAborted();
  return silent;
}

const isHere = (host: string): boolean => host === "localhost" || host === "::1" || host.startsWith("127.");
