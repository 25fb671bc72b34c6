// Whether a connection can be closed without anybody losing an answer, as far as a kernel can tell; pure. The kernel
// knows bytes and ages, not requests: who spoke last stands for what is owed.
//
//   the application spoke last ──5 s──► idle       (it has answered; or it streams, and is silent for long)
//   nobody said anything yet   ──5 s──► idle       (kept open in advance)
//   the caller spoke last      ───────► never      (it may be waiting for its answer)
//   within one tick            ──65 s─► idle       (an answer, or the next question: the order is lost)
import type { TcpConnection } from "#kernel/sock-diag-messages.ts";

/** chosen: longer than the pause between two requests of one page or batch. */
const idleMs = 5000;
/** chosen: longer than a long poll is held, which is mostly a minute at most. */
const unclearMs = 65_000;
/** chosen: a receiver acknowledges alone within 200 ms at most; later comes its keep-alive. */
const acknowledgedWithinMs = 1000;

export function isIdle(connection: TcpConnection): boolean {
  const { traffic, unreadBytes, unacknowledgedBytes } = connection;
  if (traffic === undefined || unreadBytes > 0 || unacknowledgedBytes > 0) return false;
  const { sinceSentMs, sinceReceivedMs, sinceAcknowledgedMs, receivedBytes, receivedSegments } = traffic;
  const quietMs = Math.min(sinceSentMs, sinceReceivedMs);
  if (quietMs < idleMs) return false;
  if (receivedBytes === 0 || sinceSentMs < sinceReceivedMs) return true;
  if (sinceSentMs > sinceReceivedMs) return false;
  if (receivedSegments === 1) return true; // there was one question only, and then an answer
  // A caller that has nothing to say acknowledges an answer a little later, with a packet of its own.
  const aloneMs = sinceReceivedMs - sinceAcknowledgedMs;
  return (aloneMs > 0 && aloneMs <= acknowledgedWithinMs) || quietMs >= unclearMs;
}
