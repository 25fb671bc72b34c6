// Tells when an intercept that this command holds was ended by somebody else: `leave`, `quit`, or a lost daemon.
import type { InterceptInfo } from "#wire/manager-api.ts";
import type { DaemonClient } from "./daemon-client.ts";

export interface InterceptWatch {
  /** Resolves when it has ended, with a sentence that says how; never rejects. */
  readonly reason: Promise<string>;
  readonly ended: boolean;
}

export function watchIntercept(client: DaemonClient, { spec }: InterceptInfo): InterceptWatch {
  const state = { ended: false };
  const end = (reason: string): string => {
    state.ended = true;
    return reason;
  };
  const gone = client.gone.then(() => `the user daemon ended, and the intercept ${spec.name} with it`);
  const left = client.interceptEnded.then((why) => why ?? `the intercept ${spec.name} was ended by another command`);
  return {
    reason: Promise.race([left, gone]).then(end),
    get ended() {
      return state.ended;
    },
  };
}
