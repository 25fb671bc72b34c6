// The SOCKS5 door (RFC 1928): no password, CONNECT and UDP ASSOCIATE. A program waits for its answer until the far end
// has connected, and hears why it has not.
// @to daemon/proxy/reach.ts
import { once } from "node:events";
import type { Socket } from "node:net";
import { deadline, raceSignal } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, toAppError, type ErrorCode } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { joinDuplex } from "#tunnel/pipe.ts";
import { openDoor, type Door } from "./listener.ts";
import type { Reach } from "./reach.ts";
import { relayDatagrams } from "./socks-datagrams.ts";
import {
  addressRestBytes,
  encodeReply,
  readAddress,
  socksCommands,
  socksMethods,
  socksReplies,
  socksVersion,
  type SocksAddress,
  type SocksReply,
} from "./socks-messages.ts";

export interface ProxyOptions {
  /** 0 is any that is free. */
  readonly port: number;
  readonly reach: Pick<Reach, "tcp" | "udp">;
  readonly clock: Clock;
  readonly log: Logger;
}

/** chosen: a program sends its request at once. */
const greetingMs = 10_000;

const replies: Partial<Record<ErrorCode, SocksReply>> = {
  refused: socksReplies.refused,
  peer_reset: socksReplies.refused,
  unreachable: socksReplies.hostUnreachable,
  not_found: socksReplies.hostUnreachable,
  link_lost: socksReplies.networkUnreachable,
  denied: socksReplies.denied,
  timeout: socksReplies.ttlExpired,
};

export function openSocks(options: ProxyOptions): Promise<Door> {
  return openDoor({ name: "SOCKS5", port: options.port, log: options.log }, (socket) => {
    void serve(socket, options).catch((error: unknown) => {
      options.log.debug("a SOCKS5 connection came to nothing", { error: String(error) });
      socket.destroy();
    });
  });
}

async function serve(socket: Socket, options: ProxyOptions): Promise<void> {
  const gone = new AbortController();
  socket.once("close", () => gone.abort(new AppError("cancelled", "the program has gone")));
  const { command, target } = await readRequest(socket, options.clock, gone.signal);
  if (target === undefined) {
    socket.end(encodeReply(socksReplies.addressUnsupported));
  } else if (command === socksCommands.connect) {
    await connect(socket, target, options, gone.signal);
  } else if (command === socksCommands.udpAssociate) {
    await relayDatagrams(socket, options);
  } else {
    socket.end(encodeReply(socksReplies.commandUnsupported));
  }
}

async function connect(
  socket: Socket,
  target: SocksAddress,
  { reach, log }: ProxyOptions,
  signal: AbortSignal,
): Promise<void> {
  try {
    const stream = await reach.tcp(target, signal);
    if (socket.destroyed) {
      stream.destroy();
      return;
    }
    socket.write(encodeReply(socksReplies.succeeded));
    joinDuplex(socket, stream);
  } catch (error) {
    const { code, message } = toAppError(error);
    log.debug("a SOCKS5 connection failed", { target: `${target.host}:${target.port}`, code, error: message });
    if (!socket.destroyed) socket.end(encodeReply(replies[code] ?? socksReplies.failure));
  }
}

/** `target` is undefined for an address of no known kind. Rejects when this is no SOCKS5. */
async function readRequest(
  socket: Socket,
  clock: Clock,
  gone: AbortSignal,
): Promise<{ readonly command: number; readonly target: SocksAddress | undefined }> {
  using limit = deadline(clock, greetingMs, "the program's SOCKS5 request", gone);
  const [version, methodCount = 0] = await take(socket, 2, limit.signal);
  if (version !== socksVersion)
    throw new AppError("protocol", `the program speaks no SOCKS5, its first byte is ${version}`);
  const methods = methodCount === 0 ? Buffer.alloc(0) : await take(socket, methodCount, limit.signal);
  if (!methods.includes(socksMethods.none)) {
    socket.end(Uint8Array.of(socksVersion, socksMethods.noneAcceptable));
    throw new AppError("protocol", "the program offers no way in without a password");
  }
  socket.write(Uint8Array.of(socksVersion, socksMethods.none));
  const head = await take(socket, 5, limit.signal);
  const [, command = 0, , type = 0, first = 0] = head;
  if (head[0] !== socksVersion) throw new AppError("protocol", "the program's request is no SOCKS5");
  const rest = addressRestBytes(type, first);
  if (rest === undefined) return { command, target: undefined };
  const address = Buffer.concat([head.subarray(3), await take(socket, rest, limit.signal)]);
  return { command, target: readAddress(address) };
}

/** Exactly so many bytes; what comes after them stays in the socket. */
async function take(socket: Socket, bytes: number, signal: AbortSignal): Promise<Buffer> {
  for (;;) {
    const chunk = socket.read(bytes) as Buffer | null;
    if (chunk?.length === bytes) return chunk;
    if (chunk !== null || socket.readableEnded) throw new AppError("protocol", "the program ended in its request");
    await raceSignal(Promise.race([once(socket, "readable"), once(socket, "end")]), signal);
  }
}
