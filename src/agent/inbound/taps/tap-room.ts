// What all copies for wiretaps may hold in this agent's memory, and how many there may be at once: of one copy, of one
// wiretap, so that a slow laptop is no burden for another's, and of all.
// Invariant: what is entered and taken is left and given back by the copy that did, once.

/** chosen: a copy may be behind the application by so much before it is cut. */
export const maxCopyBytes = 1024 * 1024;
/** chosen: a sixteenth of a sidecar's memory. */
const maxTapBytes = 4 * 1024 * 1024;
const maxAllBytes = 16 * 1024 * 1024;
/** chosen: each is a stream of the manager's link, which has 4,000 for everybody's callers. */
const maxTapCopies = 256;
const maxAllCopies = 1000;
/** chosen: about what a piece costs beside its bytes; a caller may send them one by one. */
const pieceBytes = 256;

interface Held {
  copies: number;
  bytes: number;
}

export class TapRoom {
  readonly #all: Held = { copies: 0, bytes: 0 };
  readonly #taps = new Map<string, Held>();

  /** One more copy. False when there is no room. */
  enter(tapId: string): boolean {
    const tap = this.#taps.get(tapId) ?? { copies: 0, bytes: 0 };
    if (tap.copies >= maxTapCopies || this.#all.copies >= maxAllCopies) return false;
    tap.copies += 1;
    this.#all.copies += 1;
    this.#taps.set(tapId, tap);
    return true;
  }

  /** What a piece of a copy that holds so much already counts for; undefined when there is no room. */
  take(tapId: string, copyBytes: number, bytes: number): number | undefined {
    const held = bytes + pieceBytes;
    const tap = this.#taps.get(tapId);
    if (tap === undefined || copyBytes + held > maxCopyBytes) return undefined;
    if (tap.bytes + held > maxTapBytes || this.#all.bytes + held > maxAllBytes) return undefined;
    tap.bytes += held;
    this.#all.bytes += held;
    return held;
  }

  give(tapId: string, held: number): void {
    const tap = this.#taps.get(tapId);
    if (tap === undefined) return;
    tap.bytes -= held;
    this.#all.bytes -= held;
  }

  /** The copy is over, and what it held is free. */
  leave(tapId: string, held: number): void {
    const tap = this.#taps.get(tapId);
    if (tap === undefined) return;
    this.give(tapId, held);
    tap.copies -= 1;
    this.#all.copies -= 1;
    if (tap.copies === 0) this.#taps.delete(tapId);
  }
}
