// The server's end of a SPDY connection as moby/spdystream does it, which kubelets and container runtimes are built on:
// data for a stream that it has not answered is lost.
import type { Socket } from "node:net";
import { constants, inflateSync } from "node:zlib";
import type { FakeApiServer } from "#kube/api-server.fake.ts";

export interface FakeStream {
  readonly id: number;
  readonly headers: Readonly<Record<string, string>>;
}

/** The header blocks of a connection are one compressed stream in pieces. */
class HeaderReader {
  #compressed: Buffer = Buffer.alloc(0);
  #readBytes = 0;

  read(piece: Uint8Array): Record<string, string> {
    this.#compressed = Buffer.concat([this.#compressed, piece]);
    const all = inflateSync(this.#compressed, { finishFlush: constants.Z_SYNC_FLUSH });
    let rest = all.subarray(this.#readBytes);
    this.#readBytes = all.length;
    const take = (): string => {
      const text = rest.subarray(4, 4 + rest.readUInt32BE(0)).toString();
      rest = rest.subarray(4 + rest.readUInt32BE(0));
      return text;
    };
    const count = rest.readUInt32BE(0);
    rest = rest.subarray(4);
    return Object.fromEntries(Array.from({ length: count }, () => [take(), take()]));
  }
}

export const frameTypes = { synStream: 1, synReply: 2, reset: 3, settings: 4, ping: 6, goAway: 7, windowUpdate: 9 };

export class FakeSpdyConnection {
  readonly socket: Socket;
  readonly streams: FakeStream[] = [];
  readonly #headers = new HeaderReader();
  readonly #answered = new Set<number>();
  #rest: Buffer = Buffer.alloc(0);
  onStream: (stream: FakeStream) => void = ({ id }) => this.reply(id);
  onData: (id: number, bytes: Buffer) => void = () => undefined;
  onControl: (type: number, body: Buffer) => void = () => undefined;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.#rest = Buffer.concat([this.#rest, chunk]);
      while (this.#takeFrame());
    });
    socket.on("error", () => undefined);
  }

  reply(id: number): void {
    this.#answered.add(id);
    this.control(frameTypes.synReply, [id]);
  }
  control(type: number, values: readonly number[]): void {
    const frame = Buffer.alloc(8 + 4 * values.length);
    frame.writeUInt32BE(0x8003_0000 + type, 0);
    frame.writeUInt32BE(4 * values.length, 4);
    for (const [index, value] of values.entries()) frame.writeUInt32BE(value, 8 + 4 * index);
    this.socket.write(frame);
  }
  send(id: number, bytes: Uint8Array | string, isLast = false): void {
    const data = Buffer.from(bytes);
    const head = Buffer.alloc(8);
    head.writeUInt32BE(id, 0);
    head.writeUInt32BE(data.length, 4);
    head[4] = isLast ? 1 : 0;
    this.socket.write(Buffer.concat([head, data]));
  }

  #takeFrame(): boolean {
    const whole = this.#rest;
    const end = whole.length < 8 ? Number.POSITIVE_INFINITY : 8 + whole.readUIntBE(5, 3);
    if (whole.length < end) return false;
    this.#rest = whole.subarray(end);
    const [first, body] = [whole.readUInt32BE(0), whole.subarray(8, end)];
    if (first >= 0x8000_0000) this.#takeControl(first & 0xffff, body);
    else if (this.#answered.has(first)) this.onData(first, body);
    return true;
  }

  #takeControl(type: number, body: Buffer): void {
    if (type !== frameTypes.synStream) {
      this.onControl(type, body);
      return;
    }
    const stream = { id: body.readUInt32BE(0), headers: this.#headers.read(body.subarray(10)) };
    this.streams.push(stream);
    this.onStream(stream);
  }
}

/** Only SPDY is granted there. */
export function acceptSpdy(server: FakeApiServer, onConnection: (connection: FakeSpdyConnection) => void): void {
  server.refuseUpgrade = ({ headers }) => {
    if (headers.upgrade === "SPDY/3.1") return undefined;
    return { code: 403, message: refusal("get") };
  };
  server.onSpdy = (socket, { headers }) => {
    const protocol = String(headers["x-stream-protocol-version"]).split(", ")[0];
    const head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n";
    socket.write(`${head}X-Stream-Protocol-Version: ${protocol}\r\n\r\n`);
    onConnection(new FakeSpdyConnection(socket));
  };
}

export function refusal(verb: string): string {
  return `pods "p" is forbidden: User "alice" cannot ${verb} resource "pods/portforward" in API group "" in the namespace "n"`;
}
