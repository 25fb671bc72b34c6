// What two ends agree on, so that a session outlives its transport (PROTOCOL §6.5).
import type { Feature, Hello } from "#wire/hello.ts";

/** How a session is known to both ends, and to nobody else. Each end has one, which all who need it share. */
export interface Resumption {
  readonly sessionId: string;
  readonly token: string;
  epoch: number;
}

export function canResume(mine: Hello, theirs: Hello): boolean {
  return [mine, theirs].every(({ features }) => features.includes("resume" satisfies Feature));
}

/** What of a HELLO's `resume` stays the same, but for the epoch. */
export function resumptionOf(resume: Hello["resume"]): Resumption | undefined {
  if (resume === undefined) return undefined;
  const { sessionId, token, epoch } = resume;
  return { sessionId, token, epoch };
}
