// Readiness for the kubelet on a port of the pod: 200 or 503 to GET /ready, 404 to anything else. Written by hand: a
// whole HTTP server would cost each pod megabytes, and anybody in the cluster may connect here, so all is bounded.
import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import type { Clock } from "#base/clock.ts";

/** chosen. */
const maxRequestBytes = 4096;
const requestMs = 3000;
const maxConnections = 32;

export interface HealthServer extends AsyncDisposable {
  readonly port: number;
}

export async function startHealthServer(port: number, isReady: () => boolean, clock: Clock): Promise<HealthServer> {
  const open = new Set<Socket>();
  const server = createServer((socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
    answerOnce(socket, isReady, clock);
  });
  server.maxConnections = maxConnections;
  server.listen(port);
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => {
      for (const socket of open) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function answerOnce(socket: Socket, isReady: () => boolean, clock: Clock): void {
  const timer = clock.after(requestMs, () => socket.destroy());
  let request = "";
  socket.on("error", () => undefined); // 'close' follows
  socket.once("close", () => timer[Symbol.dispose]());
  socket.setEncoding("latin1");
  socket.on("data", (text: string) => {
    request += text;
    if (request.length > maxRequestBytes) socket.destroy();
    else if (request.includes("\r\n\r\n")) {
      socket.removeAllListeners("data");
      socket.resume();
      socket.end(answerTo(request, isReady));
    }
  });
}

function answerTo(request: string, isReady: () => boolean): string {
  const asked = request.startsWith("GET /ready HTTP/1.");
  const status = !asked ? "404 Not Found" : isReady() ? "200 OK" : "503 Service Unavailable";
  return `HTTP/1.1 ${status}\r\nContent-Type: text/plain\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`;
}
