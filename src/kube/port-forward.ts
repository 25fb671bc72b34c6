// A byte stream to a port of a pod's loopback through the API server, inside a WebSocket. What the messages carry is the
// server's choice (pod-port-framing.ts). Ending our side ends the forward. A socket that dies closes the Duplex at once.
import { Duplex } from "node:stream";
import type { RawData, WebSocket } from "ws";
import { AppError, toAppError } from "#base/error.ts";
import type { Kube } from "./client.ts";
import { resourcePath, pods } from "./objects.ts";
import { ChannelFraming, channelProtocol, SpdyFraming, spdyProtocol } from "./pod-port-framing.ts";
import type { PodPortFraming } from "./pod-port-framing.ts";
import { lostSocket, openWebSocket } from "./websocket.ts";
import type { OpenedWebSocket } from "./websocket.ts";

export interface PortForwardTarget {
  readonly namespace: string;
  readonly pod: string;
  readonly port: number;
  readonly signal: AbortSignal;
}

/** Largest payload of a message; measured: 64–256 KiB are fastest, above that nothing is gained (DESIGN 10). */
const maxPayloadBytes = 256 * 1024;
/** Bytes handed to the socket but not yet to the kernel before the writer is braked. Chosen. */
const maxBufferedBytes = 1024 * 1024;
const readHighWaterBytes = 1024 * 1024;
/** Messages longer than this are written in memory that is used again. Chosen. */
const pooledBytes = 16 * 1024;
const maxSpares = 4;

/** Resolves when the API server has accepted the forward. That nobody listens in the pod comes as the stream's error. */
export async function openPortForward(kube: Kube, target: PortForwardTarget): Promise<Duplex> {
  const { namespace, pod, port, signal } = target;
  const opened = await openWebSocket(
    kube,
    {
      path: `${resourcePath(pods, namespace, pod)}/portforward?ports=${port}`,
      // A server that does not know the first hands the request on to the node, which knows the second.
      protocols: [spdyProtocol, channelProtocol],
      action: { verb: "get", group: "", resource: "pods", subresource: "portforward", namespace, name: pod },
    },
    signal,
  );
  return new PortForwardStream(opened, `port-forward to ${namespace}/${pod}:${port}`, port);
}

type Done = (error?: Error | null) => void;

class PortForwardStream extends Duplex {
  readonly #socket: WebSocket;
  readonly #what: string;
  readonly #framing: PodPortFraming;
  /** What waits for the forward to be ready, then for the socket to have taken enough. */
  #unsent: { readonly pieces: readonly Buffer[]; readonly done: Done } | undefined;
  #waiting: Done | undefined;
  #bufferedBytes = 0;
  readonly #spares: Buffer[] = [];

