// What the cloud server knows, as it changes, and what is asked of it. The server answers when something is different.
import type { DashboardSnapshot } from "#wire/dashboard-api.ts";

/** chosen. */
const retryMs = 2000;

export interface Known {
  /** Undefined until the first answer. */
  readonly snapshot: DashboardSnapshot | undefined;
  readonly isLost: boolean;
}

export const nothingYet: Known = { snapshot: undefined, isLost: false };

export class Board {
  readonly #onChange: (known: Known) => void;
  readonly #gone = new AbortController();
  #known = nothingYet;
  /** Ends the question that waits now. */
  #asking = new AbortController();

  constructor(onChange: (known: Known) => void) {
    this.#onChange = onChange;
    void this.#follow();
  }

  close(): void {
    this.#gone.abort();
    this.#asking.abort();
  }

  /** What changes something; throws with the server's sentence. */
  async send(method: "POST" | "DELETE", path: string, body: object = {}): Promise<unknown> {
    const headers = { "content-type": "application/json", "x-csrf-token": this.csrf };
    try {
      return await ask(path, { method, headers, body: JSON.stringify(body) });
    } finally {
      this.#asking.abort(); // so that it is seen at once
    }
  }

  read(path: string): Promise<unknown> {
    return ask(path, {});
  }

  get csrf(): string {
    return this.#known.snapshot?.csrf ?? "";
  }

  async #follow(): Promise<void> {
    while (!this.#gone.signal.aborted) {
      this.#asking = new AbortController();
      const revision = this.#known.snapshot?.revision;
      const path = `/api/dashboard${revision === undefined || this.#known.isLost ? "" : `?after=${revision}`}`;
      try {
        const answer = (await ask(path, { signal: this.#asking.signal })) as DashboardSnapshot;
        this.#set({ snapshot: answer, isLost: false });
        // the same at once: the server lets no more pages wait
        if (answer.revision === revision) await rest(this.#asking.signal);
      } catch {
        if (this.#gone.signal.aborted) return;
        if (this.#asking.signal.aborted) {
          this.#known = { ...this.#known, isLost: true }; // asks at once, without waiting for a difference
          continue;
        }
        this.#set({ ...this.#known, isLost: true });
        await rest(this.#gone.signal);
      }
    }
  }

  #set(known: Known): void {
    this.#known = known;
    this.#onChange(known);
  }
}

function rest(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, retryMs);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
    if (signal.aborted) resolve();
  });
}

async function ask(path: string, init: RequestInit): Promise<unknown> {
  const response = await fetch(path, init);
  if (response.status === 401) location.assign(`/login?next=${encodeURIComponent("/dashboard")}`);
  const text = await response.text();
  if (response.ok) return text === "" ? {} : JSON.parse(text);
  throw new Error(sentenceOf(text) ?? `the server answered with ${response.status}`);
}

function sentenceOf(text: string): string | undefined {
  try {
    return (JSON.parse(text) as { readonly error?: string }).error;
  } catch {
    return undefined;
  }
}
