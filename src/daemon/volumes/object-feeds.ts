// The ConfigMaps and Secrets behind a container's volumes, followed with the user's own rights.
import { deadline, raceSignal } from "#base/abort.ts";
import { AppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { Scope } from "#base/scope.ts";
import type { Kube } from "#kube/client.ts";
import type { NeededObject } from "#kube/workloads/container-environment.ts";
import { followObject } from "#kube/follow-object.ts";
import { configMaps, secrets, type ConfigMap, type Secret } from "#kube/objects.ts";

/** chosen: a person waits for the intercept; what comes later is laid down later. */
const firstAnswerMs = 10_000;

type Key = Pick<NeededObject, "kind" | "name">;
const keyOf = ({ kind, name }: Key): string => `${kind} ${name}`;

export class ObjectFeeds {
  readonly #options: { kube: Kube; namespace: string; onChange: () => void; scope: Scope; log: Logger };
  readonly #objects = new Map<string, ConfigMap | Secret | undefined>();
  readonly #failures = new Map<string, AppError>();

  constructor(options: { kube: Kube; namespace: string; onChange: () => void; scope: Scope; log: Logger }) {
    this.#options = options;
  }

  find(kind: NeededObject["kind"], name: string): ConfigMap | Secret | undefined {
    return this.#objects.get(keyOf({ kind, name }));
  }
  /** Why it cannot be read. */
  failure(key: Key): AppError | undefined {
    const failure = this.#failures.get(keyOf(key));
    if (failure !== undefined || this.#objects.has(keyOf(key))) return failure;
    return new AppError("timeout", `${keyOf(key)} did not come in time`);
  }

  /** Resolves when each has answered or cannot be read, or time is up. */
  async follow(keys: readonly Key[], signal: AbortSignal): Promise<void> {
    const { kube, scope } = this.#options;
    using limit = deadline(kube.clock, firstAnswerMs, "reading ConfigMaps and Secrets", signal);
    const unique = new Map(keys.map((key) => [keyOf(key), key]));
    const first = [...unique.values()].map((key) => {
      const answered = Promise.withResolvers<void>();
      scope.background(`follow ${keyOf(key)}`, this.#follow(key, answered.resolve));
      return answered.promise;
    });
    await raceSignal(Promise.all(first), limit.signal).catch((error: unknown) => {
      if (signal.aborted) throw error;
    });
  }

  async #follow(key: Key, answered: () => void): Promise<void> {
    const { kube, namespace, onChange, scope, log } = this.#options;
    const onObject = (object: ConfigMap | Secret | undefined): void => {
      this.#objects.set(keyOf(key), object);
      answered();
      onChange();
    };
    try {
      const kind = key.kind === "Secret" ? secrets : configMaps;
      await followObject<ConfigMap | Secret>(
        kube,
        kind,
        { namespace, name: key.name },
        { onObject, signal: scope.signal },
      );
    } catch (error) {
      if (scope.signal.aborted) return;
      this.#failures.set(keyOf(key), toAppError(error));
      log.warn("an object of a volume can no longer be followed", { object: keyOf(key), error: String(error) });
    } finally {
      answered();
    }
  }
}
