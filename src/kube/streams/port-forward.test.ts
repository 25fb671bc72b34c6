// Traps 34, 35, 36: the end of either side is seen at once, a slow reader brakes the sender, a refusal is a refusal.
import { once } from "node:events";
import { buffer } from "node:stream/consumers";
import type { Duplex } from "node:stream";
import { describe, expect, test } from "vitest";
import type { WebSocket } from "ws";
import { AppError } from "#base/error.ts";
import { certificatePem } from "#kube/certificate.fake.ts";
import { FakeApiServer, sendJson } from "#kube/api-server.fake.ts";
import { parseOutcome, execInPod } from "./exec.ts";
import { pods } from "#kube/objects.ts";
import { forwardError } from "./forward-error.ts";
import { openPortForward } from "./port-forward.ts";

const { signal } = new AbortController();
const open = (server: FakeApiServer): Promise<Duplex> =>
  openPortForward(server.open(), { namespace: "n", pod: "p", port: 8081, signal });

/** The server's side of a forward: opening messages, then data to and from the test. */
function acceptForward(server: FakeApiServer, onSocket: (socket: WebSocket) => void, port = 8081): void {
  server.onUpgrade = (socket) => {
    const number = Buffer.from([port & 255, port >> 8]);
    socket.send(Buffer.concat([Buffer.from([0]), number]));
    socket.send(Buffer.concat([Buffer.from([1]), number]));
    onSocket(socket);
  };
}

