// Signals of the process, as the commands see them: the first one ends the running call; while a child runs they are
// the child's business.
import { constants } from "node:os";
import { AppError } from "#base/error.ts";

export type SignalName = "SIGINT" | "SIGTERM" | "SIGHUP" | "SIGQUIT";
export const handledSignals: readonly SignalName[] = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"];

export class Interrupts {
  readonly #controller = new AbortController();
  #diverted: ((name: SignalName) => void) | undefined;
  #first: SignalName | undefined;

  /** Aborts with `cancelled` at the first signal that is nobody else's. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The signal that ended the command. */
  get first(): SignalName | undefined {
    return this.#first;
  }

  /** True when the signal found nobody to take it: the command hangs, and the process should end. */
  raise(name: SignalName): boolean {
    if (this.#diverted !== undefined) {
      this.#diverted(name);
      return false;
    }
    if (this.#first !== undefined) return true;
    this.#first = name;
    this.#controller.abort(new AppError("cancelled", `the command was interrupted by ${name}`));
    return false;
  }

  /** Hands signals to a child until disposed. */
  divert(handler: (name: SignalName) => void): Disposable {
    this.#diverted = handler;
    return {
      [Symbol.dispose]: () => {
        if (this.#diverted === handler) this.#diverted = undefined;
      },
    };
  }
}

/** As a shell reports a process that a signal ended. */
export function signalExitCode(name: string): number {
  return 128 + (constants.signals[name as NodeJS.Signals] ?? 0);
}
