// The control API's methods, a few lines each: what they do lives in the supervisor and its session.
import type { Clock } from "#base/clock.ts";
import { toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { installCloud, uninstallCloud } from "#daemon/cloud-install.ts";
import { genyaml } from "#daemon/genyaml.ts";
import type { PrivateNetworks } from "#daemon/private-networks/door.ts";
import type { Supervisor } from "#daemon/supervisor.ts";
import type { Handlers } from "#tunnel/rpc.ts";
import type { controlApi } from "#wire/control-api.ts";
import { previewHandlers } from "./preview-handlers.ts";
import { ownedIngest, ownedIntercept, ownedLocalOnly, Ownership } from "./ownership.ts";
import type { OwningCaller } from "./server.ts";

interface HandlerParts {
  /** Rejects when no helper comes up. */
  readonly callHelper: (signal: AbortSignal) => Promise<void>;
  readonly networks: PrivateNetworks;
  readonly clock: Clock;
  readonly log: Logger;
}

/** The handlers of one command's connection. */
export function createHandlers(
  supervisor: Supervisor,
  { callHelper, networks, clock, log }: HandlerParts,
): (caller: OwningCaller) => Handlers<typeof controlApi> {
  const endsUnused = watchCallers(supervisor);
  return (caller) => {
    const endUnused = endsUnused(caller);
    const ownership = new Ownership(caller, { supervisor, onGone: endUnused, clock, log });
    return {
      hello: () => supervisor.hello(),
      callHelper: (_params, signal) => sayProblem(callHelper(signal)),
      connect: (params) => supervisor.connect(params, caller),
      disconnect: () => supervisor.disconnect(),
      status: (_params, signal) => supervisor.status(signal),
      list: ({ namespace }, signal) => supervisor.require().list(namespace, signal),
      intercept: async (params, signal) => {
        const session = supervisor.require();
        const result = await session.intercept(params, caller.progress, signal);
        if (params.ownedByConnection) ownership.add(ownedIntercept(session, result.info));
        return result;
      },
      ingest: async (params, signal) => {
        const session = supervisor.require();
        const result = await session.ingest(params, caller.progress, signal);
        if (params.ownedByConnection) ownership.add(ownedIngest(session, result.info));
        return result;
      },
      localOnly: ({ name, namespace, ownedByConnection }) => {
        const session = supervisor.require();
        const info = session.beginLocalOnly(name, namespace);
        if (ownedByConnection) ownership.add(ownedLocalOnly(session, name));
        return { info };
      },
      enter: () => {
        const network = networks.expect(supervisor.require().ways);
        ownership.enter(network);
        return { socket: networks.path, id: network.id };
      },
      leaveEntered: async () => {
        await ownership.leaveEntered();
        return { quits: await endUnused() };
      },
      leave: async ({ name, ...which }, signal) => ({
        warnings: await supervisor.require().leave(name, signal, which),
      }),
      why: (params, signal) => supervisor.require().why(params, signal),
      revoke: async (params, signal) => ({ info: await supervisor.require().revoke(params, signal) }),
      ...previewHandlers(supervisor, caller),
      inspect: ({ hide }) => supervisor.require().openInspector(hide),
      quit: () => supervisor.quit(),
      genyaml: (params) => genyaml(params, supervisor.session, caller, clock),
      cloudInstall: (params) => installCloud(params, caller, clock),
      cloudUninstall: (params) => uninstallCloud(params, caller, clock),
      uninstall: (params) => supervisor.uninstall(params, caller),
    };
  };
}

async function sayProblem(work: Promise<void>): Promise<{ problem?: string }> {
  try {
    await work;
    return {};
  } catch (error) {
    return { problem: toAppError(error).message };
  }
}

/** Another command may be about to use the connection; when that has gone, it is asked again. */
function watchCallers(supervisor: Pick<Supervisor, "endUnused">): (caller: OwningCaller) => () => Promise<boolean> {
  const callers = new Set<OwningCaller>();
  return (caller) => {
    callers.add(caller);
    return async () => {
      for (const other of callers) if (other.gone.aborted) callers.delete(other);
      const isAlone = [...callers].every((other) => other === caller);
      return isAlone && (await supervisor.endUnused());
    };
  };
}
