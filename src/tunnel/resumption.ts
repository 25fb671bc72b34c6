// What two ends agree on, so that a session outlives its transport (PROTOCOL §6.5), and the opener's words for it.
import type { Duplex } from "node:stream";
import { ProtocolError } from "#base/error.ts";
import type { Feature, Hello } from "#wire/hello.ts";
import { resetCodes } from "#wire/open.ts";
import { exchangeHello } from "./handshake.ts";
import type { HandshakeOptions } from "./handshake.ts";

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

interface Asking extends Omit<HandshakeOptions, "role" | "answer"> {
  readonly receivedSeq: number;
  /**
   * The transport before this one: closed when the next takes over, or the far end would take the session for lost, and
   * before anything is sent there, since what it may still look at is memory that is used again.
   */
  readonly left: Duplex | undefined;
}

/** `goOn` is called in the tick of the answer, with what came behind it and the last frame that the far end has got. */
export async function askToContinue(
  resumption: Resumption,
  { receivedSeq, left, ...options }: Asking,
  goOn: (rest: Uint8Array, receivedSeq: number) => void,
): Promise<void> {
  resumption.epoch += 1;
  const resume = { ...resumption, receivedSeq };
  const hello = { ...options.hello, resume };
  try {
    await exchangeHello({ ...options, hello, role: "opener" }, ({ peer, rest }) => {
      if (peer.resume?.sessionId !== resume.sessionId || peer.resume.epoch !== resume.epoch) {
        options.transport.destroy();
        const message = "HELLO does not answer for the session that was to be resumed";
        throw new ProtocolError(message, resetCodes.protocol);
      }
      left?.destroy();
      goOn(rest, peer.resume.receivedSeq);
    });
  } finally {
    left?.destroy();
  }
}
