// One DNS message from a laptop to the cluster's resolver, byte for byte but for its id: the answer's codes, CNAMEs and
// negative answers reach the laptop as they came. A socket for each question gives a fresh source port; the id is random
// too, so a stranger would have to guess both. UDP first, TCP when the answer is truncated or did not come.
// @from daemon/dns/cluster.ts
import { randomInt } from "node:crypto";
import { createSocket } from "node:dgram";
import { connect, isIPv6 } from "node:net";
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, isAppError } from "#base/error.ts";

/** chosen: all attempts together. */
const totalMs = 4000;
/** chosen: one nameserver's turn while another one is left to ask. */
const attemptMs = 1300;
/**
 * chosen: questions in the air; further ones wait their turn, up to the second bound. A burst that overflows the
 * nameserver's socket buffer (about 270 small datagrams) would cost a retry each.
 */
const maxInFlight = 200;
const maxWaiting = 8192;
/** protocol (RFC 1035 §4.1.1). */
const headerBytes = 12;
const truncatedBit = 0x02;
const answerBit = 0x80;

export interface ResolverOptions {
  readonly nameservers: readonly string[];
  readonly clock: Clock;
  /** 53 but in tests. */
  readonly port?: number;
}

export class Resolver {
  readonly #options: ResolverOptions;
  readonly #waiting: (() => void)[] = [];
  #inFlight = 0;

  constructor(options: ResolverOptions) {
    this.#options = options;
  }

  /** The answer to one question, or `timeout`, `unreachable`, `busy`. */
  async exchange(message: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    if (message.length < headerBytes || message.length > 0xffff || ((message[2] ?? 0) & answerBit) !== 0) {
      throw new AppError("protocol", `DNS message of ${message.length} bytes is not a question`);
    }
    using limit = deadline(this.#options.clock, totalMs, "the cluster's resolver", signal);
    await this.#takeTurn(limit.signal);
    try {
      return await this.#askAll(message, limit.signal);
    } finally {
      this.#inFlight -= 1;
      this.#waiting.shift()?.();
    }
  }

  async #takeTurn(signal: AbortSignal): Promise<void> {
    if (this.#inFlight >= maxInFlight) {
      if (this.#waiting.length >= maxWaiting) {
        throw new AppError("busy", `${maxWaiting} DNS questions are waiting already, expected fewer`);
      }
      await new Promise<void>((resolve, reject) => {
        const onAbort = (): void => {
          this.#waiting.splice(this.#waiting.indexOf(turn), 1);
          reject(signal.reason as Error);
        };
        const turn = (): void => {
          signal.removeEventListener("abort", onAbort);
          resolve();
        };
        signal.addEventListener("abort", onAbort, { once: true });
        this.#waiting.push(turn);
      });
    }
    this.#inFlight += 1;
  }

  async #askAll(message: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    const { nameservers, clock } = this.#options;
    let failure = new AppError("unreachable", "the traffic-manager's pod has no nameserver in its resolv.conf");
    // Each nameserver twice, as the C library does: one lost datagram must not cost a look-up.
    const turns = [...nameservers, ...nameservers];
    for (const [index, nameserver] of turns.entries()) {
      const last = index === turns.length - 1;
      using turn = deadline(clock, last ? totalMs : attemptMs, `nameserver ${nameserver}`, signal);
      try {
        return await this.#ask(message, nameserver, turn.signal);
      } catch (error) {
        signal.throwIfAborted();
        failure = isAppError(error) ? error : new AppError("unreachable", `nameserver ${nameserver} failed: ${error}`);
      }
    }
    throw failure;
  }

  async #ask(message: Uint8Array, nameserver: string, signal: AbortSignal): Promise<Uint8Array> {
    const port = this.#options.port ?? 53;
    const question = Buffer.from(message);
    question.writeUInt16BE(randomInt(0x1_0000), 0);
    let answer = await askUdp(question, nameserver, port, signal);
    if (((answer[2] ?? 0) & truncatedBit) !== 0) answer = await askTcp(question, nameserver, port, signal);
    const original = Buffer.from(answer);
    original.set(message.subarray(0, 2), 0);
    return original;
  }
}

/** Whether these bytes answer the question: same id, the answer bit, and the question repeated where there is one. */
function answers(answer: Uint8Array, question: Buffer): boolean {
  if (answer.length < headerBytes || ((answer[2] ?? 0) & answerBit) === 0) return false;
  if (answer[0] !== question[0] || answer[1] !== question[1]) return false;
  const end = questionEnd(question);
  // Servers that could not read the question (FORMERR) send none back.
  return (
    answer[5] === 0 ||
    end === undefined ||
    question.subarray(headerBytes, end).equals(answer.subarray(headerBytes, end))
  );
}

/** Where the only question ends; undefined when there is not exactly one plain question. */
function questionEnd(message: Buffer): number | undefined {
  if (message.readUInt16BE(4) !== 1) return undefined;
  let at = headerBytes;
  while (at < message.length) {
    const length = message[at] ?? 0;
    if (length === 0) return at + 5;
    if (length > 63) return undefined;
    at += length + 1;
  }
  return undefined;
}

function askUdp(question: Buffer, nameserver: string, port: number, signal: AbortSignal): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const socket = createSocket(isIPv6(nameserver) ? "udp6" : "udp4");
  const onAbort = (): void => reject(signal.reason as Error);
  signal.addEventListener("abort", onAbort, { once: true });
  socket.on("error", reject);
  socket.on("message", (answer) => {
    if (answers(answer, question)) resolve(answer);
  });
  socket.on("connect", () => socket.send(question));
  if (signal.aborted) onAbort();
  else socket.connect(port, nameserver);
  return promise.finally(() => {
    signal.removeEventListener("abort", onAbort);
    socket.close();
  });
}

function askTcp(question: Buffer, nameserver: string, port: number, signal: AbortSignal): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const socket = connect({ host: nameserver, port, noDelay: true });
  const chunks: Buffer[] = [];
  let received = 0;
  const onAbort = (): void => reject(signal.reason as Error);
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  socket.on("error", reject);
  socket.on("connect", () => {
    const length = Buffer.alloc(2);
    length.writeUInt16BE(question.length, 0);
    socket.write(Buffer.concat([length, question]));
  });
  socket.on("data", (chunk: Buffer) => {
    chunks.push(chunk);
    received += chunk.length;
    if (received < 2) return;
    const all = Buffer.concat(chunks);
    const length = all.readUInt16BE(0);
    if (all.length < 2 + length) return;
    const answer = all.subarray(2, 2 + length);
    if (answers(answer, question)) resolve(answer);
    else reject(new AppError("protocol", `nameserver ${nameserver} answered something else over TCP`));
  });
  socket.on("close", () => reject(new AppError("unreachable", `nameserver ${nameserver} closed the connection early`)));
  return promise.finally(() => {
    signal.removeEventListener("abort", onAbort);
    socket.destroy();
  });
}
