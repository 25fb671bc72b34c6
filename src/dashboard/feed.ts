// What the daemon tells, as it comes: asked on this machine, or by way of the cloud server.
import type { ExchangeSummary, ExchangeView, InspectedIntercept, InspectorEvent } from "#wire/inspector-api.ts";

/** chosen: a daemon that was ended and started again has another address anyway. */
const retryMs = 1000;

export type Link = "live" | "lost" | "stranger";

/** Everything that is known; a new object for each change. */
export interface Snapshot {
  /** In the order of their beginning. */
  readonly exchanges: readonly ExchangeSummary[];
  readonly intercepts: readonly InspectedIntercept[];
  readonly connected: boolean;
  readonly link: Link;
}

export const nothingKnown: Snapshot = { exchanges: [], intercepts: [], connected: true, link: "live" };

interface HarFile {
  readonly log: { readonly entries: readonly object[] };
}

/** chosen: a server takes an address of 32 KiB. */
const idsAtOnce = 2000;

/** Where the daemon is asked. */
export interface FeedSource {
  /** Before `api/`. */
  readonly base: string;
  readonly headers: () => Record<string, string>;
}

const tokenKey = "telepresence-token";

/**
 * The page is the daemon's own. The token of its address is kept for this tab alone and taken out of the address, so that
 * it does not stay in the browser's history.
 */
export function ownDaemon(): FeedSource {
  if (location.hash.length > 1) {
    sessionStorage.setItem(tokenKey, location.hash.slice(1));
    history.replaceState(null, "", location.pathname);
  }
  const token = sessionStorage.getItem(tokenKey) ?? "";
  return { base: "", headers: () => ({ authorization: `Bearer ${token}` }) };
}

export class Feed {
  readonly #source: FeedSource;
  readonly #gone = new AbortController();
  readonly #known = new Map<number, ExchangeSummary>();
  readonly #onChange: (snapshot: Snapshot) => void;
  #snapshot = nothingKnown;
  #frame = 0;

  constructor(source: FeedSource, onChange: (snapshot: Snapshot) => void) {
    this.#source = source;
    this.#onChange = onChange;
    void this.#follow();
  }

  /** Nobody looks any more. */
  close(): void {
    this.#gone.abort();
    cancelAnimationFrame(this.#frame);
  }

  async read(id: number, reveal: boolean): Promise<ExchangeView> {
    return (await this.#ask(`api/exchanges/${id}${reveal ? "?reveal=1" : ""}`)) as ExchangeView;
  }

  async replay(id: number, to: "laptop" | "pod", reveal: boolean): Promise<ExchangeView> {
    const path = `api/exchanges/${id}/replay?to=${to}${reveal ? "&reveal=1" : ""}`;
    return (await this.#ask(path, "POST")) as ExchangeView;
  }

  async clear(): Promise<void> {
    await this.#ask("api/clear", "POST");
  }

  /** In parts, so that no address is too long. */
  async har(ids: readonly number[], reveal: boolean): Promise<object> {
    const parts: HarFile[] = [];
    for (let at = 0; at === 0 || at < ids.length; at += idsAtOnce) {
      const some = ids.slice(at, at + idsAtOnce).join(",");
      parts.push((await this.#ask(`api/har?ids=${some}${reveal ? "&reveal=1" : ""}`)) as HarFile);
    }
    const entries = parts.flatMap((part) => part.log.entries);
    return { log: { ...parts[0]?.log, entries } };
  }

  async #ask(path: string, method = "GET"): Promise<unknown> {
    const { base, headers } = this.#source;
    const response = await fetch(base + path, { method, headers: headers() });
    const answer = (await response.json()) as unknown;
    if (response.ok) return answer;
    throw new Error((answer as { error?: string }).error ?? `the daemon answered with ${response.status}`);
  }

  async #follow(): Promise<void> {
    const { signal } = this.#gone;
    while (!signal.aborted) {
      try {
        const { base, headers } = this.#source;
        const response = await fetch(`${base}api/events`, { headers: headers(), signal });
        if (response.status === 401 || response.status === 403) {
          this.#set({ link: "stranger" });
          return;
        }
        if (response.body !== null && response.ok) await this.#read(response.body);
      } catch {
        // the daemon is gone; maybe it comes back
      }
      if (signal.aborted) return;
      this.#set({ link: "lost" });
      await new Promise((resolve) => setTimeout(resolve, retryMs));
    }
  }

  async #read(body: ReadableStream<Uint8Array>): Promise<void> {
    this.#set({ link: "live" });
    this.#known.clear();
    const reader = body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
    let held = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (held + value).split("\n");
      held = lines.pop() ?? "";
      for (const line of lines) this.#hear(JSON.parse(line) as InspectorEvent);
    }
  }

  #hear(event: InspectorEvent): void {
    if (event.kind === "intercepts") {
      this.#set({ intercepts: event.intercepts, connected: event.connected });
      return;
    }
    for (const exchange of event.changed) this.#known.set(exchange.id, exchange);
    for (const id of this.#known.keys()) {
      if (id >= event.oldest) break;
      this.#known.delete(id);
    }
    // However many lines come, the page is drawn once for a frame.
    if (this.#frame !== 0) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#set({ exchanges: [...this.#known.values()] });
    });
  }

  #set(change: Partial<Snapshot>): void {
    this.#snapshot = { ...this.#snapshot, ...change };
    this.#onChange(this.#snapshot);
  }
}
