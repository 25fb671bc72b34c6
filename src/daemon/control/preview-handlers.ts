// The control API's methods that are about previews and the cloud server.
import type { Supervisor } from "#daemon/supervisor.ts";
import type { Handlers } from "#tunnel/rpc.ts";
import type { previewControlApi } from "#wire/preview.ts";
import type { Caller } from "./server.ts";

export function previewHandlers(supervisor: Supervisor, caller: Caller): Handlers<typeof previewControlApi> {
  return {
    findIngress: ({ namespace, ...query }, signal) => {
      const { cloud, connection } = supervisor.require();
      return cloud.findIngress({ ...query, namespace: namespace ?? connection.namespace }, signal);
    },
    createPreview: (params, signal) => supervisor.require().cloud.previews.create(params, caller.progress, signal),
    removePreview: async ({ intercept }, signal) => {
      await supervisor.require().cloud.previews.remove(intercept, signal);
      return {};
    },
    loginChanged: () => {
      supervisor.session?.cloud.membership.again(true);
      return {};
    },
  };
}
