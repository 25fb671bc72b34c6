// What a session has to do with the cloud server that its user is logged in at, put together: the membership, which runs
// beside it, and the previews of its intercepts.
import type { Clock } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import type { Scope } from "#base/scope.ts";
import type { InterceptQuery } from "#kube/workloads/resolve-workload.ts";
import type { ManagerConnection } from "#daemon/link/manager-link.ts";
import type { LoginPlaces } from "#login/credentials.ts";
import type { FoundIngress } from "#wire/preview.ts";
import { Membership } from "./membership.ts";
import { Previews, type PreviewsOptions } from "./previews.ts";

/** What is asked of the cluster's API. */
export interface CloudAccess {
  readonly context: string;
  readonly server: string;
  /** What a cloud server knows the cluster by. */
  findClusterId(signal: AbortSignal): Promise<string>;
  findIngress(query: InterceptQuery, signal: AbortSignal): Promise<FoundIngress[]>;
}

export interface CloudSideOptions {
  readonly access: CloudAccess;
  readonly login: LoginPlaces;
  readonly find: PreviewsOptions["find"];
  readonly manager: () => ManagerConnection | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

export class CloudSide {
  readonly membership: Membership;
  readonly previews: Previews;
  readonly #access: CloudAccess;

  constructor({ access, login, find, manager, clock, log }: CloudSideOptions) {
    this.#access = access;
    this.membership = new Membership({
      places: login,
      clusterId: (signal) => access.findClusterId(signal),
      clusterName: access.context,
      manager,
      onJoined: (signal) => this.previews.restore(signal),
      isUsed: () => this.previews.count > 0,
      clock,
      log,
    });
    this.previews = new Previews({ membership: this.membership, find, manager, log });
  }

  begin(scope: Scope): void {
    scope.background("cloud server", this.membership.keep(scope.signal));
  }

  async findIngress(query: InterceptQuery, signal: AbortSignal): Promise<{ cluster: string; found: FoundIngress[] }> {
    const { server, context } = this.#access;
    return { cluster: `${server}/${context}`, found: await this.#access.findIngress(query, signal) };
  }
}
