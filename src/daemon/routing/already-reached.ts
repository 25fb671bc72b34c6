// Whether this machine reaches the cluster's addresses by itself: it runs in a pod, on a node, or in a network that has
// routes there. Its own way is then left as it is. An address that merely answers proves nothing, since private
// addresses are in use everywhere: the manager's pod has to prove its key, the API server its certificate.
import { readFile } from "node:fs/promises";
import { connect, type ConnectionOptions } from "node:tls";
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import type { KubeTarget } from "#kube/target.ts";
import { connectPinned, createIdentity } from "#tunnel/identity.ts";
import type { ConnectOptions } from "#wire/control-api.ts";

export interface Reached {
  readonly pods: boolean;
  readonly services: boolean;
}
export const nothingReached: Reached = { pods: false, services: false };

/** Without a device nothing is routed; and what is to leave from a workload's pod must not take this machine's own way. */
export function keepsOwnWay({ rootless, via }: Pick<ConnectOptions, "rootless" | "via">): boolean {
  return rootless === undefined && via === undefined;
}

export interface ReachedQuestion {
  readonly manager: { readonly podIps: readonly string[]; readonly fingerprint: string };
  /** The manager's port for agents. */
  readonly managerPort: number;
  /** The API server's address inside the cluster. */
  readonly api: { readonly host: string | undefined; readonly port: number; readonly ca: KubeTarget["ca"] };
  readonly clock: Clock;
}

/** chosen: what is near answers in a few milliseconds, and `connect` waits for what does not. */
export const reachMs = 400;
/** protocol: each API server's certificate has it. */
const apiServerName = "kubernetes.default.svc";

export async function findReached(question: ReachedQuestion, signal: AbortSignal): Promise<Reached> {
  using limit = deadline(question.clock, reachMs, "trying the cluster's addresses", signal);
  const [pods, services] = await Promise.all([
    isManager(question, limit.signal),
    isApiServer(question.api, limit.signal),
  ]);
  signal.throwIfAborted();
  return { pods, services };
}

async function isManager({ manager, managerPort }: ReachedQuestion, signal: AbortSignal): Promise<boolean> {
  const identity = createIdentity("telepresence laptop");
  const tries = manager.podIps.map(async (host) => {
    const wanted = { identity, host, port: managerPort, expectedFingerprint: manager.fingerprint, signal };
    (await connectPinned(wanted)).destroy();
  });
  return await Promise.any(tries).then(
    () => true,
    () => false,
  );
}

async function isApiServer({ host, port, ca }: ReachedQuestion["api"], signal: AbortSignal): Promise<boolean> {
  if (host === undefined || ca === undefined) return false;
  try {
    const pem = "pem" in ca ? ca.pem : await readFile(ca.file, "utf8");
    return await provesName({ host, port, ca: pem, servername: apiServerName }, signal);
  } catch {
    return false;
  }
}

function provesName(where: ConnectionOptions, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ ...where, rejectUnauthorized: true });
    const settle = (proved: boolean): void => {
      signal.removeEventListener("abort", onAbort);
      socket.destroy();
      resolve(proved);
    };
    const onAbort = (): void => settle(false);
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) settle(false);
    socket.once("secureConnect", () => settle(true));
    socket.on("error", () => settle(false));
  });
}
