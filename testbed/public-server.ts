// The world outside, in the router's namespace: a DNS server for a handful of public names (layout.ts), over UDP and
// TCP, and a web server on their address. It remembers what was asked, so that a test can prove which names of the
// cluster never left the laptop: http://203.0.113.10/queries.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { createServer as createTcpServer, type Socket } from "node:net";
import { AUTHORITATIVE_ANSWER, decode, encode, RECURSION_AVAILABLE, RECURSION_DESIRED, type Packet } from "dns-packet";
import { hostname } from "node:os";
import { laptopNumbers, laptopWire, nodeWire, publicNames, publicWebAddress } from "./layout.ts";

const noSuchName = 3;
const ttlSeconds = 30;
const maxQueries = 10_000;
const dnsPort = 53;
const webPort = 80;

/** sudo looks up the machine's own name, and complains where it has none. */
const ownName = hostname().toLowerCase();
const ownAddress = "127.0.1.1";

const queries: { readonly name: string; readonly type: string; readonly from: string }[] = [];

/** The answer to a query, or undefined for what is not one. */
export function answerDns(message: Uint8Array, from: string): Uint8Array | undefined {
  const query = decodeQuery(message);
  const [question] = query?.questions ?? [];
  if (query === undefined || question === undefined) return undefined;
  const name = question.name.toLowerCase();
  remember({ name, type: question.type, from });
  const address = name === ownName ? ownAddress : publicNames[name];
  const flags = ((query.flags ?? 0) & RECURSION_DESIRED) | RECURSION_AVAILABLE | AUTHORITATIVE_ANSWER;
  const response = { type: "response" as const, id: query.id ?? 0, questions: [question] };
  if (address === undefined) {
    return encode({ ...response, flags: flags | noSuchName, authorities: [startOfAuthority()] });
  }
  const record = { type: "A" as const, name: question.name, ttl: ttlSeconds, data: address };
  return encode({ ...response, flags, answers: question.type === "A" ? [record] : [] });
}

function decodeQuery(message: Uint8Array): Packet | undefined {
  try {
    const packet = decode(Buffer.from(message));
    return packet.type === "query" ? packet : undefined;
  } catch {
    return undefined; // not DNS: no answer, as real servers do
  }
}

function remember(query: (typeof queries)[number]): void {
  queries.push(query);
  if (queries.length > maxQueries) queries.shift();
}

/** Lets resolvers remember that a name does not exist, for a moment only. */
function startOfAuthority() {
  const data = {
    mname: "ns.example",
    rname: "root.example",
    serial: 1,
    refresh: 60,
    retry: 60,
    expire: 60,
    minimum: 1,
  };
  return { type: "SOA" as const, name: "", ttl: 1, data };
}

async function serveDns(address: string): Promise<void> {
  const udp = createSocket(address.includes(":") ? "udp6" : "udp4");
  udp.on("message", (message, peer) => {
    const answer = answerDns(message, peer.address);
    if (answer !== undefined) udp.send(answer, peer.port, peer.address);
  });
  udp.bind(dnsPort, address);
  await once(udp, "listening");
  const tcp = createTcpServer(serveDnsStream);
  tcp.listen(dnsPort, address);
  await once(tcp, "listening");
}

/** RFC 1035 §4.2.2: each message behind its length in two bytes. */
function serveDnsStream(socket: Socket): void {
  let pending = Buffer.alloc(0);
  socket.on("error", () => socket.destroy());
  socket.setTimeout(10_000, () => socket.destroy());
  socket.on("data", (chunk: Buffer) => {
    pending = Buffer.concat([pending, chunk]);
    while (pending.length >= 2 && pending.length >= 2 + pending.readUInt16BE(0)) {
      const end = 2 + pending.readUInt16BE(0);
      const answer = answerDns(pending.subarray(2, end), socket.remoteAddress ?? "");
      pending = pending.subarray(end);
      if (answer === undefined) return void socket.destroy();
      const length = Buffer.alloc(2);
      length.writeUInt16BE(answer.length);
      socket.write(Buffer.concat([length, answer]));
    }
  });
}

async function serveWeb(): Promise<void> {
  const server = createHttpServer((request, response) => {
    if (request.url === "/queries") {
      if (request.method === "DELETE") queries.length = 0;
      response.setHeader("content-type", "application/json");
      return void response.end(JSON.stringify(queries));
    }
    response.end(`This is ${request.headers.host ?? "the public web"}, seen from ${request.socket.remoteAddress}\n`);
  });
  server.listen(webPort, publicWebAddress);
  await once(server, "listening");
}

if (import.meta.main) {
  const wires = [...laptopNumbers.map(laptopWire), nodeWire];
  await Promise.all(wires.flatMap((wire) => wire.map(({ gateway }) => serveDns(gateway))));
  await serveWeb();
  process.stdout.on("error", () => undefined);
  process.stdout.write("ready\n");
}
