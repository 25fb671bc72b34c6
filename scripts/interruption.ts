// Ctrl-C, and the ends that a terminal or a machine sends, for scripts that have something to take away first: the first
// one is remembered and the step under way fails or ends, a second one ends the script at once.
import type { EventEmitter } from "node:events";
import { AppError } from "#base/error.ts";

export class Interruption {
  #came = false;

  constructor(source: EventEmitter = process) {
    for (const name of ["SIGINT", "SIGTERM", "SIGHUP"]) source.once(name, () => void (this.#came = true));
  }

  get came(): boolean {
    return this.#came;
  }

  /** Stands before each step. */
  check(): void {
    if (this.#came) throw new AppError("cancelled", "interrupted");
  }
}
