// What of fail-open (DESIGN §5) is the same for every version of HTTP: which requests may be sent twice, how much of one
// is held for that, and what its caller is told when neither the laptop nor the application can answer.

/** protocol: the most of a request that is held (DESIGN §5). */
export const maxHeldBytes = 64 * 1024;
/** RFC 9110 §9.2.2. */
const idempotent = new Set(["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"]);

export function isIdempotent(method: string): boolean {
  return idempotent.has(method);
}

/** The answer of ours to a request that was sent to the laptop and stays unanswered. */
export function answerLost(method: string, reason: string): string {
  return `the laptop's answer to this ${method} was lost (${reason}), and it must not be sent twice or was too long to keep`;
}

/** The answer of ours where the application is not to answer instead of the laptop's process. */
export function notTaken(reason: string): string {
  return `the laptop's process did not take the request: ${reason}`;
}

/** What was sent of a request, from its beginning, as long as it is short enough. */
export class HeldBytes {
  #pieces: Buffer[] | undefined;
  #bytes = 0;

  constructor(wanted: boolean) {
    this.#pieces = wanted ? [] : undefined;
  }

  /** Nothing that was sent is missing. */
  get isWhole(): boolean {
    return this.#pieces !== undefined;
  }
  get pieces(): readonly Buffer[] {
    return this.#pieces ?? [];
  }

  add(piece: Buffer): void {
    this.#bytes += piece.length;
    if (this.#bytes <= maxHeldBytes) this.#pieces?.push(piece);
    else this.drop();
  }
  drop(): void {
    this.#pieces = undefined;
  }
}
