// A byte stream to a port of a pod's loopback through the API server: WebSocket, subprotocol v4.channel.k8s.io.
// Per port two channels: 0 data, 1 error; the first message of each carries the port number (2 bytes) and no data.
// The protocol has no half-close: ending our side ends the forward. A socket that dies closes the Duplex at once.
import { Duplex } from "node:stream";
import type { RawData, WebSocket } from "ws";
import { AppError } from "#base/error.ts";
import type { Kube } from "./client.ts";
import { resourcePath, pods } from "./objects.ts";
import { lostSocket, openWebSocket } from "./websocket.ts";

export interface PortForwardTarget {
  readonly namespace: string;
  readonly pod: string;
  readonly port: number;
  readonly signal: AbortSignal;
}

/** Largest frame that we send; measured: 64–256 KiB are fastest, above that nothing is gained (DESIGN 10). */
const maxFrameBytes = 256 * 1024;
/** Bytes handed to the socket but not yet to the kernel before the writer is braked. Chosen. */
const maxBufferedBytes = 1024 * 1024;
const readHighWaterBytes = 1024 * 1024;

const dataChannel = 0;
const errorChannel = 1;

/** Resolves when the API server has accepted the forward. That nobody listens in the pod comes as the stream's error. */
export async function openPortForward(kube: Kube, target: PortForwardTarget): Promise<Duplex> {
  const { namespace, pod, port, signal } = target;
  const socket = await openWebSocket(
    kube,
    {
      path: `${resourcePath(pods, namespace, pod)}/portforward?ports=${port}`,
      protocols: ["v4.channel.k8s.io"],
      action: { verb: "get", group: "", resource: "pods", subresource: "portforward", namespace, name: pod },
    },
    signal,
  );
  return new PortForwardStream(socket, `port-forward to ${namespace}/${pod}:${port}`, port);
}

class PortForwardStream extends Duplex {
  readonly #socket: WebSocket;
  readonly #what: string;
  readonly #port: number;
  /** Channels whose opening message (the port number) has been taken. */
  readonly #opened = new Set<number>();
  #waiting: (() => void) | undefined;
  #bufferedBytes = 0;

  constructor(socket: WebSocket, what: string, port: number) {
    super({
      allowHalfOpen: false,
      readableHighWaterMark: readHighWaterBytes,
      writableHighWaterMark: maxBufferedBytes,
      decodeStrings: true,
    });
    this.#socket = socket;
    this.#what = what;
    this.#port = port;
    socket.binaryType = "nodebuffer";
    socket.on("message", (data: RawData) => this.#onMessage(data as Buffer));
    socket.on("error", (error) => this.destroy(lostSocket(what, error)));
    socket.on("close", (code) => this.#onClose(code));
    socket.resume();
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.#send(chunk, callback);
  }

  override _writev(
    chunks: { readonly chunk: Buffer; readonly encoding: BufferEncoding }[],
    callback: (error?: Error | null) => void,
  ): void {
    this.#send(
      chunks.length === 1 ? (chunks[0]?.chunk ?? Buffer.alloc(0)) : Buffer.concat(chunks.map((item) => item.chunk)),
      callback,
    );
  }

  override _final(callback: (error?: Error | null) => void): void {
    this.#socket.close(1000);
    callback();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#waiting = undefined;
    this.#socket.terminate();
    callback(error);
  }

  #send(bytes: Buffer, callback: (error?: Error | null) => void): void {
    if (this.#socket.readyState !== this.#socket.OPEN) {
      callback(lostSocket(this.#what));
      return;
    }
    const lastStart = Math.max(0, Math.ceil(bytes.length / maxFrameBytes) - 1) * maxFrameBytes;
    for (let start = 0; start < bytes.length; start += maxFrameBytes) {
      const part = bytes.subarray(start, start + maxFrameBytes);
      const frame = Buffer.allocUnsafe(part.length + 1);
      frame[0] = dataChannel;
      part.copy(frame, 1);
      this.#bufferedBytes += frame.length;
      this.#socket.send(frame, { binary: true }, () => this.#onSent(frame.length));
      if (start === lastStart) this.#continueWhenDrained(callback);
    }
    if (bytes.length === 0) callback();
  }

  #continueWhenDrained(callback: () => void): void {
    if (this.#bufferedBytes < maxBufferedBytes) callback();
    else this.#waiting = callback;
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
    const channel = message[0];
    if (channel === undefined) return;
    const payload = message.subarray(1);
    if (!this.#opened.has(channel)) {
      this.#opened.add(channel);
      const port = payload.length >= 2 ? payload.readUInt16LE(0) : -1;
      if (port !== this.#port) this.destroy(new AppError("protocol", `${this.#what} answered for port ${port}`));
      return;
    }
    if (channel === errorChannel) {
      if (payload.length > 0) this.destroy(forwardError(this.#what, payload.toString("utf8")));
    } else if (channel === dataChannel && payload.length > 0 && !this.push(payload)) this.#socket.pause();
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
