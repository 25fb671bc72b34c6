// What the kubelet and Prometheus ask. Answered whatever the Host header says: both come by the pod's address.
import type { Parts, Route } from "./route.ts";

/** Answered on any host name; of them /metrics wants a token, so that a page elsewhere learns nothing. */
export const podPaths: ReadonlySet<string> = new Set(["/healthz", "/readyz", "/metrics"]);

export function healthRoutes({ database, log }: Parts, isServing: () => boolean): readonly Route[] {
  const ready = async (): Promise<boolean> => {
    if (!isServing()) return false;
    try {
      await database.all("SELECT 1");
      return true;
    } catch (error) {
      log.warn("the database does not answer", { error: (error as Error).message });
      return false;
    }
  };
  return [
    { method: "GET", path: "/healthz", access: "client", handle: (context) => context.text("ok\n") },
    {
      method: "GET",
      path: "/readyz",
      access: "client",
      handle: async (context) => ((await ready()) ? context.text("ok\n") : context.text("no\n", 503)),
    },
  ];
}
