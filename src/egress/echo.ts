// One program's echo requests to one target, asked from this pod: an answer is the target's own or there is none.
// @from egress/accept.ts
import { createSocket } from "node:dgram";
import type { Socket } from "node:dgram";
import { once } from "node:events";
import { isIPv6 } from "node:net";
import { openPingSocket } from "#kernel/ping-socket.ts";
import { formatAddress, parseAddress } from "#packet/address.ts";
import type { Endpoint } from "#wire/open.ts";
import { translateSocketError } from "./dial.ts";
import type { Carried } from "./udp-flow.ts";

const requestTypes = { 4: 8, 6: 128 } as const;
const replyTypes = { 4: 0, 6: 129 } as const;
const headerBytes = 8;
/** Of the header: what a datagram of the stream begins with (PROTOCOL §5.5). */
const sequenceOffset = 6;
/** Node wants one; echo has none. */
const anyPort = 1;

/** A socket whose requests go to the target only. Throws `denied` where this pod may have none. */
export async function connectEcho({ address }: Endpoint): Promise<Socket> {
  const isSix = isIPv6(address);
  const fd = openPingSocket(isSix ? 6 : 4);
  const socket = createSocket(isSix ? "udp6" : "udp4");
  try {
    const listening = once(socket, "listening"); // of a descriptor it comes before bind() returns
    socket.bind({ fd });
    await listening;
    socket.connect(anyPort, address);
    await once(socket, "connect");
    return socket;
  } catch (error) {
    socket.close();
    throw translateSocketError(error as NodeJS.ErrnoException, address);
  }
}

/** The kernel gives such a socket every answer with its identifier, whoever sent it: others' are left out. */
export function carryEcho({ address }: Endpoint): Carried {
  const version = isIPv6(address) ? 6 : 4;
  const target = canonical(address);
  return {
    toSocket: (datagram) => {
      const message = Buffer.alloc(sequenceOffset + datagram.length);
      message[0] = requestTypes[version];
      message.set(datagram, sequenceOffset);
      return message.length < headerBytes ? undefined : message;
    },
    toStream: (message, from) =>
      message.length >= headerBytes && message[0] === replyTypes[version] && canonical(from) === target
        ? message.subarray(sequenceOffset)
        : undefined,
  };
}

function canonical(address: string): string | undefined {
  const bytes = parseAddress(address);
  return bytes === undefined ? undefined : formatAddress(bytes);
}
