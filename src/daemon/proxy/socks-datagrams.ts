// UDP ASSOCIATE (RFC 1928 §7): a socket on the loopback for one program's datagrams, as long as its TCP connection is
// open. Each target it names is a flow; flows and what waits for one to open are bounded, the rest is dropped.
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import type { Socket } from "node:net";
import { AppError } from "#base/error.ts";
import type { TunnelStream } from "#tunnel/tunnel.ts";
import { maxDatagramBytes } from "#wire/limits.ts";
import { isOwnDatagram, loopback } from "./listener.ts";
import type { ProxyOptions } from "./socks.ts";
import { datagramHeader, encodeReply, readDatagram, socksReplies } from "./socks-messages.ts";

/** chosen: targets of one program at once; the one that has been silent longest makes room. */
const maxFlows = 256;
/** chosen: datagrams that wait for a flow to open. */
const maxWaiting = 16;

interface Flow {
  readonly abort: AbortController;
  readonly waiting: Uint8Array[];
  stream: TunnelStream | undefined;
}

/** Answers the request, and takes the connection over. */
export async function relayDatagrams(control: Socket, options: ProxyOptions): Promise<void> {
  const socket = createSocket("udp4");
  socket.bind({ address: loopback, port: 0, exclusive: true });
  await once(socket, "listening");
  const relay = new Relay(socket, options);
  control.once("close", () => relay.close());
  control.once("end", () => control.end());
  control.resume(); // nothing more is said on it
  if (control.destroyed) relay.close();
  else control.write(encodeReply(socksReplies.succeeded, Uint8Array.of(127, 0, 0, 1), socket.address().port));
}

class Relay {
  readonly #socket: UdpSocket;
  readonly #options: ProxyOptions;
  /** In the order in which they were last used. */
  readonly #flows = new Map<string, Flow>();
  /** Where the program sends from: this user's first that comes, and then nobody else. */
  #program: RemoteInfo | undefined;
  #closed = false;

  constructor(socket: UdpSocket, options: ProxyOptions) {
    this.#socket = socket;
    this.#options = options;
    socket.on("message", (bytes, from) => {
      if (this.#program === undefined && isOwnDatagram(socket.address(), from, options.log)) this.#program = from;
      if (from.port === this.#program?.port && from.address === this.#program.address) this.#onDatagram(bytes);
    });
    socket.on("error", () => undefined); // one lost datagram
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const [key, flow] of this.#flows) this.#end(key, flow);
    this.#socket.close();
  }

  #onDatagram(bytes: Buffer): void {
    const request = readDatagram(bytes);
    if (request === undefined || request.payload.length > maxDatagramBytes) return;
    const { target, payload } = request;
    const key = `${target.host} ${target.port}`;
    const flow = this.#flows.get(key) ?? this.#begin(target, datagramHeader(bytes, payload), key);
    this.#flows.delete(key);
    this.#flows.set(key, flow);
    if (flow.stream !== undefined) flow.stream.sendDatagram(payload);
    else if (flow.waiting.length < maxWaiting) flow.waiting.push(payload);
  }

  #begin(target: { readonly host: string; readonly port: number }, header: Buffer, key: string): Flow {
    for (const [oldest, flow] of this.#flows) {
      if (this.#flows.size < maxFlows) break;
      this.#end(oldest, flow);
    }
    const flow: Flow = { abort: new AbortController(), waiting: [], stream: undefined };
    const { log, reach } = this.#options;
    reach.udp(target, flow.abort.signal).then(
      (stream) => this.#carry(flow, stream, { key, header }),
      (error: unknown) => {
        log.debug("a SOCKS5 flow failed", { target: key, error: String(error) });
        this.#forget(key, flow);
      },
    );
    return flow;
  }

  #carry(flow: Flow, stream: TunnelStream, { key, header }: { readonly key: string; readonly header: Buffer }): void {
    stream.on("error", () => undefined); // 'close' follows
    stream.once("end", () => stream.destroy());
    stream.once("close", () => this.#forget(key, flow));
    if (flow.abort.signal.aborted) {
      stream.destroy();
      return;
    }
    flow.stream = stream;
    stream.onDatagram((answer) => this.#answer(header, answer));
    stream.resume();
    for (const datagram of flow.waiting.splice(0)) stream.sendDatagram(datagram);
  }

  #answer(header: Buffer, payload: Uint8Array): void {
    if (this.#closed || this.#program === undefined) return;
    const { port, address } = this.#program;
    this.#socket.send(Buffer.concat([header, payload]), port, address, () => undefined);
  }

  #end(key: string, flow: Flow): void {
    flow.abort.abort(new AppError("cancelled", "the flow ended"));
    flow.stream?.destroy();
    this.#forget(key, flow);
  }
  #forget(key: string, flow: Flow): void {
    if (this.#flows.get(key) === flow) this.#flows.delete(key);
  }
}
