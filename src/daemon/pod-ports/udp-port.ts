// Datagrams to a port of a pod. A port-forward carries none, so each sender's flow goes through the manager's dialer to
// the pod's address: a server that listens on the pod's loopback alone is not reached. Bounded, and dropped beyond that.
import { createSocket, type RemoteInfo } from "node:dgram";
import { once } from "node:events";
import type { Logger } from "#base/log.ts";
import type { TunnelStream } from "#tunnel/tunnel.ts";
import type { Endpoint } from "#wire/open.ts";

export interface UdpPortOptions {
  readonly dial: () => Promise<TunnelStream>;
  readonly log: Logger;
}

interface Flow {
  stream: TunnelStream | undefined;
  /** Until it is open. */
  waiting: Buffer[];
}

/** chosen: senders at once; the manager ends a flow that is silent for a minute. */
const maxFlows = 256;
/** chosen: datagrams that wait for a flow to open. */
const maxWaiting = 16;

/** Rejects with the system's error where the port cannot be had. */
export async function listenUdp(at: Endpoint, { dial, log }: UdpPortOptions): Promise<AsyncDisposable> {
  const socket = createSocket("udp4");
  const flows = new Map<string, Flow>();
  let closed = false;
  const { port } = at;
  socket.bind({ ...at, exclusive: true });
  await once(socket, "listening");
  socket.on("error", (error) => log.info("a datagram could not be sent", { port, error: error.message }));
  socket.on("message", (datagram, sender) => {
    const key = `${sender.address}:${sender.port}`;
    const flow = flows.get(key);
    if (flow?.stream !== undefined) flow.stream.sendDatagram(datagram);
    else if (flow !== undefined) {
      if (flow.waiting.length < maxWaiting) flow.waiting.push(datagram);
    } else if (flows.size < maxFlows) {
      const opening: Flow = { stream: undefined, waiting: [datagram] };
      flows.set(key, opening);
      const over = (): void => void flows.delete(key);
      dial().then(
        (stream) => {
          if (closed) stream.destroy();
          else carry(stream, opening, { answer: (bytes) => reply(bytes, sender), over });
        },
        (error: unknown) => {
          log.info("a port of the pod could not be reached", { port, error: String(error) });
          over();
        },
      );
    }
  });
  const reply = (bytes: Uint8Array, { port: to, address }: RemoteInfo): void => {
    if (!closed) socket.send(Buffer.from(bytes), to, address, () => undefined); // lost like any datagram
  };
  return {
    [Symbol.asyncDispose]: async () => {
      closed = true;
      for (const { stream } of flows.values()) stream?.destroy();
      socket.close();
      await once(socket, "close");
    },
  };
}

function carry(
  stream: TunnelStream,
  flow: Flow,
  { answer, over }: { readonly answer: (bytes: Uint8Array) => void; readonly over: () => void },
): void {
  stream.on("error", () => undefined); // 'close' follows
  stream.once("end", () => stream.destroy());
  stream.once("close", over);
  stream.onDatagram(answer);
  stream.resume();
  flow.stream = stream;
  for (const datagram of flow.waiting) stream.sendDatagram(datagram);
  flow.waiting = [];
}