describe("openPortForward()", () => {
  test("asks for the port and carries bytes both ways", async () => {
    await using server = await new FakeApiServer().listen();
    let url = "";
    acceptForward(server, (socket) => socket.on("message", (data: Buffer) => socket.send(data)));
    const echo = server.onUpgrade;
    server.onUpgrade = (socket, request) => {
      url = request.url ?? "";
      echo(socket, request);
    };
    const stream = await open(server);
    const sent = Buffer.alloc(3 * 1024 * 1024, 7);
    stream.write(sent);
    let received = 0;
    stream.on("data", (chunk: Buffer) => {
      received += chunk.length;
      if (received === sent.length) stream.destroy();
    });
    await once(stream, "close");
    expect(received).toBe(sent.length);
    expect(url).toBe("/api/v1/namespaces/n/pods/p/portforward?ports=8081");
  });
  test.each([1, 124, 125, 126, 65_533, 65_534, 65_535, 320 * 1024])(
    "sends %i bytes through TLS as one well-formed message, and closes behind them",
    async (count) => {
      await using server = await new FakeApiServer({ secure: true }).listen();
      const messages: Buffer[] = [];
      const { promise: code, resolve } = Promise.withResolvers<number>();
      acceptForward(server, (socket) =>
        socket.on("message", (data: Buffer) => messages.push(data)).on("close", resolve),
      );
      const kube = server.open({ ca: { pem: certificatePem } });
      const stream = await openPortForward(kube, { namespace: "n", pod: "p", port: 8081, signal });
      const sent = Buffer.alloc(count, "bytes");
      stream.resume().end(sent);
      expect(await code).toBe(1000);
      expect(messages).toEqual([Buffer.concat([Buffer.from([0]), sent])]);
    },
  );
  test("sends messages of at most 320 KiB", async () => {
    await using server = await new FakeApiServer().listen();
    const sizes: number[] = [];
    acceptForward(server, (socket) =>
      socket.on("message", (data: Buffer) => {
        sizes.push(data.length - 1);
        if (sizes.reduce((sum, size) => sum + size, 0) === 1_000_000) socket.close(1000);
      }),
    );
    const stream = await open(server);
    stream.resume().write(Buffer.alloc(1_000_000));
    await once(stream, "close");
    expect(Math.max(...sizes)).toBe(320 * 1024);
  });
  test("brakes the writer while the server does not read", async () => {
    await using server = await new FakeApiServer().listen();
    acceptForward(server, (socket) => socket.pause());
    const stream = await open(server);
    stream.on("error", () => undefined);
    let accepted = 0;
    while (stream.write(Buffer.alloc(64 * 1024)) && accepted < 64 * 1024 * 1024) accepted += 64 * 1024;
    expect(accepted).toBeLessThan(8 * 1024 * 1024);
    stream.destroy();
  });
  test("stops reading from the server while nobody reads the stream", async () => {
    await using server = await new FakeApiServer().listen();
    const total = 64 * 1024 * 1024;
    const { promise, resolve } = Promise.withResolvers<WebSocket>();
    acceptForward(server, (socket) => {
      const chunk = Buffer.alloc(1024 * 1024);
      for (let sent = 0; sent < total; sent += chunk.length) socket.send(chunk);
      resolve(socket);
    });
    const stream = await open(server);
    const socket = await promise;
    stream.read(0);
    await once(stream, "readable");
    expect(stream.readableLength).toBeLessThan(8 * 1024 * 1024);
    expect(socket.bufferedAmount).toBeGreaterThan(total / 4);
    stream.destroy();
  });
  test("ends when the pod's side ends", async () => {
    await using server = await new FakeApiServer().listen();
    acceptForward(server, (socket) => {
      socket.send(Buffer.from("\0bye"));
      socket.close(1000);
    });
    expect((await buffer(await open(server))).toString()).toBe("bye");
  });
  test("turns the error channel into an error", async () => {
    await using server = await new FakeApiServer().listen();
    acceptForward(server, (socket) =>
      socket.send(
        Buffer.from("\u0001error forwarding port 8081 to pod x: dial tcp4 127.0.0.1:8081: connect: connection refused"),
      ),
    );
    const stream = await open(server);
    const [error] = (await once(stream, "error")) as [Error];
    expect(error).toMatchObject({
      code: "refused",
      message: "port-forward to n/p:8081 was refused: nothing listens on that port in the pod",
    });
  });
  test("fails at once when the connection dies", async () => {
    await using server = await new FakeApiServer().listen();
    acceptForward(server, (socket) => setImmediate(() => socket.terminate()));
    const stream = await open(server);
    const [error] = (await once(stream.resume(), "error")) as [Error];
    expect(error).toMatchObject({ code: "link_lost" });
  });
  test("takes another connection where the server has closed the kept one", async () => {
    await using server = await new FakeApiServer().listen();
    server.answer = (_request, response) => sendJson(response, {});
    const kube = server.open();
    await kube.get(pods, { name: "p", namespace: "n" }, signal);
    server.refuseUpgrade = (request) => {
      if (server.connections > 1) return undefined;
      request.socket.destroy();
      return { code: 500, message: "not heard" };
    };
    const stream = await openPortForward(kube, { namespace: "n", pod: "p", port: 8081, signal });
    stream.on("error", () => undefined).destroy();
    expect(server.connections).toBe(2);
  });
  test("speaks SPDY through a server that ends the WebSocket itself", async () => {
    await using server = await new FakeApiServer().listen();
    server.acceptProtocol = (offered) => offered.find((name) => name.startsWith("SPDY/3.1+")) ?? false;
    const received: Buffer[] = [];
    server.onUpgrade = (socket) => {
      socket.on("message", (message: Buffer) => {
        if (message[0] === 0x80) {
          // Data before these answers would be lost in the node.
          for (const id of [1, 3]) socket.send(Buffer.from(`80030002000000040000000${id}`, "hex"));
          return;
        }
        received.push(message.subarray(8));
        socket.send(message);
        if (Buffer.concat(received).length === 300_000) socket.send(Buffer.from("0000000301000000", "hex")); // FIN
      });
    };
    const stream = await open(server);
    const sent = Buffer.alloc(300_000, 7);
    stream.write(sent.subarray(0, 1000));
    stream.write(sent.subarray(1000));
    expect((await buffer(stream)).equals(sent)).toBe(true);
    expect(Buffer.concat(received).equals(sent)).toBe(true);
  });
  test("turns what the node says on SPDY's error stream into an error", async () => {
    await using server = await new FakeApiServer().listen();
    server.acceptProtocol = ([first]) => first ?? false;
    server.onUpgrade = (socket) => {
      const said = Buffer.from("error forwarding port 8081 to pod x: connect: connection refused");
      const head = Buffer.from("0000000100000000", "hex");
      head[7] = said.length;
      socket.send(Buffer.concat([head, said, Buffer.from("80030003000000080000000300000005", "hex")]));
    };
    const [error] = (await once(await open(server), "error")) as [Error];
    expect(error).toMatchObject({ code: "refused" });
  });
  test("says that the pod is gone", () => {
    expect(forwardError("x", 'error: pod not found ("p_n")').code).toBe("unreachable");
  });
});

