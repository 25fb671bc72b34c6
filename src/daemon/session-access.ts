// What a session needs from the cluster's API: cluster-access.ts fulfils it with the user's credentials.
import type { Duplex } from "node:stream";
import type { DaemonStatus, ListedWorkload } from "#wire/control-api.ts";
import type { Progress, WorkloadAccess } from "#daemon/intercepts/workload-access.ts";
import type { DirectService } from "#daemon/link/direct-way.ts";
import type { CloudAccess } from "#daemon/previews/cloud-side.ts";

export interface ClusterAccess extends WorkloadAccess, CloudAccess {
  readonly context: string;
  readonly server: string;
  readonly namespace: string;
  /** How the manager is reached by what `openManager` gave. */
  describeTransport(transport: Duplex): NonNullable<DaemonStatus["transport"]>;
  /** Where laptops come straight to the manager, if that has been made. */
  findDirect(signal: AbortSignal): Promise<DirectService | undefined>;
  /** Opens a port-forward to the manager's laptop port. */
  openManager(signal: AbortSignal): ReturnType<WorkloadAccess["openIntroduction"]>;
  /** Installs the manager again when it is gone; one that is there is left to the link. */
  restoreManager(progress: Progress, signal: AbortSignal): Promise<RestoredManager>;
  listWorkloads(namespace: string, signal: AbortSignal): Promise<readonly Omit<ListedWorkload, "intercepts">[]>;
}

export interface RestoredManager {
  readonly installed: boolean;
  readonly warnings: readonly string[];
}