  constructor({ socket, protocol }: OpenedWebSocket, what: string, port: number) {
    super({
      allowHalfOpen: false,
      readableHighWaterMark: readHighWaterBytes,
      writableHighWaterMark: maxBufferedBytes,
      decodeStrings: true,
    });
    this.#socket = socket;
    this.#what = what;
    const events = {
      onReady: () => this.#sendUnsent(),
      onData: (piece: Buffer) => {
        if (!this.push(piece)) this.#socket.pause();
      },
      onEnd: () => {
        this.push(null);
        this.end();
      },
      onRefused: (said: string) => this.destroy(forwardError(what, said)),
      say: (bytes: Buffer) => this.#sendMessage(bytes, undefined),
    };
    this.#framing = protocol === spdyProtocol ? new SpdyFraming(port, events) : new ChannelFraming(port, events);
    socket.binaryType = "nodebuffer";
    socket.on("message", (data: RawData) => this.#onMessage(data as Buffer));
    socket.on("error", (error) => this.destroy(lostSocket(what, error)));
    socket.on("close", (code) => this.#onClose(code));
    socket.resume();
    this.#framing.start();
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    this.#send([chunk], done);
  }

  override _writev(chunks: { readonly chunk: Buffer; readonly encoding: BufferEncoding }[], done: Done): void {
    this.#send(
      chunks.map((item) => item.chunk),
      done,
    );
  }

  override _final(done: Done): void {
    this.#socket.close(1000);
    done();
  }

  override _destroy(error: Error | null, done: Done): void {
    this.#waiting = undefined;
    this.#unsent = undefined;
    this.#socket.terminate();
    done(error);
  }

  #send(pieces: readonly Buffer[], done: Done): void {
    if (this.#socket.readyState !== this.#socket.OPEN) {
      done(lostSocket(this.#what));
      return;
    }
    if (!this.#framing.isReady) {
      this.#unsent = { pieces, done };
      return;
    }
    const messages = new Gatherer(pieces);
    while (messages.leftBytes > 0) {
      const payloadBytes = Math.min(messages.leftBytes, maxPayloadBytes);
      const { headerBytes } = this.#framing;
      const memory = this.#take(headerBytes + payloadBytes);
      const message = memory.subarray(0, headerBytes + payloadBytes);
      this.#framing.writeHeader(message, payloadBytes);
      messages.copyTo(message, headerBytes);
      this.#sendMessage(message, memory);
    }
    if (this.#bufferedBytes < maxBufferedBytes) done();
    else this.#waiting = done;
  }

  #sendUnsent(): void {
    const unsent = this.#unsent;
    this.#unsent = undefined;
    if (unsent !== undefined) this.#send(unsent.pieces, unsent.done);
  }

  #sendMessage(message: Buffer, memory: Buffer | undefined): void {
    this.#bufferedBytes += message.length;
    this.#socket.send(message, { binary: true }, () => {
      if (memory !== undefined) this.#giveBack(memory);
      this.#onSent(message.length);
    });
  }

  /** So that a stream of bulk does not leave a quarter of a megabyte behind for each message. */
  #take(bytes: number): Buffer {
    if (bytes <= pooledBytes) return Buffer.allocUnsafe(bytes);
    return this.#spares.pop() ?? Buffer.allocUnsafeSlow(this.#framing.headerBytes + maxPayloadBytes);
  }

  #giveBack(memory: Buffer): void {
    if (memory.length > maxPayloadBytes && this.#spares.length < maxSpares) this.#spares.push(memory);
  }

  #onSent(bytes: number): void {
    this.#bufferedBytes -= bytes;
    const waiting = this.#waiting;
    if (waiting !== undefined && this.#bufferedBytes < maxBufferedBytes) {
      this.#waiting = undefined;
      waiting();
    }
  }

  #onMessage(message: Buffer): void {
    if (this.destroyed) return;
    try {
      this.#framing.onMessage(message);
    } catch (error) {
      this.destroy(toAppError(error));
    }
  }

  /** The server closes when the pod's side has ended; 1006 is a cut line. */
  #onClose(code: number): void {
    if (this.destroyed) return;
    if (code === 1006 && !this.writableFinished) this.destroy(lostSocket(this.#what));
    else {
      this.push(null);
      this.end();
    }
  }
}

/** Bytes of many pieces, taken in runs of any length. */
class Gatherer {
  readonly #pieces: readonly Buffer[];
  #index = 0;
  #offset = 0;
  leftBytes = 0;

  constructor(pieces: readonly Buffer[]) {
    this.#pieces = pieces;
    for (const piece of pieces) this.leftBytes += piece.length;
  }

  /** Fills `target` from `start` to its end. */
  copyTo(target: Buffer, start: number): void {
    let at = start;
    for (
      let piece = this.#pieces[this.#index];
      piece !== undefined && at < target.length;
      piece = this.#pieces[this.#index]
    ) {
      const copied = piece.copy(target, at, this.#offset);
      at += copied;
      this.#offset += copied;
      this.leftBytes -= copied;
      if (this.#offset < piece.length) return;
      this.#index += 1;
      this.#offset = 0;
    }
  }
}

/** The kubelet's words for a failed dial in the pod, as an error of ours. */
export function forwardError(what: string, said: string): AppError {
  const short = said.replace(/\s+/g, " ").trim().slice(0, 500);
  if (/connection refused/i.test(said)) {
    return new AppError("refused", `${what} was refused: nothing listens on that port in the pod`, {
      cause: new Error(short),
    });
  }
  if (/not found|not running|no running|container .* exited|sandbox/i.test(said)) {
    return new AppError("unreachable", `${what} failed: the pod is gone or not running (${short})`, {
      cause: new Error(short),
    });
  }
  return new AppError("unreachable", `${what} failed: ${short}`, { cause: new Error(short) });
}
