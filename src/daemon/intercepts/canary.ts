// One canary (PROTOCOL §8.7): a connection from the manager's pod to where callers connect, and who answered it.
import { randomBytes } from "node:crypto";
import { deadline, raceSignal } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, isAppError, toAppError, type ErrorCode } from "#base/error.ts";
import { isProven, prove } from "#tunnel/proof.ts";
import type { TunnelSession, TunnelStream } from "#tunnel/tunnel.ts";
import { answeredText, askedText, decodeCanaryAnswer, encodeCanaryRequest, type AnswerHead } from "#wire/canary.ts";
import { formatEndpoint, type Endpoint } from "#wire/open.ts";

export type CanaryResult =
  | { readonly kind: "agent"; readonly podUid: string }
  /** Somebody else has it, or nobody. */
  | { readonly kind: "elsewhere"; readonly reason: string }
  | { readonly kind: "unknown"; readonly reason: string };

export interface CanaryOptions {
  readonly session: TunnelSession;
  readonly target: Endpoint;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** chosen: within a cluster a connection takes milliseconds; a policy that drops it must not hold up a command. */
const connectMs = 1000;
const answerMs = 1500;

/** The secret of a laptop's canaries. */
export const newCanarySecret = (): string => randomBytes(32).toString("hex");

/** For ports that speak HTTP, of any version: an agent knows the request on each. Never rejects but for the signal. */
export async function sendHttpCanary(options: CanaryOptions & { readonly secret: string }): Promise<CanaryResult> {
  const { secret, target } = options;
  const stream = await connect(options);
  if (!("destroy" in stream)) return stream;
  const nonce = randomBytes(16).toString("hex");
  const where = formatEndpoint(target);
  try {
    stream.write(encodeCanaryRequest({ nonce, proof: prove(secret, askedText(nonce)) }, where));
    const answer = await readAnswer(stream, options);
    const { podUid, proof } = answer?.canary ?? {};
    if (podUid !== undefined && proof !== undefined && isProven(secret, answeredText(nonce, podUid), proof)) {
      return { kind: "agent", podUid };
    }
    const what = answer === undefined ? "something that does not speak HTTP" : `somebody else (HTTP ${answer.status})`;
    return { kind: "elsewhere", reason: `${what} answered at ${where}` };
  } catch (error) {
    options.signal.throwIfAborted();
    if (isAppError(error, "peer_reset")) return { kind: "elsewhere", reason: wasClosed(where) };
    return { kind: "unknown", reason: toAppError(error).message };
  } finally {
    stream.destroy();
  }
}

/** For any other port: connects, says nothing and leaves. Whose it was the agent must tell. */
export async function sendSilentCanary(options: CanaryOptions): Promise<CanaryResult | "connected"> {
  const stream = await connect(options);
  if (!("destroy" in stream)) return stream;
  using limit = deadline(options.clock, answerMs, "the canary's end", options.signal);
  const ended = new Promise<void>((resolve) => stream.once("end", resolve).once("close", resolve));
  const onAbort = (): void => void stream.destroy();
  limit.signal.addEventListener("abort", onAbort, { once: true });
  stream.end();
  stream.resume();
  await ended;
  limit.signal.removeEventListener("abort", onAbort);
  stream.destroy();
  options.signal.throwIfAborted();
  return "connected";
}

const wasClosed = (where: string): string => `the connection to ${where} was closed`;
const reasons: Partial<Record<ErrorCode, (where: string) => string>> = {
  refused: (where) => `nobody listens at ${where}`,
  timeout: (where) => `no connection to ${where} came about within ${connectMs / 1000} s`,
  unreachable: (where) => `${where} cannot be reached`,
  peer_reset: wasClosed,
};

async function connect({ session, target, clock, signal }: CanaryOptions): Promise<TunnelStream | CanaryResult> {
  const where = formatEndpoint(target);
  using limit = deadline(clock, connectMs, `the connection to ${where}`, signal);
  try {
    const stream = await session.open({ kind: "tcp", target }, limit.signal);
    return stream.on("error", () => undefined); // 'close' follows
  } catch (error) {
    signal.throwIfAborted();
    const { code, message } = toAppError(error);
    const reason = reasons[code]?.(where) ?? message;
    const isSomebody = code === "refused" || code === "peer_reset";
    return { kind: isSomebody ? "elsewhere" : "unknown", reason };
  }
}

async function readAnswer(
  stream: TunnelStream,
  { target, clock, signal }: CanaryOptions,
): Promise<AnswerHead | undefined> {
  const where = formatEndpoint(target);
  using limit = deadline(clock, answerMs, `an answer from ${where}`, signal);
  const { promise, resolve, reject } = Promise.withResolvers<AnswerHead | undefined>();
  let bytes = Buffer.alloc(0);
  const closed = (): void => reject(new AppError("peer_reset", wasClosed(where)));
  stream.on("data", (chunk: Buffer) => {
    bytes = Buffer.concat([bytes, chunk]);
    const head = decodeCanaryAnswer(bytes);
    if (head !== "more") resolve(head);
  });
  stream.once("end", closed).once("error", reject).once("close", closed);
  return await raceSignal(promise, limit.signal);
}
