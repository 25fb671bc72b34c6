// Callers of HTTP/2 that keep a connection open on which nothing is under way: each costs some 60 kB, together with the
// application's end of it, and would for ever. The application's own time-outs end them as they would without us; here is
// only the bound on how many there are at once. The one that has rested longest is told to come anew, by GOAWAY, which
// loses no request.

/** chosen: 30 MB. */
const maxResting = 500;

export interface IdleSession {
  /** To take what is on its way, and no more. */
  retire(): void;
}

export class IdleSessions {
  readonly #max: number;
  /** The longest first. */
  readonly #resting = new Set<IdleSession>();

  constructor(max = maxResting) {
    this.#max = max;
  }

  /** Nothing is under way any more. */
  rest(session: IdleSession): void {
    this.#resting.delete(session);
    this.#resting.add(session);
    if (this.#resting.size <= this.#max) return;
    const [oldest] = this.#resting;
    if (oldest === undefined) return;
    this.#resting.delete(oldest);
    oldest.retire();
  }

  /** Something is, or it is over. */
  forget(session: IdleSession): void {
    this.#resting.delete(session);
  }
}
