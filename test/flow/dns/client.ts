// A program's resolver: one question over UDP, or several over one TCP connection.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect } from "node:net";
import dnsPacket from "dns-packet";
import type { Dns } from "#daemon/dns/start.ts";
import { DnsFrames, frameMessage } from "#daemon/dns/tcp-frames.ts";

export const loopback = "127.0.0.1";

/** `edns`: the size that the program says it takes over UDP. */
export function query(name: string, type: dnsPacket.RecordType = "A", id = 4711, edns?: number): Buffer {
  const opt = { type: "OPT" as const, name: ".", extendedRcode: 0, ednsVersion: 0, flags: 0, flag_do: false };
  return dnsPacket.encode({
    type: "query",
    id,
    flags: dnsPacket.RECURSION_DESIRED,
    questions: [{ type, name }],
    additionals: edns === undefined ? [] : [{ ...opt, udpPayloadSize: edns, options: [] }],
  });
}

/** The library decodes the rcode's name too; its types do not say so. */
export const decode = (bytes: Buffer): dnsPacket.DecodedPacket & { readonly rcode: string } =>
  dnsPacket.decode(bytes) as dnsPacket.DecodedPacket & { readonly rcode: string };

export async function askUdp(dns: Dns, message: Uint8Array): Promise<Buffer> {
  const socket = createSocket("udp4");
  try {
    socket.send(message, dns.addresses[0]!.port, loopback);
    const [reply] = (await once(socket, "message")) as [Buffer];
    return reply;
  } finally {
    socket.close();
  }
}

export async function askTcp(dns: Dns, messages: readonly Uint8Array[], localPort = 0): Promise<Buffer[]> {
  const socket = connect({ port: dns.addresses[0]!.port, host: loopback, localPort });
  const frames = new DnsFrames();
  const replies: Buffer[] = [];
  for (const message of messages) {
    // The length in pieces, as networks do.
    const framed = frameMessage(message);
    socket.write(framed.subarray(0, 1));
    socket.write(framed.subarray(1));
  }
  socket.end();
  for await (const bytes of socket) replies.push(...frames.push(bytes as Buffer).map((frame) => Buffer.from(frame)));
  return replies;
}