describe("execInPod()", () => {
  const run = (server: FakeApiServer, more: object = {}): ReturnType<typeof execInPod> =>
    execInPod(server.open(), {
      namespace: "n",
      pod: "p",
      container: "traffic-agent",
      command: ["env", "-0"],
      signal,
      ...more,
    });

  test("collects output and exit code", async () => {
    await using server = await new FakeApiServer().listen();
    let url = "";
    server.onUpgrade = (socket, request) => {
      url = request.url ?? "";
      socket.send(Buffer.from("\u0001A=1\0"));
      socket.send(Buffer.from("\u0002warn"));
      socket.send(Buffer.from("\u0001B=2\0"));
      const status = {
        status: "Failure",
        reason: "NonZeroExitCode",
        details: { causes: [{ reason: "ExitCode", message: "3" }] },
      };
      socket.send(Buffer.from(`\u0003${JSON.stringify(status)}`));
      socket.close(1000);
    };
    const result = await run(server);
    expect(result.stdout.toString()).toBe("A=1\0B=2\0");
    expect(result.stderr.toString()).toBe("warn");
    expect(result.exitCode).toBe(3);
    expect(url).toBe(
      "/api/v1/namespaces/n/pods/p/exec?container=traffic-agent&stdout=true&stderr=true&command=env&command=-0",
    );
  });
  test("sends standard input and closes it", async () => {
    await using server = await new FakeApiServer().listen();
    server.onUpgrade = (socket) => {
      const parts: Buffer[] = [];
      socket.on("message", (data: Buffer) => {
        if (data[0] === 255) {
          socket.send(Buffer.concat([Buffer.from([1]), ...parts]));
          socket.send(Buffer.from('\u0003{"status":"Success"}'));
          socket.close(1000);
        } else parts.push(data.subarray(1));
      });
    };
    const stdin = Buffer.alloc(200_000, 5);
    const result = await run(server, { stdin });
    expect(result.exitCode).toBe(0);
    expect(result.stdout.equals(stdin)).toBe(true);
  });
  test("hands the output over piece by piece, and waits for its reader", async () => {
    await using server = await new FakeApiServer().listen();
    server.onUpgrade = (socket) => {
      for (const letter of "abcd") socket.send(Buffer.from(`\u0001${letter}`));
      socket.send(Buffer.from('\u0003{"status":"Success"}'));
      socket.close(1000);
    };
    const seen: string[] = [];
    const onOutput = async (piece: Buffer): Promise<void> => {
      seen.push(`${piece.toString()}(`);
      await new Promise((resolve) => setImmediate(resolve));
      seen.push(")");
    };
    const { exitCode, stdout } = await run(server, { onOutput });
    expect([seen.join(""), exitCode, stdout.length]).toEqual(["a()b()c()d()", 0, 0]);
    const failing = (): never => {
      throw new AppError("command_failed", "no room");
    };
    await expect(run(server, { onOutput: failing })).rejects.toThrow("no room");
  });
  test("bounds the output", async () => {
    await using server = await new FakeApiServer().listen();
    server.onUpgrade = (socket) => socket.send(Buffer.alloc(2000, 1));
    await expect(run(server, { maxOutputBytes: 1000 })).rejects.toThrow("more than 1000 bytes");
  });
  test("fails when the connection dies and when the command cannot be started", async () => {
    await using server = await new FakeApiServer().listen();
    server.onUpgrade = (socket) => socket.terminate();
    await expect(run(server)).rejects.toMatchObject({ code: "link_lost" });
    expect(() => parseOutcome("exec", '{"status":"Failure","message":"executable file not found"}')).toThrow(
      "exec failed: executable file not found",
    );
    expect(() => parseOutcome("exec", "garbage")).toThrow("exec failed: garbage");
  });
});
