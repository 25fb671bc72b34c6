// Intercepts without traffic (`--local-only`): as long as one lasts, the short names of its namespace resolve as well.
// Kept for those whose scripts have it; a connection of that namespace is the plain way.
import { AppError } from "#base/error.ts";
import type { LocalOnlyInfo } from "#wire/control-api.ts";

interface Own extends LocalOnlyInfo {
  readonly ended: PromiseWithResolvers<undefined>;
}

export class LocalOnly implements Disposable {
  readonly #own = new Map<string, Own>();
  readonly #onChange: (namespaces: readonly string[]) => void;

  constructor(onChange: (namespaces: readonly string[]) => void) {
    this.#onChange = onChange;
  }

  get infos(): readonly LocalOnlyInfo[] {
    return [...this.#own.values()].map(({ name, namespace }) => ({ name, namespace }));
  }

  begin({ name, namespace }: LocalOnlyInfo): void {
    if (this.#own.has(name)) {
      throw new AppError("intercept_exists", `there is already an intercept named ${name}`, {
        hint: `end it with \`telepresence leave ${name}\``,
      });
    }
    this.#own.set(name, { name, namespace, ended: Promise.withResolvers<undefined>() });
    this.#told();
  }

  /** Resolves when it is over; never rejects. */
  ended(name: string): Promise<undefined> {
    return this.#own.get(name)?.ended.promise ?? Promise.resolve(undefined);
  }

  /** How many there were. */
  end(name: string, namespace: string | undefined): number {
    const own = this.#own.get(name);
    if (own === undefined || (namespace !== undefined && own.namespace !== namespace)) return 0;
    this.#own.delete(name);
    own.ended.resolve(undefined);
    this.#told();
    return 1;
  }

  /** The names go with the connection. */
  [Symbol.dispose](): void {
    for (const { ended } of this.#own.values()) ended.resolve(undefined);
    this.#own.clear();
  }

  #told(): void {
    this.#onChange([...new Set(this.infos.map(({ namespace }) => namespace))]);
  }
}

/** Left out while there are none. */
export function withLocalOnly(infos: readonly LocalOnlyInfo[]): { localOnly?: LocalOnlyInfo[] } {
  return infos.length === 0 ? {} : { localOnly: [...infos] };
}
