// Typed JSON-RPC over one stream (PROTOCOL §8): a TunnelStream, or the Unix socket between CLI and daemon. Both ends
// check parameters and results against the API's schemas, in both directions.
// Invariants: no call outlives the stream: all reject with `link_lost` when it ends; a handler's signal aborts when its
// caller cancels or the stream ends.
import type { Duplex } from "node:stream";
import { CancellationTokenSource, createMessageConnection } from "vscode-jsonrpc/node";
import type { CancellationToken, MessageConnection } from "vscode-jsonrpc/node";
import type { z } from "zod";
import { AppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { maxRpcMessageBytes } from "#wire/limits.ts";
import type { ApiDefinition, NotificationTable, ParamsOf, ResultOf } from "#wire/rpc.ts";
import { decodeError, encodeError } from "./rpc-error.ts";
import { RpcReader, RpcWriter } from "./rpc-transport.ts";

/** One function a method. What it throws reaches the caller as an AppError with the same code, hint and fields. */
export type Handlers<A extends ApiDefinition> = {
  readonly [M in keyof A]: (params: ParamsOf<A, M>, signal: AbortSignal) => Promise<ResultOf<A, M>> | ResultOf<A, M>;
};

type None = Record<never, never>;

export interface RpcOptions<
  Calls extends ApiDefinition,
  Serves extends ApiDefinition,
  Receives extends NotificationTable,
  Sends extends NotificationTable,
> {
  /** Owned from here on. */
  readonly stream: Duplex;
  /** Methods of the far end. */
  readonly calls?: Calls;
  readonly serves?: { readonly api: Serves; readonly handlers: Handlers<Serves> };
  /** Notifications that come in. */
  readonly receives?: Receives;
  /** Notifications that go out. */
  readonly sends?: Sends;
  readonly log: Logger;
  /** Longest message either way; `maxRpcMessageBytes` when left out. */
  readonly maxMessageBytes?: number;
}

export interface Rpc<
  Calls extends ApiDefinition = None,
  Receives extends NotificationTable = None,
  Sends extends NotificationTable = None,
> extends Disposable {
  /** Rejects with the far end's AppError, `link_lost`, or the signal's reason. */
  call<M extends keyof Calls & string>(
    method: M,
    params: ParamsOf<Calls, M>,
    signal: AbortSignal,
  ): Promise<ResultOf<Calls, M>>;
  /** Sent when the stream takes it; lost without a word when the stream has ended. */
  notify<N extends keyof Sends & string>(name: N, params: z.infer<Sends[N]>): void;
  /** Set in the tick of `openRpc` to miss nothing. */
  onNotification<N extends keyof Receives & string>(
    name: N,
    handler: (params: z.infer<Receives[N]>) => void,
  ): Disposable;
  /** Resolves, never rejects: undefined after an orderly end of either side. */
  readonly closed: Promise<AppError | undefined>;
  /** Pending calls reject, and the far end is told that nobody waits for them; the connection stays. */
  giveUpCalls(error: AppError): void;
  /** Ends in order: what was answered is still sent; pending calls reject. */
  dispose(): void;
  /** Resets the stream. */
  destroy(error?: AppError): void;
}

export function openRpc<
  Calls extends ApiDefinition = None,
  Serves extends ApiDefinition = None,
  Receives extends NotificationTable = None,
  Sends extends NotificationTable = None,
>(options: RpcOptions<Calls, Serves, Receives, Sends>): Rpc<Calls, Receives, Sends> {
  // The tables tie names to types for callers; inside, names are strings and the schemas do the checking.
  return new Connection(options as unknown as AnyOptions) as unknown as Rpc<Calls, Receives, Sends>;
}

type AnyOptions = RpcOptions<ApiDefinition, ApiDefinition, NotificationTable, NotificationTable>;

/** chosen: requests of the far end that may be in work at once; more are answered with `busy`. */
const maxRunningRequests = 1024;

class Connection implements Rpc<ApiDefinition, NotificationTable, NotificationTable> {
  readonly closed: Promise<AppError | undefined>;
  readonly #resolveClosed: (error: AppError | undefined) => void;
  readonly #options: AnyOptions;
  readonly #log: Logger;
  /** Bytes that may wait for the stream before calls are refused; answers and notifications have twice as much. */
  readonly #queueBytes: number;
  readonly #reader: RpcReader;
  readonly #connection: MessageConnection;
  readonly #calls = new Set<(error: AppError, tell?: "tell") => void>();
  readonly #running = new Set<AbortController>();
  readonly #listeners = new Map<string, Set<(params: unknown) => void>>();
  #over: AppError | undefined;

  constructor(options: AnyOptions) {
    const { promise, resolve } = Promise.withResolvers<AppError | undefined>();
    this.closed = promise;
    this.#resolveClosed = resolve;
    this.#options = options;
    this.#log = options.log;
    const { stream, maxMessageBytes = maxRpcMessageBytes } = options;
    this.#queueBytes = maxMessageBytes;
    this.#reader = new RpcReader(stream, maxMessageBytes, (error) => this.destroy(error));
    const writer = new RpcWriter(stream, maxMessageBytes);
    const say = (message: string): void => this.#log.debug("json-rpc", { message });
    this.#connection = createMessageConnection(this.#reader, writer, { error: say, warn: say, info: say, log: say });
    this.#connection.onRequest((method, params, token) => this.#serve(method, params, token));
    this.#connection.onNotification((method, params) => this.#receive(method, params));
    stream.on("error", (error: Error) => this.#finish(linkLost(error), linkLost(error)));
    stream.on("end", () => this.dispose());
    stream.on("close", () => this.#finish(undefined, linkLost()));
    if (stream.destroyed || stream.readableEnded) this.dispose();
    else this.#connection.listen();
  }

  async call(method: string, params: unknown, signal: AbortSignal): Promise<never> {
    signal.throwIfAborted();
    if (this.#over !== undefined) throw this.#over;
    const definition = this.#options.calls?.[method];
    if (definition === undefined) throw new AppError("internal", `method ${method} is not in the API`);
    const checked = check(definition.params, params, "internal", `the parameters of ${method}`);
    if (this.#options.stream.writableLength > this.#queueBytes) {
      throw new AppError(
        "busy",
        `${this.#options.stream.writableLength} bytes of calls wait to be sent, expected fewer`,
      );
    }
    const result = await this.#request(method, checked, signal);
    return check(definition.result, result, "protocol", `the far end's answer to ${method}`) as never;
  }

  notify(name: string, params: unknown): void {
    if (this.#over !== undefined) return;
    const schema = this.#options.sends?.[name];
    if (schema === undefined) throw new AppError("internal", `notification ${name} is not in the API`);
    const checked = check(schema, params, "internal", `the parameters of ${name}`);
    this.#connection.sendNotification(name, checked).catch((error: unknown) => {
      this.#log.warn("notification not sent", { name, error: toAppError(error).message });
    });
  }

  onNotification(name: string, handler: (params: never) => void): Disposable {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners);
    const listener = handler as (params: unknown) => void;
    listeners.add(listener);
    return { [Symbol.dispose]: () => void listeners.delete(listener) };
  }

  giveUpCalls(error: AppError): void {
    for (const reject of this.#calls) reject(error, "tell");
  }

  dispose(): void {
    this.#options.stream.end();
    this.#finish(undefined, linkLost());
  }
  [Symbol.dispose](): void {
    this.dispose();
  }

  destroy(error?: AppError): void {
    this.#options.stream.destroy(error);
    this.#finish(error, error ?? linkLost());
  }

  #request(method: string, params: unknown, signal: AbortSignal): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const source = new CancellationTokenSource();
      const settle = (): void => {
        this.#calls.delete(onLost);
        signal.removeEventListener("abort", onAbort);
        source.dispose();
      };
      const onLost = (error: AppError, tell?: "tell"): void => {
        if (tell !== undefined) source.cancel();
        settle();
        reject(error);
      };
      const onAbort = (): void => {
        source.cancel();
        settle();
        reject(signal.reason as Error);
      };
      this.#calls.add(onLost);
      signal.addEventListener("abort", onAbort, { once: true });
      this.#connection.sendRequest(method, params, source.token).then(
        (result) => {
          settle();
          resolve(result);
        },
        (error: unknown) => {
          settle();
          reject(this.#over ?? decodeError(error));
        },
      );
    });
  }

  /** Returns rather than throws: vscode-jsonrpc would rewrite the error's text. */
  async #serve(method: string, params: unknown, token: CancellationToken): Promise<unknown> {
    const { serves } = this.#options;
    const definition = serves !== undefined && Object.hasOwn(serves.api, method) ? serves.api[method] : undefined;
    const handler = serves?.handlers[method];
    if (definition === undefined || handler === undefined) {
      return encodeError(new AppError("unsupported", `method ${method.slice(0, 100)} is unknown to this version`));
    }
    if (this.#running.size >= maxRunningRequests) {
      return encodeError(new AppError("busy", `${maxRunningRequests} requests are in work, expected fewer`));
    }
    const controller = new AbortController();
    const cancel = (): void => controller.abort(new AppError("cancelled", `the caller gave up ${method}`));
    if (token.isCancellationRequested) cancel();
    const listening = token.onCancellationRequested(cancel);
    this.#running.add(controller);
    try {
      controller.signal.throwIfAborted();
      const checked = check(definition.params, params, "protocol", `the parameters of ${method}`);
      const result: unknown = await handler(checked as never, controller.signal);
      return check(definition.result, result, "internal", `the result of ${method}`);
    } catch (error) {
      const known = toAppError(error);
      if (known.code === "internal") this.#log.error("request failed", { method, error: known.message });
      return encodeError(known);
    } finally {
      this.#running.delete(controller);
      listening.dispose();
    }
  }

  #receive(name: string, params: unknown): void {
    const { receives } = this.#options;
    const schema = receives !== undefined && Object.hasOwn(receives, name) ? receives[name] : undefined;
    const parsed = schema?.safeParse(params);
    if (parsed === undefined || !parsed.success) {
      this.#log.warn("notification ignored", { name: name.slice(0, 100), known: parsed !== undefined });
      return;
    }
    for (const listener of this.#listeners.get(name) ?? []) {
      try {
        listener(parsed.data);
      } catch (error) {
        this.#log.error("notification handler failed", { name, error: String(error) });
      }
    }
  }

  #finish(error: AppError | undefined, lost: AppError): void {
    if (this.#over !== undefined) return;
    this.#over = lost;
    this.#reader.stop();
    this.#connection.dispose();
    for (const reject of this.#calls) reject(lost);
    for (const controller of this.#running) controller.abort(lost);
    this.#resolveClosed(error);
  }
}

function linkLost(cause?: Error): AppError {
  if (cause === undefined) return new AppError("link_lost", "the connection ended before the answer");
  return new AppError("link_lost", `the connection was lost: ${cause.message}`, { cause });
}

function check(schema: z.ZodType, value: unknown, code: "internal" | "protocol", what: string): unknown {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const where = issue === undefined || issue.path.length === 0 ? "" : ` at ${issue.path.join(".")}`;
  throw new AppError(code, `${what} do not fit the API${where}: ${issue?.message ?? "unknown reason"}`);
}
