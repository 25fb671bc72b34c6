// What every command is handed.
import type { Clock } from "#base/clock.ts";
import type { CliEnvironment } from "./config.ts";
import type { ConnectFlags, GlobalFlags } from "./flags/flags.ts";
import type { Interrupts } from "./interrupts.ts";
import type { Machine } from "./machine.ts";
import type { Output } from "./output.ts";

export interface CommandContext {
  readonly flags: GlobalFlags & ConnectFlags;
  readonly environment: CliEnvironment;
  readonly machine: Machine;
  readonly output: Output;
  readonly interrupts: Interrupts;
  readonly clock: Clock;
}
