// Liveness and readiness for the kubelet, on a port that says nothing else. Everything is bounded: who connects here is
// anybody in the cluster.
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

export interface HealthServer extends AsyncDisposable {
  readonly port: number;
}

/** GET /healthz answers 200 while the process turns, GET /readyz while `isReady` says so. */
export async function startHealthServer(port: number, isReady: () => boolean): Promise<HealthServer> {
  const server = createServer(
    {
      maxHeaderSize: 4096,
      headersTimeout: 5000,
      requestTimeout: 5000,
      keepAliveTimeout: 5000,
      connectionsCheckingInterval: 2000,
    },
    (request, response) => {
      const path = request.url ?? "";
      const known =
        (request.method === "GET" || request.method === "HEAD") && (path === "/healthz" || path === "/readyz");
      const status = !known ? 404 : path === "/healthz" || isReady() ? 200 : 503;
      response.writeHead(status, { "content-type": "text/plain", "content-length": 3, connection: "close" });
      response.end(status === 200 ? "ok\n" : "no\n");
      request.resume();
    },
  );
  server.maxConnections = 64;
  server.listen(port);
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
