// Ctrl-C, and the ends that a terminal or a machine sends, for scripts that have something to take away first: the first
// one is remembered and the step under way fails or ends, a second one ends the script at once. But a terminal that closes
// tells each process, and run.mjs hands on what it was told: that comes twice by itself.
import type { EventEmitter } from "node:events";
import { AppError } from "#base/error.ts";

export class Interruption {
  #came = false;

  constructor(source: EventEmitter = process) {
    const note = (): void => void (this.#came = true);
    for (const name of ["SIGINT", "SIGTERM"]) source.once(name, note);
    source.on("SIGHUP", note);
  }

  get came(): boolean {
    return this.#came;
  }

  /** Stands before each step. */
  check(): void {
    if (this.#came) throw new AppError("cancelled", "interrupted");
  }
}
