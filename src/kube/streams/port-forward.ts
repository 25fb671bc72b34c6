// A byte stream to a port of a pod's loopback through the API server, inside a WebSocket or, where that is not granted,
// on a connection that was changed to SPDY. What the messages carry is the server's choice (pod-port-framing.ts). Ending our side ends the forward. A socket that dies closes the Duplex at once.
import { Duplex } from "node:stream";
import type { Timer } from "#base/clock.ts";
import { toAppError } from "#base/error.ts";
import type { Kube } from "#kube/client.ts";
import { SocketCarrier, WebSocketCarrier } from "./forward-carrier.ts";
import type { ForwardCarrier } from "./forward-carrier.ts";
import { forwardError } from "./forward-error.ts";
import { resourcePath, pods } from "#kube/objects.ts";
import { ChannelFraming, channelProtocol, SpdyFraming, spdyProtocol } from "./pod-port-framing.ts";
import type { PodPortFraming } from "./pod-port-framing.ts";
import type { KubeAction } from "#kube/status.ts";
import { chooseWay } from "./streaming-way.ts";
import { openSpdySocket } from "./upgrade.ts";
import { lostSocket, openWebSocket } from "./websocket.ts";

export interface PortForwardTarget {
  readonly namespace: string;
  readonly pod: string;
  readonly port: number;
  readonly signal: AbortSignal;
}

/** Largest payload of a message, so that a session's batch leaves without a small message behind it. Chosen. */
const maxPayloadBytes = 320 * 1024;
/** Bytes handed to the socket but not yet to the kernel before the writer is braked. Chosen. */
const maxBufferedBytes = 1024 * 1024;
const readHighWaterBytes = 1024 * 1024;
/** Messages longer than this are written in memory that is used again. Chosen. */
const pooledBytes = 16 * 1024;
const maxSpares = 4;
/** Chosen: why it ended follows the end at once, if there is a reason. */
const reasonMs = 1000;

/**
 * Resolves when the API server has accepted the forward. That nobody listens in the pod comes as the stream's error.
 * Without a WebSocket where that is refused: it is a GET and asks for the verb `get`, the older POST for `create`
 * (servers from 1.35 on are said to ask for `create` always).
 */
export function openPortForward(kube: Kube, target: PortForwardTarget): Promise<Duplex> {
  return chooseWay(kube, forwardAction(target.namespace, target.pod), {
    webSocket: () => openByWebSocket(kube, target),
    spdy: () => openBySpdy(kube, target),
  });
}

/** How an open one gets to the API server, for people. */
export function forwardProtocol(stream: Duplex): "WebSocket" | "SPDY" {
  return stream instanceof PortForwardStream && stream.isBare ? "SPDY" : "WebSocket";
}

/** Asks the server whether one of the two ways is open to us. */
export async function mayForward(kube: Kube, namespace: string, signal: AbortSignal): Promise<boolean> {
  const action = forwardAction(namespace);
  return (await kube.can(action, signal)) || (await kube.can({ ...action, verb: "create" }, signal));
}

function forwardAction(namespace: string, name?: string): KubeAction {
  return { verb: "get", group: "", resource: "pods", subresource: "portforward", namespace, name };
}

async function openByWebSocket(kube: Kube, target: PortForwardTarget): Promise<Duplex> {
  const { namespace, pod, port, signal } = target;
  const { socket, protocol, connection } = await openWebSocket(
    kube,
    {
      path: `${resourcePath(pods, namespace, pod)}/portforward?ports=${port}`,
      // A server that does not know the first hands the request on to the node, which knows the second.
      protocols: [spdyProtocol, channelProtocol],
      action: forwardAction(namespace, pod),
    },
    signal,
  );
  return new PortForwardStream(kube, { ...target, carrier: new WebSocketCarrier(socket, connection), protocol });
}

async function openBySpdy(kube: Kube, target: PortForwardTarget): Promise<Duplex> {
  const { namespace, pod, signal } = target;
  const action = { ...forwardAction(namespace, pod), verb: "create" };
  const path = `${resourcePath(pods, namespace, pod)}/portforward`;
  const socket = await openSpdySocket(kube, { path, protocols: ["portforward.k8s.io"], action }, signal);
  return new PortForwardStream(kube, { ...target, carrier: new SocketCarrier(socket), protocol: spdyProtocol });
}

type Done = (error?: Error | null) => void;

