// One command in a container, through `pods/exec`: WebSocket, v5.channel.k8s.io (v4 where the server has no 5). Its
// output as a whole, or piece by piece to a reader that the command has to wait for.
// Channels: 0 stdin, 1 stdout, 2 stderr, 3 the outcome as a Status object; 255 closes a channel (v5 only).
import type { RawData, WebSocket } from "ws";
import { AppError } from "#base/error.ts";
import type { Kube } from "#kube/client.ts";
import { pods, resourcePath } from "#kube/objects.ts";
import { lostSocket, openWebSocket } from "./websocket.ts";
import type { OpenedWebSocket } from "./websocket.ts";

export interface ExecRequest {
  readonly namespace: string;
  readonly pod: string;
  readonly container: string;
  readonly command: readonly string[];
  readonly stdin?: Buffer;
  /** More output than this fails the call; default 16 MiB. */
  readonly maxOutputBytes?: number;
  /** Gets the output instead of the result, one piece after the other; without a bound of ours. */
  readonly onOutput?: (piece: Buffer) => void | Promise<void>;
  readonly signal: AbortSignal;
}

export interface ExecResult {
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  readonly exitCode: number;
}

const defaultOutputBytes = 16 * 1024 * 1024;
const stdinFrameBytes = 64 * 1024;
const channels = { stdin: 0, stdout: 1, stderr: 2, outcome: 3, close: 255 } as const;

export async function execInPod(kube: Kube, request: ExecRequest): Promise<ExecResult> {
  const { namespace, pod, container, command, stdin, signal } = request;
  const params = new URLSearchParams({ container, stdout: "true", stderr: "true" });
  if (stdin !== undefined) params.set("stdin", "true");
  for (const word of command) params.append("command", word);
  const opened = await openWebSocket(
    kube,
    {
      path: `${resourcePath(pods, namespace, pod)}/exec?${params.toString()}`,
      protocols: ["v5.channel.k8s.io", "v4.channel.k8s.io"],
      action: { verb: "get", group: "", resource: "pods", subresource: "exec", namespace, name: pod },
    },
    signal,
  );
  const { socket } = opened;
  try {
    const collecting = collect(socket, request, signal);
    collecting.catch(() => undefined); // a failing stdin is reported first; awaited below
    if (stdin !== undefined) await sendStdin(opened, stdin);
    return await collecting;
  } finally {
    socket.terminate();
  }
}

async function sendStdin({ socket, protocol }: OpenedWebSocket, stdin: Buffer): Promise<void> {
  for (let start = 0; start < stdin.length; start += stdinFrameBytes) {
    const frame = Buffer.concat([Buffer.from([channels.stdin]), stdin.subarray(start, start + stdinFrameBytes)]);
    await new Promise<void>((resolve) => socket.send(frame, { binary: true }, () => resolve()));
  }
  if (protocol === "v5.channel.k8s.io") socket.send(Buffer.from([channels.close, channels.stdin]));
}

function collect(socket: WebSocket, request: ExecRequest, signal: AbortSignal): Promise<ExecResult> {
  const what = `exec in ${request.namespace}/${request.pod} (${request.container})`;
  const limit = request.maxOutputBytes ?? defaultOutputBytes;
  const output: Record<number, Buffer[]> = { [channels.stdout]: [], [channels.stderr]: [] };
  const reader = new PieceReader(socket, request.onOutput);
  let bytes = 0;
  let outcome: string | undefined;
  return new Promise<ExecResult>((resolve, reject) => {
    reader.failed.catch((error: unknown) => fail(error as Error));
    const onAbort = (): void => fail(signal.reason as Error);
    const fail = (error: Error): void => {
      signal.removeEventListener("abort", onAbort);
      socket.terminate();
      const over = (): void => reject(error); // who has failed is not called, nor at work, afterwards
      reader.drained.then(over, over);
    };
    socket.binaryType = "nodebuffer";
    socket.on("error", (error) => fail(lostSocket(what, error)));
    socket.on("message", (data: RawData) => {
      const message = data as Buffer;
      const channel = message[0] ?? channels.close;
      const payload = message.subarray(1);
      if (channel === channels.outcome) outcome = payload.toString("utf8");
      else if (channel === channels.stdout && request.onOutput !== undefined) reader.push(payload);
      else if (output[channel] !== undefined) {
        bytes += payload.length;
        if (bytes > limit) fail(new AppError("protocol", `${what} gave more than ${limit} bytes of output`));
        else output[channel].push(payload);
      }
    });
    socket.on("close", () => {
      signal.removeEventListener("abort", onAbort);
      if (outcome === undefined) {
        reject(lostSocket(what));
        return;
      }
      const said = outcome;
      const join = (channel: number): Buffer => Buffer.concat(output[channel] ?? []);
      reader.drained
        .then(() => parseOutcome(what, said))
        .then((exitCode) => resolve({ stdout: join(channels.stdout), stderr: join(channels.stderr), exitCode }))
        .catch(reject);
    });
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    socket.resume();
  });
}

/** Hands pieces over one by one; the socket rests while one is being dealt with. */
class PieceReader {
  readonly #socket: WebSocket;
  readonly #take: NonNullable<ExecRequest["onOutput"]>;
  readonly #failure = Promise.withResolvers<never>();
  #last: Promise<void> = Promise.resolve();
  #waiting = 0;

  constructor(socket: WebSocket, take: ExecRequest["onOutput"]) {
    this.#socket = socket;
    this.#take = take ?? (() => undefined);
    this.#failure.promise.catch(() => undefined); // nobody may be waiting for it
  }

  /** Never resolves; rejects with what the taker threw. */
  get failed(): Promise<never> {
    return this.#failure.promise;
  }
  /** Resolves when every piece has been dealt with. */
  get drained(): Promise<void> {
    return this.#last;
  }

  push(piece: Buffer): void {
    if (this.#waiting++ === 0) this.#socket.pause();
    this.#last = this.#last.then(() => this.#take(piece));
    this.#last.then(
      () => {
        if (--this.#waiting === 0) this.#socket.resume();
      },
      (error: unknown) => this.#failure.reject(error as Error),
    );
  }
}

interface Outcome {
  readonly status?: string;
  readonly reason?: string;
  readonly message?: string;
  readonly details?: { readonly causes?: readonly { readonly reason?: string; readonly message?: string }[] };
}

/** The exit code out of the Status object; throws when the command could not be started. */
export function parseOutcome(what: string, text: string): number {
  let outcome: Outcome;
  try {
    outcome = JSON.parse(text) as Outcome;
  } catch (error) {
    throw new AppError("command_failed", `${what} failed: ${text.trim().slice(0, 500)}`, { cause: error });
  }
  if (outcome.status === "Success") return 0;
  const code = outcome.details?.causes?.find((cause) => cause.reason === "ExitCode")?.message;
  if (code !== undefined) return Number.parseInt(code, 10);
  throw new AppError("command_failed", `${what} failed: ${(outcome.message ?? outcome.reason ?? text).slice(0, 500)}`);
}
