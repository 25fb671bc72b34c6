// One command's connection to the user daemon (PROTOCOL §8.4). Imported only when somebody answered on the socket:
// JSON-RPC and the schemas cost more than the rest of the command line together.
import type { Socket } from "node:net";
import type { z } from "zod";
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, isAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { softwareVersion } from "#base/version.ts";
import type { Rpc } from "#tunnel/rpc.ts";
import { openRpc } from "#tunnel/rpc.ts";
import { controlApi, controlCallerNotifications, controlNotifications } from "#wire/control-api.ts";
import type { OwnedCommand } from "#wire/control-api.ts";
import type { ParamsOf, ResultOf } from "#wire/rpc.ts";

type Api = typeof controlApi;
export type Hello = ResultOf<Api, "hello">;

const nothing = (): void => undefined;
/** Not base/log.ts's: that one loads the logging library, which the command line has no other use for. */
const silent: Logger = {
  trace: nothing,
  debug: nothing,
  info: nothing,
  warn: nothing,
  error: nothing,
  child: () => silent,
  traceEnabled: false,
};

/** chosen: a daemon that lives answers this at once. */
const helloLimitMs = 5000;

/** What the user wrote is passed on as it is, so what does not fit is the command line's fault. */
function checkParameters(schema: z.ZodType, params: unknown): void {
  const issue = schema.safeParse(params).error?.issues[0];
  if (issue === undefined) return;
  const key = issue.path.findLast((part) => typeof part === "string") ?? "";
  const subject = key === "name" ? "the name" : `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
  const expected = {
    too_small: "is empty",
    too_big: `is too long or has too many values, expected at most ${"maximum" in issue ? issue.maximum : ""}`,
  } as const;
  const said =
    issue.code === "too_small" || issue.code === "too_big" ? expected[issue.code] : `is wrong: ${issue.message}`;
  throw new AppError("usage", `${subject} ${said}`);
}

export interface DaemonClientOptions {
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly onProgress: (text: string) => void;
  /** Named when the daemon goes away in the middle. */
  readonly log: string;
}

export class DaemonClient implements Disposable {
  readonly #rpc: Rpc<Api, typeof controlNotifications, typeof controlCallerNotifications>;
  readonly #options: DaemonClientOptions;
  /** This connection owns one intercept at most. */
  readonly #interceptEnded = Promise.withResolvers<string | undefined>();

  constructor(socket: Socket, options: DaemonClientOptions) {
    this.#options = options;
    this.#rpc = openRpc({
      stream: socket,
      calls: controlApi,
      receives: controlNotifications,
      sends: controlCallerNotifications,
      log: silent,
    });
    this.#rpc.onNotification("progress", ({ text }) => options.onProgress(text));
    this.#rpc.onNotification("intercept.ended", ({ reason }) => this.#interceptEnded.resolve(reason));
  }

  /** Resolves when the daemon has hung up. */
  get gone(): Promise<void> {
    return this.#rpc.closed.then(() => undefined);
  }

  /** Resolves when the intercept that this connection owns has ended, with why when somebody else ended it. */
  get interceptEnded(): Promise<string | undefined> {
    return this.#interceptEnded.promise;
  }

  hello(): Promise<Hello> {
    return this.call("hello", { version: softwareVersion }, helloLimitMs);
  }

  async call<M extends keyof Api>(method: M, params: ParamsOf<Api, M>, limitMs: number): Promise<ResultOf<Api, M>> {
    checkParameters(controlApi[method].params, params);
    using limit = deadline(this.#options.clock, limitMs, `the daemon's answer to ${method}`, this.#options.signal);
    try {
      return await this.#rpc.call(method, params, limit.signal);
    } catch (error) {
      throw this.#translate(error);
    }
  }

  helperFailed(message: string): void {
    this.#rpc.notify("helper.failed", { message });
  }

  /** From here on the daemon ends the command, should this process be killed. */
  commandStarted(command: OwnedCommand): void {
    this.#rpc.notify("command.started", command);
  }
  commandEnded(): void {
    this.#rpc.notify("command.ended", {});
  }

  [Symbol.dispose](): void {
    this.#rpc.dispose();
  }

  #translate(error: unknown): unknown {
    const { log, signal } = this.#options;
    if (isAppError(error, "link_lost")) {
      return new AppError("daemon_unreachable", "the user daemon ended before it answered", {
        cause: error,
        hint: `its log is ${log}`,
      });
    }
    if (isAppError(error, "timeout") && !signal.aborted) {
      return new AppError("timeout", error.message, { cause: error, hint: error.hint ?? `the daemon's log is ${log}` });
    }
    return error;
  }
}
