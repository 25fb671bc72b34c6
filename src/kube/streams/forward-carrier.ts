// What carries the messages of a port-forward: a WebSocket, or a bare connection whose pieces are cut anywhere.
import type { Duplex } from "node:stream";
import type { RawData, WebSocket } from "ws";

/** protocol: the longest header of a WebSocket's frame, its mask included. */
const maxFrameHeaderBytes = 14;
const finalBinary = 0x82;
const masked = 0x80;

export interface CarrierEvents {
  readonly onMessage: (message: Buffer) => void;
  /** Once; without a reason when the server has ended it in order. */
  readonly onClose: (why: Error | undefined) => void;
}

export interface ForwardCarrier {
  readonly isOpen: boolean;
  /** What each message that is sent leaves free at its beginning. */
  readonly headerBytes: number;
  listen(events: CarrierEvents): void;
  /** `done` is called when the message's memory is free again. */
  send(message: Buffer, done: () => void): void;
  pause(): void;
  resume(): void;
  /** What was sent still goes out. */
  close(): void;
  destroy(): void;
}

export class WebSocketCarrier implements ForwardCarrier {
  readonly headerBytes = maxFrameHeaderBytes;
  readonly #socket: WebSocket;
  readonly #connection: Duplex | undefined;

  /** With the connection below it where frames need no mask. */
  constructor(socket: WebSocket, connection: Duplex | undefined) {
    this.#socket = socket;
    this.#connection = connection;
  }

  get isOpen(): boolean {
    return this.#socket.readyState === this.#socket.OPEN;
  }
  listen({ onMessage, onClose }: CarrierEvents): void {
    let failure: Error | undefined;
    this.#socket.binaryType = "nodebuffer";
    this.#socket.on("message", (data: RawData) => onMessage(data as Buffer));
    this.#socket.on("error", (error) => (failure = error));
    // 1006 is a cut line.
    this.#socket.on("close", (code) => onClose(code === 1006 ? (failure ?? new Error("cut")) : failure));
  }
  send(message: Buffer, done: () => void): void {
    // In two pieces, as the library has it, TLS would put them together in new memory first.
    if (this.#connection !== undefined && this.isOpen) this.#connection.write(frameInPlace(message), () => done());
    else this.#socket.send(message.subarray(maxFrameHeaderBytes), { binary: true }, () => done());
  }
  pause(): void {
    this.#socket.pause();
  }
  resume(): void {
    this.#socket.resume();
  }
  close(): void {
    this.#socket.close(1000);
  }
  destroy(): void {
    this.#socket.terminate();
  }
}

/** RFC 6455 §5.2: a final binary frame whose mask is all zero; its length in as few bytes as it fits into. */
function frameInPlace(message: Buffer): Buffer {
  const lengthBytes = message.length - maxFrameHeaderBytes;
  message.fill(0, 0, maxFrameHeaderBytes); // the mask with it
  if (lengthBytes < 126) return beginFrame(message.subarray(maxFrameHeaderBytes - 6), lengthBytes);
  if (lengthBytes < 65_536) {
    const frame = beginFrame(message.subarray(maxFrameHeaderBytes - 8), 126);
    frame.writeUInt16BE(lengthBytes, 2);
    return frame;
  }
  const frame = beginFrame(message, 127);
  frame.writeUIntBE(lengthBytes, 4, 6);
  return frame;
}

function beginFrame(frame: Buffer, shortLength: number): Buffer {
  frame[0] = finalBinary;
  frame[1] = masked + shortLength;
  return frame;
}

export class SocketCarrier implements ForwardCarrier {
  readonly headerBytes = 0;
  readonly #socket: Duplex;

  constructor(socket: Duplex) {
    this.#socket = socket;
  }

  get isOpen(): boolean {
    return this.#socket.writable;
  }
  listen({ onMessage, onClose }: CarrierEvents): void {
    let failure = new Error("the server closed the connection");
    this.#socket.on("data", onMessage);
    this.#socket.on("error", (error) => (failure = error));
    this.#socket.on("end", () => this.#socket.destroy());
    // SPDY ends its streams first: a connection that just ends was cut.
    this.#socket.on("close", () => onClose(failure));
  }
  send(message: Buffer, done: () => void): void {
    this.#socket.write(message, () => done());
  }
  pause(): void {
    this.#socket.pause();
  }
  resume(): void {
    this.#socket.resume();
  }
  close(): void {
    this.#socket.end();
  }
  destroy(): void {
    this.#socket.destroy();
  }
}
