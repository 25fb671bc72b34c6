import { closeSync, fstatSync, openSync } from "node:fs";
import { createServer, connect, type Socket } from "node:net";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import type { AppError } from "#base/error.ts";
import { libc } from "./ffi.ts";
import { descriptorOf, peerCredentials } from "./peer-cred.ts";
import { UnixChannel } from "./unix-channel.ts";

const maxLineBytes = 64 * 1024;
const open: UnixChannel[] = [];
afterEach(() => {
  for (const channel of open.splice(0)) channel.close();
});

interface End {
  readonly channel: UnixChannel;
  readonly lines: string[];
  readonly ended: Promise<AppError | undefined>;
  readonly fd: number;
  /** Resolves when so many lines have come. */
  readonly heard: (count: number) => Promise<readonly string[]>;
}

function pair(limitBytes = maxLineBytes): readonly [End, End] {
  const fds = new Int32Array(2);
  expect(libc().socketpair(1, 1, 0, new Uint8Array(fds.buffer))).toBe(0);
  return [end(fds[0] ?? -1, limitBytes), end(fds[1] ?? -1, limitBytes)];
}

function end(fd: number, limitBytes: number): End {
  const lines: string[] = [];
  const ended = Promise.withResolvers<AppError | undefined>();
  const heard = async (count: number): Promise<readonly string[]> => {
    await expect.poll(() => lines.length).toBeGreaterThanOrEqual(count);
    return lines;
  };
  const onLine = (line: string): void => void lines.push(line);
  const channel = new UnixChannel(fd, limitBytes, { onLine, onEnd: ended.resolve });
  open.push(channel);
  return { channel, lines, ended: ended.promise, fd, heard };
}

describe("UnixChannel", () => {
  test("carries lines of any length up to its limit, in order", async () => {
    const [left, right] = pair();
    const long = "x".repeat(maxLineBytes - 1);
    left.channel.send("one");
    left.channel.send(long);
    left.channel.send("ümlaut");
    expect(await right.heard(3)).toEqual(["one", long, "ümlaut"]);
  });

  test("carries a descriptor beside a line, to the same file", async () => {
    const [left, right] = pair();
    const file = openSync("/dev/null", "r");
    left.channel.send("before");
    left.channel.send("with", file);
    await right.heard(2);
    const received = right.channel.takeFd();
    expect(received).toBeTypeOf("number");
    expect(fstatSync(received ?? -1).rdev).toBe(fstatSync(file).rdev);
    expect(right.channel.takeFd()).toBeUndefined();
    closeSync(file);
    closeSync(received ?? -1);
  });

  test("closes descriptors that nobody took", async () => {
    const [left, right] = pair();
    const file = openSync("/dev/null", "r");
    const lowestFree = (): number => {
      const fd = openSync("/dev/null", "r");
      closeSync(fd);
      return fd;
    };
    const before = lowestFree();
    for (let round = 1; round <= 5; round++) {
      left.channel.send("with", file);
      await right.heard(round);
    }
    right.channel.close();
    expect(lowestFree()).toBeLessThanOrEqual(before);
    closeSync(file);
  });

  test("ends when the other end is gone, and then sends nothing", async () => {
    const [left, right] = pair();
    left.channel.close();
    expect(await right.ended).toBeUndefined();
    expect(() => right.channel.send("late")).toThrow("is closed");
  });

  test("ends at a line that is too long, before it holds more", async () => {
    const [left, right] = pair(100);
    expect(libc().write(left.fd, Buffer.from("x".repeat(101)), 101)).toBe(101);
    expect((await right.ended)?.message).toContain("longer than 100 bytes");
  });

  test("ends when the other end does not read", () => {
    const [left, right] = pair();
    expect(right.lines).toEqual([]); // nothing is read before this function returns
    const line = "x".repeat(maxLineBytes - 1);
    expect(() => {
      for (let sent = 0; sent < 100; sent++) left.channel.send(line);
    }).toThrow("does not read");
    expect(left.channel.closed).toBe(true);
  });
});

describe("peerCredentials()", () => {
  test("tells who is at a Unix socket's other end", async () => {
    const directory = mkdtempSync(join(tmpdir(), "peer-"));
    const path = join(directory, "s");
    const server = createServer();
    const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const client = connect(path);
    const socket = await accepted;
    const expected = { pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() };
    expect(peerCredentials(socket)).toEqual(expected);
    expect(peerCredentials(descriptorOf(socket))).toEqual(expected);
    socket.destroy();
    client.destroy();
    await new Promise((resolve) => server.close(resolve));
    rmSync(directory, { recursive: true });
    expect(() => peerCredentials(socket)).toThrow("no descriptor");
  });

  test("refuses a socket that has no user", async () => {
    const server = createServer();
    const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
    const port = await new Promise<number>((resolve) => {
      server.listen(0, "127.0.0.1", () => resolve((server.address() as { port: number }).port));
    });
    const client = connect(port, "127.0.0.1");
    const socket = await accepted;
    expect(() => peerCredentials(socket)).toThrow("expected a Unix socket");
    socket.destroy();
    client.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
});
