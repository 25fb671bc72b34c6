// Whether somebody listens where a command after `--` may want to. Told when the command has failed: what it says itself
// is seldom plain, and the intercept has meanwhile led the cluster's callers to that other program.
import { once } from "node:events";
import { createServer } from "node:net";
import type { InterceptPort } from "#wire/manager-api.ts";

/** Those of an intercept's local ports that cannot be listened on now, as `host:port`. */
export async function findTakenPorts(ports: readonly InterceptPort[]): Promise<readonly string[]> {
  const tcp = ports.filter(({ protocol }) => protocol === "tcp");
  const taken = await Promise.all(tcp.map(({ targetHost, targetPort }) => isTaken(targetHost, targetPort)));
  return tcp.filter((_, index) => taken[index]).map(({ targetHost, targetPort }) => `${targetHost}:${targetPort}`);
}

/** Binds and lets go: a connection would disturb whoever is there. */
async function isTaken(host: string, port: number): Promise<boolean> {
  const server = createServer();
  try {
    server.listen({ host, port, exclusive: true });
    await once(server, "listening");
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EADDRINUSE"; // another machine's address, a port below 1024: unknown
  } finally {
    server.close();
  }
}
