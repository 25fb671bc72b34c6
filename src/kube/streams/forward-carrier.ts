// What carries the messages of a port-forward: a WebSocket, or a bare connection whose pieces are cut anywhere.
import type { Duplex } from "node:stream";
import type { RawData, WebSocket } from "ws";

export interface CarrierEvents {
  readonly onMessage: (message: Buffer) => void;
  /** Once; without a reason when the server has ended it in order. */
  readonly onClose: (why: Error | undefined) => void;
}

export interface ForwardCarrier {
  readonly isOpen: boolean;
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
  readonly #socket: WebSocket;

  constructor(socket: WebSocket) {
    this.#socket = socket;
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
    this.#socket.send(message, { binary: true }, () => done());
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

export class SocketCarrier implements ForwardCarrier {
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
