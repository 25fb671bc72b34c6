// Time that went by while this process did not run: the machine slept (lid, virtual machine), or the process was stopped.
// Timers do not tell: on Linux they stand still with the machine. Setting the clock (NTP) is nothing of the kind.
import type { Clock, Timer } from "./clock.ts";

/** chosen: how soon it is noticed. */
const tickMs = 1000;
/** chosen: a busy machine is late by less. */
const lateMs = 2000;

/** Says after each standstill how long it was, about. */
export function watchStandstills(clock: Clock, onStandstill: (ms: number) => void): Timer {
  let lastMs = clock.uptimeMs();
  return clock
    .every(tickMs, () => {
      const nowMs = clock.uptimeMs();
      const stoodMs = nowMs - lastMs - tickMs;
      lastMs = nowMs;
      if (stoodMs >= lateMs) onStandstill(stoodMs);
    })
    .unref();
}
