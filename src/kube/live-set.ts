// The current objects of a watch, and a wait over several of them: the shape of every "until it is ready" here.
import { AppError } from "#base/error.ts";
import type { Kube, ListQuery } from "./client.ts";
import type { KubeObject, Resource } from "./objects.ts";
import type { WatchEvent } from "./watch.ts";
import { watch } from "./watch.ts";

/** Objects by uid, as the events left them. */
export class LiveSet<T extends KubeObject> {
  readonly #byKey = new Map<string, T>();

  apply(event: WatchEvent<T>): void {
    if (event.type === "reset") {
      this.#byKey.clear();
      for (const item of event.items) this.#byKey.set(keyOf(item), item);
    } else if (event.type === "changed") this.#byKey.set(keyOf(event.object), event.object);
    else this.#byKey.delete(keyOf(event.object));
  }
  get items(): readonly T[] {
    return [...this.#byKey.values()];
  }
}

function keyOf(object: KubeObject): string {
  return object.metadata.uid ?? `${object.metadata.namespace ?? ""}/${object.metadata.name ?? ""}`;
}

/** Calls back with all objects that match, at once and after each change. Returns when the signal aborts. */
export async function watchAll<T extends KubeObject>(
  kube: Kube,
  { kind, query }: Pick<Watched<T>, "kind" | "query">,
  onItems: (items: readonly T[]) => void,
  signal: AbortSignal,
): Promise<void> {
  const live = new LiveSet<T>();
  for await (const event of watch(kube, kind, query, signal)) {
    live.apply(event);
    onItems(live.items);
  }
}

/** One collection that `waitFor` follows. */
export interface Watched<T extends KubeObject> {
  readonly kind: Resource<T>;
  readonly query: ListQuery;
  /** Missing permission or kind: go on without it (the set stays empty). */
  readonly optional?: boolean;
}

type Sets<W extends Readonly<Record<string, Watched<KubeObject>>>> = {
  readonly [K in keyof W]: W[K] extends Watched<infer T> ? readonly T[] : never;
};

export interface WaitOptions<W extends Readonly<Record<string, Watched<KubeObject>>>, R> {
  readonly watched: W;
  /** Undefined: not yet. Throwing ends the wait. Called after each change, and every second for what only time decides. */
  readonly evaluate: (sets: Sets<W>) => R | undefined;
  readonly signal: AbortSignal;
}

const tickMs = 1000;

/** Follows collections until `evaluate` has an answer. */
export async function waitFor<W extends Readonly<Record<string, Watched<KubeObject>>>, R>(
  kube: Kube,
  { watched, evaluate, signal }: WaitOptions<W, R>,
): Promise<R> {
  const ending = new AbortController();
  const sets = new Map<string, LiveSet<KubeObject>>();
  const synced = new Set<string>();
  const names = Object.keys(watched);
  const { promise, resolve, reject } = Promise.withResolvers<R>();
  const check = (): void => {
    if (synced.size < names.length) return;
    try {
      const view = Object.fromEntries(names.map((name) => [name, sets.get(name)?.items ?? []]));
      const result = evaluate(view as Sets<W>);
      if (result !== undefined) resolve(result);
    } catch (error) {
      reject(error as Error);
    }
  };
  const follow = async (name: string, { kind, query, optional }: Watched<KubeObject>): Promise<void> => {
    const live = new LiveSet<KubeObject>();
    sets.set(name, live);
    try {
      for await (const event of watch(kube, kind, query, ending.signal)) {
        live.apply(event);
        synced.add(name);
        check();
      }
    } catch (error) {
      if (optional !== true) throw error;
      synced.add(name);
      check();
    }
  };
  const onAbort = (): void => {
    ending.abort(signal.reason);
    reject((signal.reason as Error | undefined) ?? new AppError("cancelled", "the wait was ended"));
  };
  if (signal.aborted) onAbort();
  else signal.addEventListener("abort", onAbort, { once: true });
  using _tick = kube.clock.every(tickMs, check);
  const running = Promise.all(
    names.map((name) =>
      follow(name, watched[name] as Watched<KubeObject>).catch((error: unknown) => reject(error as Error)),
    ),
  );
  try {
    return await promise;
  } finally {
    signal.removeEventListener("abort", onAbort);
    ending.abort(new AppError("cancelled", "the wait is over"));
    await running;
  }
}
