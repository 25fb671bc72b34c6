// What the bytes of a port-forward are wrapped in, below them a WebSocket or any other ordered messages:
//   channels (v4.channel.k8s.io): the node itself ends the WebSocket. A byte for the channel, 0 data, 1 error; the first
//     message of each carries the port number and no data. Costs the node ten times the processor time on the way up.
//   SPDY (SPDY/3.1+portforward.k8s.io, from Kubernetes 1.31): the API server ends the WebSocket, and the messages are a
//     SPDY connection to the node, cut anywhere. One stream for data, one for what went wrong.
import { AppError } from "#base/error.ts";
import { encodeDataHeader, encodeOpenings, encodeReset, spdyHeaderBytes, SpdyReader } from "./spdy.ts";

export const channelProtocol = "v4.channel.k8s.io";
export const spdyProtocol = "SPDY/3.1+portforward.k8s.io";

export interface FramingEvents {
  /** From now on bytes may be sent. */
  readonly onReady: () => void;
  readonly onData: (piece: Buffer) => void;
  /** The pod's side sends nothing more; why follows, or `onEnd`. */
  readonly onEnding: () => void;
  /** The pod's side has ended. */
  readonly onEnd: () => void;
  /** The node's words for what went wrong. */
  readonly onRefused: (said: string) => void;
  readonly say: (bytes: Buffer) => void;
}

export interface PodPortFraming {
  readonly isReady: boolean;
  readonly headerBytes: number;
  start(): void;
  /** What stands before so many bytes. */
  writeHeader(target: Buffer, payloadBytes: number): void;
  /** Throws `protocol`. */
  onMessage(message: Buffer): void;
  /** After `onEnding`: nothing more will follow. */
  conclude(): void;
}

const dataChannel = 0;
const errorChannel = 1;

export class ChannelFraming implements PodPortFraming {
  readonly isReady = true;
  readonly headerBytes = 1;
  readonly #port: number;
  readonly #events: FramingEvents;
  /** Channels whose opening message (the port number) has been taken. */
  readonly #opened = new Set<number>();

  constructor(port: number, events: FramingEvents) {
    this.#port = port;
    this.#events = events;
  }

  start(): void {
    // the request named the port
  }

  writeHeader(target: Buffer): void {
    target[0] = dataChannel;
  }

  conclude(): void {
    this.#events.onEnd();
  }

  onMessage(message: Buffer): void {
    const channel = message[0];
    if (channel === undefined) return;
    const payload = message.subarray(1);
    if (!this.#opened.has(channel)) {
      this.#opened.add(channel);
      const port = payload.length >= 2 ? payload.readUInt16LE(0) : -1;
      if (port !== this.#port)
        throw new AppError("protocol", `a forward to port ${this.#port} was answered for ${port}`);
    } else if (payload.length > 0) {
      if (channel === errorChannel) this.#events.onRefused(payload.toString("utf8"));
      else if (channel === dataChannel) this.#events.onData(payload);
    }
  }
}

const errorStream = 1;
const dataStream = 3;
/** Of the node's words; far above what they are. Chosen. */
const maxErrorBytes = 16 * 1024;

export class SpdyFraming implements PodPortFraming {
  readonly headerBytes = spdyHeaderBytes;
  readonly #port: number;
  readonly #events: FramingEvents;
  readonly #reader: SpdyReader;
  #isReady = false;
  #said = "";
  readonly #left = new Set([errorStream, dataStream]);

  constructor(port: number, events: FramingEvents) {
    this.#port = port;
    this.#events = events;
    this.#reader = new SpdyReader({
      onReply: (id) => this.#onReply(id),
      onData: (id, piece) => {
        if (id === dataStream) events.onData(piece);
        else if (this.#said.length < maxErrorBytes) this.#said += piece.toString("utf8");
      },
      onEnd: (id) => this.#onEnd(id),
      onReset: (id) => this.#onReset(id),
      onPing: (frame) => events.say(frame),
    });
  }

  get isReady(): boolean {
    return this.#isReady;
  }

  start(): void {
    const headers = { port: String(this.#port), requestid: "0" };
    this.#events.say(
      encodeOpenings([
        { id: errorStream, headers: { ...headers, streamtype: "error" } },
        { id: dataStream, headers: { ...headers, streamtype: "data" } },
      ]),
    );
  }

  writeHeader(target: Buffer, payloadBytes: number): void {
    encodeDataHeader(target, dataStream, payloadBytes);
  }

  onMessage(message: Buffer): void {
    this.#reader.push(message);
  }

  /** What is sent before that is dropped by the node. */
  #onReply(id: number): void {
    if (id !== dataStream || this.#isReady) return;
    this.#isReady = true;
    this.#events.onReady();
  }

  /** Runtimes end the data before they say why, and may say it only when we have let go of the data as well. */
  #onEnd(id: number): void {
    this.#left.delete(id);
    if (!this.#left.has(errorStream) && (this.#said !== "" || this.#left.size === 0)) this.conclude();
    else if (id === dataStream) {
      this.#events.say(encodeReset(dataStream));
      this.#events.onEnding();
    }
  }

  #onReset(id: number): void {
    if (id !== dataStream) this.#onEnd(id);
    else this.#events.onRefused(this.#said === "" ? "the node gave the connection up" : this.#said);
  }

  conclude(): void {
    if (this.#said === "") this.#events.onEnd();
    else this.#events.onRefused(this.#said);
  }
}
