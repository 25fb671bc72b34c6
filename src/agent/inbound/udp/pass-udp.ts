// The application's end of a caller's datagrams that no laptop takes. Nobody answers for a UDP port that somebody
// listens, but ICMP says that nobody does: then the next of its addresses is asked, with what has had no answer.
// @from agent/inbound/udp/capture-udp.ts
import type { Socket } from "node:dgram";
import { AppError } from "#base/error.ts";
import { connectUdp } from "#egress/udp-flow.ts";
import type { AppAddresses } from "#agent/inbound/app-addresses.ts";
import type { Unanswered } from "./unanswered.ts";

/** chosen: a refusal of the pod's own kernel comes within this time, or is of another datagram. */
const refusalMs = 250;
/** chosen: bytes in a socket's send queue before datagrams are dropped. */
export const maxSendQueueBytes = 1024 * 1024;

export interface PassUdpOptions {
  readonly addresses: AppAddresses;
  /** An address of the pod of the caller's family, if it has one. */
  readonly reached: string | undefined;
  readonly containerPort: number;
  readonly unanswered: Unanswered;
  readonly onAnswer: (datagram: Uint8Array) => void;
  /** The application listens nowhere, or does not any more. */
  readonly onEnd: (reason: string) => void;
}

export class PassedUdp {
  readonly #options: PassUdpOptions;
  readonly #left: string[];
  /** Undefined while an address is tried, and at the end. */
  #socket: Socket | undefined;
  #hasAnswered = false;
  #isClosed = false;

  private constructor(options: PassUdpOptions) {
    this.#options = options;
    this.#left = [...options.addresses.candidates(options.reached)];
  }

  /** Rejects when no address can be sent to. */
  static async open(options: PassUdpOptions): Promise<PassedUdp> {
    const passed = new PassedUdp(options);
    await passed.#next();
    return passed;
  }

  send(datagram: Uint8Array): void {
    const { unanswered } = this.#options;
    if (!this.#hasAnswered) unanswered.add(datagram);
    const socket = this.#socket;
    if (socket === undefined || socket.getSendQueueSize() > maxSendQueueBytes) return;
    // The kernel tells a refusal once: to what reads, or to what sends next. Others are lost like any datagram.
    socket.send(datagram, (error) => {
      if ((error as NodeJS.ErrnoException | null)?.code === "ECONNREFUSED") this.#failed(socket);
    });
  }

  close(): void {
    this.#isClosed = true;
    this.#socket?.close();
    this.#socket = undefined;
  }

  async #next(): Promise<void> {
    const { containerPort, addresses, unanswered, onAnswer } = this.#options;
    const address = this.#left.shift();
    if (address === undefined) throw new AppError("refused", this.#refusedText);
    const socket = await connectUdp({ address, port: containerPort }).catch(() => undefined);
    if (socket === undefined) {
      await this.#next(); // a pod without that family
      return;
    }
    if (this.#isClosed) {
      socket.close();
      return;
    }
    socket.on("message", (datagram) => {
      // Later answers say nothing of where the application would be found now: the other addresses were not asked.
      if (!this.#hasAnswered) addresses.answered(address);
      this.#hasAnswered = true;
      unanswered.forget();
      onAnswer(datagram);
    });
    socket.on("error", () => this.#failed(socket));
    this.#socket = socket;
  }

  #failed(socket: Socket): void {
    if (this.#socket !== socket) return; // told twice
    this.#socket = undefined;
    socket.close();
    if (this.#hasAnswered) this.#options.onEnd(this.#refusedText);
    else void this.#again();
  }

  async #again(): Promise<void> {
    try {
      await this.#next();
      for (const datagram of this.#options.unanswered.take(refusalMs)) this.send(datagram);
    } catch {
      this.#options.onEnd(this.#refusedText);
    }
  }

  get #refusedText(): string {
    return `the application does not listen on UDP port ${this.#options.containerPort}`;
  }
}
