// Where the laptop's process listens, when that is said by name (`--address`). The name is looked up for each connection, so
// it may lead elsewhere later; one that nobody knows when the intercept begins would only have its callers refused.
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { deadline, raceSignal } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";

interface Parts {
  readonly clock: Clock;
  /** As connections are dialled, by the laptop's own resolver, but in tests. */
  readonly lookUp?: (name: string) => Promise<unknown>;
}

/** chosen: the usual resolver asks twice in this time. */
const lookUpMs = 10_000;

/** Throws unless it is an address, or a name that has one. */
export async function requireTargetHost(
  host: string,
  { clock, lookUp = lookup }: Parts,
  signal: AbortSignal,
): Promise<void> {
  if (isIP(host) !== 0) return;
  using limit = deadline(clock, lookUpMs, "looking it up", signal);
  try {
    await raceSignal(lookUp(host), limit.signal);
  } catch (error) {
    signal.throwIfAborted();
    const { code, message } = error as NodeJS.ErrnoException;
    const why = code === "ENOTFOUND" ? "nobody knows that name" : message;
    throw new AppError("not_found", `--address is ${host}, which has no address on this laptop: ${why}`, {
      cause: error,
      hint: "name a host that this laptop knows, or an IP address",
    });
  }
}
