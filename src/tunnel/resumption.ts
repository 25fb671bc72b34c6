// What two ends agree on, so that a session outlives its transport (PROTOCOL §6.5).
import type { Feature, Hello } from "#wire/hello.ts";

/** How a session is known to both ends, and to nobody else. */
export interface Resumption {
  readonly sessionId: string;
  readonly token: string;
  epoch: number;
}

export function canResume(mine: Hello, theirs: Hello): boolean {
  return [mine, theirs].every(({ features }) => features.includes("resume" satisfies Feature));
}
