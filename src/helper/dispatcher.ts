// Lines from the daemon to calls of the session and back (wire/helper.ts). One request at a time: a second one while
// the first is under way, or anything that is no request, ends the helper.
import { AppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { softwareVersion } from "#base/version.ts";
import { encodeHelperError, helperApi, helperProtocol, helperRequestSchema } from "#wire/helper.ts";
import type { HelperParams, HelperResult, HelperVerb } from "#wire/helper.ts";
import type { HelperSession } from "./session.ts";

/** Where answers go; `passedFd` travels along. */
export interface AnswerSink {
  send(line: string, passedFd?: number): void;
}

interface Answer {
  readonly result: unknown;
  /** Sent along, then closed by `sent`. */
  readonly fd?: number;
  readonly sent?: () => void;
}

export class Dispatcher {
  readonly #session: HelperSession;
  readonly #end: (reason: string) => void;
  readonly #log: Logger;
  #greeted = false;
  #busy = false;

  constructor(session: HelperSession, end: (reason: string) => void, log: Logger) {
    this.#session = session;
    this.#end = end;
    this.#log = log;
  }

  accept(line: string, sink: AnswerSink): void {
    const request = helperRequestSchema.safeParse(parseJson(line));
    if (!request.success || this.#busy) {
      this.#end(this.#busy ? "the daemon sent a request before the last was answered" : "the daemon sent no request");
      return;
    }
    this.#busy = true;
    void this.#answer(request.data, sink).catch((error: unknown) => this.#end(toAppError(error).message));
  }

  async #answer(request: { id: number; verb: string; params?: unknown }, sink: AnswerSink): Promise<void> {
    const { id, verb } = request;
    try {
      const answer = await this.#call(verb, request.params);
      this.#busy = false;
      try {
        sink.send(JSON.stringify({ id, result: answer.result }), answer.fd);
      } finally {
        answer.sent?.();
      }
    } catch (error) {
      this.#busy = false;
      const known = toAppError(error);
      this.#log.warn("request refused", { verb, error: known.message });
      sink.send(JSON.stringify({ id, error: encodeHelperError(known) }));
    }
    if (verb === "bye") this.#end("the daemon said bye");
  }

  async #call(verb: string, params: unknown): Promise<Answer> {
    if (!isVerb(verb)) throw new AppError("protocol", `the root helper has no verb "${verb.slice(0, 32)}"`);
    if (!this.#greeted && verb !== "hello") throw new AppError("protocol", "the first request is not `hello`");
    switch (verb) {
      case "hello":
        return { result: this.#hello(check(verb, params)) };
      case "device.open": {
        const { result, fd, release } = this.#session.openDevice(check(verb, params));
        return { result: result satisfies HelperResult<"device.open">, fd, sent: release };
      }
      case "routes.set":
        return { result: this.#session.setRoutes(check(verb, params)) };
      case "dns.hook":
        await this.#session.hookDns(check(verb, params));
        return { result: {} };
      case "dns.unhook":
        await this.#session.unhookDns();
        return { result: {} };
      case "bye":
        await this.#session[Symbol.asyncDispose]();
        return { result: {} };
    }
  }

  #hello({ protocol, version }: HelperParams<"hello">): HelperResult<"hello"> {
    if (protocol !== helperProtocol) {
      const message = `the daemon (${version}) speaks helper protocol ${protocol}, the root helper ${helperProtocol}`;
      throw new AppError("version_mismatch", message, { hint: "run `telepresence quit` and connect again" });
    }
    this.#greeted = true;
    return { version: softwareVersion, pid: process.pid };
  }
}

function isVerb(verb: string): verb is HelperVerb {
  return Object.hasOwn(helperApi, verb);
}

function check<V extends HelperVerb>(verb: V, params: unknown): HelperParams<V> {
  const parsed = helperApi[verb].params.safeParse(params);
  if (parsed.success) return parsed.data as HelperParams<V>;
  const [issue] = parsed.error.issues;
  const where = issue === undefined || issue.path.length === 0 ? "" : ` at ${issue.path.join(".")}`;
  throw new AppError("protocol", `the arguments of ${verb} are malformed${where}: ${issue?.message ?? "unknown"}`);
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined; // refused by the schema
  }
}