interface Opened extends PortForwardTarget {
  readonly carrier: ForwardCarrier;
  readonly protocol: string;
}

class PortForwardStream extends Duplex {
  readonly #carrier: ForwardCarrier;
  readonly #what: string;
  readonly #framing: PodPortFraming;
  /** What waits for the forward to be ready, then for the socket to have taken enough. */
  #unsent: { readonly pieces: readonly Buffer[]; readonly done: Done } | undefined;
  #waiting: Done | undefined;
  #bufferedBytes = 0;
  readonly #spares: Buffer[] = [];
  /** No WebSocket is below. */
  readonly isBare: boolean;
  /** Runs when the data has ended and why may still follow. */
  #ending: Timer | undefined;

  constructor({ clock }: Kube, { carrier, protocol, namespace, pod, port }: Opened) {
    super({
      allowHalfOpen: false,
      readableHighWaterMark: readHighWaterBytes,
      writableHighWaterMark: maxBufferedBytes,
      decodeStrings: true,
    });
    this.#carrier = carrier;
    this.isBare = carrier instanceof SocketCarrier;
    const what = `port-forward to ${namespace}/${pod}:${port}`;
    this.#what = what;
    const events = {
      onReady: () => this.#sendUnsent(),
      onData: (piece: Buffer) => {
        if (!this.push(piece)) carrier.pause();
      },
      onEnding: () => (this.#ending ??= clock.after(reasonMs, () => this.#framing.conclude())),
      onEnd: () => this.#finish(),
      onRefused: (said: string) => this.destroy(forwardError(what, said)),
      say: (bytes: Buffer) => this.#sendMessage(Buffer.concat([Buffer.alloc(carrier.headerBytes), bytes]), undefined),
    };
    this.#framing = protocol === spdyProtocol ? new SpdyFraming(port, events) : new ChannelFraming(port, events);
    carrier.listen({
      onMessage: (message) => this.#onMessage(message),
      onClose: (why) => this.#onClose(why),
    });
    carrier.resume();
    this.#framing.start();
  }

  override _read(): void {
    this.#carrier.resume();
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
    this.#carrier.close();
    done();
  }

  override _destroy(error: Error | null, done: Done): void {
    this.#waiting = undefined;
    this.#unsent = undefined;
    this.#ending?.[Symbol.dispose]();
    this.#carrier.destroy();
    done(error);
  }

  #send(pieces: readonly Buffer[], done: Done): void {
    if (!this.#carrier.isOpen) {
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
      const headerBytes = this.#headerBytes;
      const memory = this.#take(headerBytes + payloadBytes);
      const message = memory.subarray(0, headerBytes + payloadBytes);
      this.#framing.writeHeader(message.subarray(this.#carrier.headerBytes), payloadBytes);
      messages.copyTo(message, headerBytes);
      this.#sendMessage(message, memory);
    }
    if (this.#bufferedBytes < maxBufferedBytes) done();
    else this.#waiting = done;
  }

  /** Before each message's payload. */
  get #headerBytes(): number {
    return this.#carrier.headerBytes + this.#framing.headerBytes;
  }

  #sendUnsent(): void {
    const unsent = this.#unsent;
    this.#unsent = undefined;
    if (unsent !== undefined) this.#send(unsent.pieces, unsent.done);
  }

  #sendMessage(message: Buffer, memory: Buffer | undefined): void {
    this.#bufferedBytes += message.length;
    this.#carrier.send(message, () => {
      if (memory !== undefined) this.#giveBack(memory);
      this.#onSent(message.length);
    });
  }

  /** So that a stream of bulk does not leave a quarter of a megabyte behind for each message. */
  #take(bytes: number): Buffer {
    if (bytes <= pooledBytes) return Buffer.allocUnsafe(bytes);
    return this.#spares.pop() ?? Buffer.allocUnsafeSlow(this.#headerBytes + maxPayloadBytes);
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

  /** `why` unless the server has ended it in order. */
  #onClose(why: Error | undefined): void {
    if (this.destroyed) return;
    if (this.#ending !== undefined) this.#framing.conclude();
    else if (why === undefined || this.writableFinished) this.#finish();
    else this.destroy(lostSocket(this.#what, why));
  }

  #finish(): void {
    this.#ending?.[Symbol.dispose]();
    if (this.destroyed || this.readableEnded) return;
    this.push(null);
    this.end();
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
