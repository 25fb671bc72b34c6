// Tells when what this command began was ended by somebody else: `leave`, `quit`, or a lost daemon.
import type { DaemonClient } from "./daemon-client.ts";

export interface OwnedWatch {
  /** Resolves when it has ended, with a sentence that says how; never rejects. */
  readonly reason: Promise<string>;
  readonly ended: boolean;
}

/** `what`: `the intercept hello`. */
export function watchOwned(client: DaemonClient, what: string): OwnedWatch {
  const state = { ended: false };
  const end = (reason: string): string => {
    state.ended = true;
    return reason;
  };
  const gone = client.gone.then(() => `the user daemon ended, and ${what} with it`);
  const left = client.interceptEnded.then((why) => why ?? `${what} was ended by another command`);
  return {
    reason: Promise.race([left, gone]).then(end),
    get ended() {
      return state.ended;
    },
  };
}
