// Tokens of the pod's ServiceAccount as its volumes have them, asked for anew well before they expire. They are bound to
// the pod: when it is gone they are worth nothing.
import { linkSignals } from "#base/abort.ts";
import { toAppError, type AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { Scope } from "#base/scope.ts";
import type { Kube } from "#kube/client.ts";
import type { TokenPart } from "#kube/workloads/container-volumes.ts";
import type { Pod } from "#kube/objects.ts";
import { requestToken, type IssuedToken } from "#kube/token-request.ts";

/** protocol: as kubelets do, when four fifths of its time are over. */
const freshPart = 0.8;
/** chosen: between two looks at the clock; also until it is tried again when it could not be had. */
const stepMs = 30_000;

export class PodTokens {
  readonly #options: { kube: Kube; pod: () => Pod; onChange: () => void; scope: Scope; log: Logger };
  readonly #tokens = new Map<string, IssuedToken>();
  readonly #failures = new Map<string, AppError>();
  /** Ends the present wait of each, when there is a new pod. */
  #renewing = new AbortController();

  constructor(options: { kube: Kube; pod: () => Pod; onChange: () => void; scope: Scope; log: Logger }) {
    this.#options = options;
  }

  find(part: TokenPart): string | undefined {
    return this.#tokens.get(keyOf(part))?.token;
  }
  failure(part: TokenPart): AppError | undefined {
    return this.#failures.get(keyOf(part));
  }

  /** Resolves when each is there, or cannot be had: then the caller finds another way to it. */
  async keep(parts: readonly TokenPart[], signal: AbortSignal): Promise<void> {
    const unique = [...new Map(parts.map((part) => [keyOf(part), part])).values()];
    await Promise.all(unique.map((part) => this.#request(part, signal)));
    const { scope } = this.#options;
    for (const part of unique) if (this.find(part) !== undefined) scope.background("token", this.#renew(part));
  }

  /** For a new pod. */
  renew(): void {
    const before = this.#renewing;
    this.#renewing = new AbortController();
    before.abort();
  }

  async #renew(part: TokenPart): Promise<void> {
    const { onChange, scope } = this.#options;
    for (;;) {
      await this.#untilStale(part);
      if (scope.signal.aborted) return;
      await this.#request(part, scope.signal);
      onChange();
    }
  }

  /** In short steps by the wall clock: a laptop sleeps, and its timers with it. */
  async #untilStale(part: TokenPart): Promise<void> {
    const { kube, scope } = this.#options;
    const { clock } = kube;
    const known = this.#tokens.get(keyOf(part));
    const lifeMs = (known?.expiresAtMs ?? 0) - clock.wallMs();
    const staleAtMs =
      clock.wallMs() + (this.failure(part) === undefined ? Math.max(lifeMs * freshPart, stepMs) : stepMs);
    using early = linkSignals(scope.signal, this.#renewing.signal);
    while (clock.wallMs() < staleAtMs && !early.signal.aborted) {
      const waitMs = Math.min(staleAtMs - clock.wallMs(), stepMs);
      await clock.sleep(waitMs, early.signal).catch(() => undefined); // a new pod, or the end
    }
  }

  async #request(part: TokenPart, signal: AbortSignal): Promise<void> {
    const { kube, pod, log } = this.#options;
    try {
      this.#tokens.set(keyOf(part), await requestToken(kube, pod(), part, signal));
      this.#failures.delete(keyOf(part));
    } catch (error) {
      if (signal.aborted) throw error;
      this.#failures.set(keyOf(part), toAppError(error));
      log.warn("a token of the pod could not be had", { error: String(error) });
    }
  }
}

const keyOf = ({ audience = "", expirationSeconds }: TokenPart): string => `${audience} ${expirationSeconds}`;
