// A watch that does not end: list, then follow; expiry, 410, a cut line and a server's restart are its own matter.
// Only a refusal, a missing kind or the signal ends it. Where `list` is allowed but `watch` is not, it lists again
// every few seconds instead.
import { deadline, linkSignals } from "#base/abort.ts";
import type { Clock, Timer } from "#base/clock.ts";
import { AppError, isAppError } from "#base/error.ts";
import type { Kube, ListQuery } from "./client.ts";
import { actionOn, listParams } from "./client.ts";
import type { KubeObject, Resource } from "./objects.ts";
import { resourcePath } from "./objects.ts";
import { isGone, networkError, statusError } from "./status.ts";

export type WatchEvent<T> =
  /** The whole set: at the beginning, and whenever continuity was lost. */
  | { readonly type: "reset"; readonly items: readonly T[] }
  | { readonly type: "changed"; readonly object: T }
  | { readonly type: "deleted"; readonly object: T };

/** The server ends a watch after this; a line that went dead without any sign is noticed no later. Chosen. */
const watchSeconds = 120;
/** Chosen: how soon after it a sleep is noticed, and what is taken for one rather than for a clock being set right. */
const sleepCheckMs = 2000;
const sleptMs = 5000;
const graceMs = 15_000;
/** Interval where watching is forbidden. Chosen. */
const pollMs = 2000;
const firstRetryMs = 100;
const maxRetryMs = 5000;
const maxLineBytes = 8 * 1024 * 1024;

/** Follows a collection until the signal aborts (then it returns) or the server refuses (then it throws). */
export async function* watch<T extends KubeObject>(
  kube: Kube,
  kind: Resource<T>,
  query: ListQuery,
  signal: AbortSignal,
): AsyncGenerator<WatchEvent<T>, void, void> {
  const state = new WatchState();
  try {
    while (!signal.aborted) {
      try {
        if (state.version === undefined) {
          const { items, resourceVersion } = await kube.list(kind, query, signal);
          state.version = resourceVersion;
          yield { type: "reset", items };
        }
        if (state.pollOnly) {
          await kube.clock.sleep(pollMs, signal);
          state.version = undefined;
        } else {
          yield* follow(kube, kind, query, { state, signal });
          await kube.clock.sleep(firstRetryMs, signal); // a proxy that ends every watch at once must not spin us
        }
      } catch (error) {
        if (signal.aborted) return;
        const waitMs = state.afterFailure(error);
        await kube.clock.sleep(waitMs, signal);
      }
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

class WatchState {
  version: string | undefined;
  pollOnly = false;
  #failures = 0;

  progress(version: string | undefined): void {
    this.#failures = 0;
    if (version !== undefined) this.version = version;
  }

  /** How long to wait before the next try; throws when trying is of no use. */
  afterFailure(error: unknown): number {
    if (isGone(error)) {
      this.version = undefined;
      return 0;
    }
    if (isAppError(error, "forbidden") && error.fields["verb"] === "watch") {
      this.pollOnly = true;
      return 0;
    }
    if (isAppError(error, "link_lost")) return firstRetryMs; // `renew`: the next one goes by a new connection
    const final = ["forbidden", "unauthorized", "not_found", "unsupported", "kubeconfig_invalid", "cancelled"] as const;
    if (final.some((code) => isAppError(error, code))) throw error;
    return Math.min(firstRetryMs * 2 ** this.#failures++, maxRetryMs);
  }
}

interface Following {
  readonly state: WatchState;
  readonly signal: AbortSignal;
}

interface RawEvent<T> {
  readonly type: string;
  readonly object: T & { readonly code?: number; readonly message?: string };
}

async function* follow<T extends KubeObject>(
  kube: Kube,
  kind: Resource<T>,
  query: ListQuery,
  { state, signal }: Following,
): AsyncGenerator<WatchEvent<T>, void, void> {
  const params = listParams(query, {
    watch: "1",
    allowWatchBookmarks: "true",
    resourceVersion: state.version,
    timeoutSeconds: String(watchSeconds),
  });
  const path = `${resourcePath(kind, query.namespace)}?${params}`;
  const action = actionOn("watch", kind, { namespace: query.namespace });
  using limit = deadline(kube.clock, watchSeconds * 1000 + graceMs, `watching ${kind.plural}`, signal);
  using _sleep = afterSleep(kube.clock, () => kube.transport.renew());
  using reading = linkSignals(limit.signal, kube.transport.renewed);
  const response = await kube.transport.send({ method: "GET", path }, reading.signal);
  const onAbort = (): void => void response.destroy(reading.signal.reason as Error);
  if (reading.signal.aborted) onAbort();
  else reading.signal.addEventListener("abort", onAbort, { once: true });
  try {
    if (response.statusCode !== 200) {
      const body = await readStart(response);
      throw statusError(kube.target, action, response.statusCode ?? 0, body);
    }
    for await (const line of readLines(response)) {
      const event = JSON.parse(line) as RawEvent<T>;
      if (event.type === "ERROR")
        throw statusError(kube.target, action, event.object.code ?? 0, JSON.stringify(event.object));
      state.progress(event.object.metadata.resourceVersion);
      if (event.type === "BOOKMARK") continue;
      yield { type: event.type === "DELETED" ? "deleted" : "changed", object: event.object };
    }
  } catch (error) {
    throw isAppError(error) ? error : networkError(kube.target, error);
  } finally {
    response.destroy();
  }
}

/** After the machine has slept: time passed by the wall that did not pass here, and no connection has lived that long. */
function afterSleep(clock: Clock, callback: () => void): Timer {
  const before = clock.wallMs() - clock.now();
  return clock.every(sleepCheckMs, () => {
    if (clock.wallMs() - clock.now() - before >= sleptMs) callback();
  });
}

async function readStart(response: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response) {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > 64 * 1024) break;
  }
  return Buffer.concat(chunks).toString("utf8");
}

async function* readLines(response: AsyncIterable<Buffer>): AsyncGenerator<string, void, void> {
  let parts: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response) {
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      const line = Buffer.concat([...parts, chunk.subarray(start, end)]);
      parts = [];
      bytes = 0;
      start = end + 1;
      if (line.length > 0) yield line.toString("utf8");
    }
    if (start < chunk.length) {
      parts.push(chunk.subarray(start));
      bytes += chunk.length - start;
    }
    if (bytes > maxLineBytes) throw new AppError("protocol", `a watch event is longer than ${maxLineBytes} bytes`);
  }
}
