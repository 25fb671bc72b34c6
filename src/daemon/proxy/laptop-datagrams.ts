// A UDP flow from this laptop in the shape of one of the session's: whoever has it need not know which it is.
import { createSocket, type Socket } from "node:dgram";
import { Duplex } from "node:stream";
import { resetReasonOf } from "#tunnel/stream.ts";
import type { TunnelStream } from "#tunnel/tunnel.ts";
import { AppError } from "#base/error.ts";
import { formatEndpoint, type Endpoint, type OpenRequest } from "#wire/open.ts";

/** chosen: what may wait in a socket; then datagrams are dropped, as on any wire. */
const maxQueuedBytes = 1024 * 1024;

/** A connected socket, so that only the target's own answers come. */
export function openLaptopDatagrams(target: Endpoint, signal: AbortSignal): Promise<TunnelStream> {
  const socket = createSocket(target.address.includes(":") ? "udp6" : "udp4");
  return new Promise((resolve, reject) => {
    const fail = (error: Error): void => {
      signal.removeEventListener("abort", giveUp);
      socket.close();
      reject(signal.aborted ? (signal.reason as Error) : asRefusal(error, target));
    };
    const giveUp = (): void => fail(signal.reason as Error);
    // 'connect' comes only without an error, unlike the callback of `connect`.
    socket.once("error", fail);
    socket.once("connect", () => {
      signal.removeEventListener("abort", giveUp);
      socket.off("error", fail);
      resolve(new LaptopDatagrams(socket, target));
    });
    if (signal.aborted) {
      giveUp();
      return;
    }
    signal.addEventListener("abort", giveUp, { once: true });
    socket.connect(target.port, target.address);
  });
}

class LaptopDatagrams extends Duplex implements TunnelStream {
  readonly id = 0;
  readonly request: OpenRequest;
  readonly #socket: Socket;
  #handler: ((datagram: Uint8Array) => void) | undefined;

  constructor(socket: Socket, target: Endpoint) {
    super({ read: () => undefined, write: (_chunk, _encoding, done) => done() });
    this.#socket = socket;
    this.request = { kind: "udp", target };
    socket.on("message", (datagram) => this.#handler?.(datagram));
    socket.on("error", (error) => this.destroy(asRefusal(error, target)));
  }

  sendDatagram(datagram: Uint8Array): boolean {
    if (this.destroyed || this.#socket.getSendQueueSize() > maxQueuedBytes) return false;
    this.#socket.send(datagram, (error) => {
      if (error !== null) this.#onSendError(error);
    });
    return true;
  }
  onDatagram(handler: (datagram: Uint8Array) => void): void {
    this.#handler = handler;
  }

  /** A refusal that came back by ICMP is told here, too; anything else is one lost datagram. */
  #onSendError(error: Error): void {
    if ((error as NodeJS.ErrnoException).code === "ECONNREFUSED") {
      this.destroy(new AppError("refused", error.message, { cause: error }));
    }
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#socket.close();
    callback(error);
  }
}

function asRefusal(error: Error, target: Endpoint): AppError {
  return new AppError(resetReasonOf(error), `${formatEndpoint(target)}: ${error.message}`, { cause: error });
}
