// The link of a session: what becomes of intercepts, the laptop's network and the cloud server when it comes up, is lost
// and goes on.
import type { Scope } from "#base/scope.ts";
import { softwareVersion } from "#base/version.ts";
import type { CloudSide } from "#daemon/previews/cloud-side.ts";
import type { Inspector } from "#daemon/inspector/inspector.ts";
import type { Intercepts } from "#daemon/intercepts/intercepts.ts";
import type { TunnelSession } from "#tunnel/tunnel.ts";
import { listenTo } from "./link-talk.ts";
import { ManagerLink, type ManagerConnection, type ManagerLinkOptions } from "./manager-link.ts";

interface LinkOptions extends Pick<ManagerLinkOptions, "clock" | "log"> {
  readonly access: {
    readonly namespace: string;
    openManager(signal: AbortSignal): ReturnType<ManagerLinkOptions["openTransport"]>;
  };
  readonly client: string;
  readonly installId: string;
}

interface LinkedNetwork {
  setSession(session: TunnelSession | undefined): void;
}

interface LinkParts {
  readonly intercepts: Intercepts;
  readonly inspector: Inspector;
  readonly cloud: CloudSide;
  readonly scope: Scope;
  /** There is none yet while the first link comes up. */
  readonly network: () => LinkedNetwork | undefined;
}

/** The link, with whoever has to hear of its fate. */
export function openLink(
  options: LinkOptions,
  { intercepts, inspector, cloud, scope, network }: LinkParts,
): ManagerLink {
  const { access, clock, log } = options;
  const reconcile = (connection: ManagerConnection): void =>
    scope.background("intercepts after the link's return", intercepts.reconcile(connection));
  return new ManagerLink({
    openTransport: (transportSignal) => access.openManager(transportSignal),
    arrive: {
      client: options.client,
      installId: options.installId,
      version: softwareVersion,
      namespace: access.namespace,
    },
    onUp: async (connection) => {
      listenTo(connection, { intercepts, inspector, cloud, log });
      await intercepts.announce(connection);
    },
    onCurrent: (connection) => {
      network()?.setSession(connection.session);
      intercepts.reintroduce();
      cloud.membership.again(false);
      reconcile(connection);
    },
    onDown: () => {
      network()?.setSession(undefined);
      intercepts.onLinkDown();
    },
    onResumed: (connection) => {
      network()?.setSession(connection.session);
      intercepts.goOn();
      cloud.membership.again(false);
      reconcile(connection);
    },
    clock,
    log,
    scope,
  });
}
