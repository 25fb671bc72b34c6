// Whose program is at the other end of a connection on the loopback, as the kernel says: other users of the machine
// reach our ports too.
import type { Socket } from "node:net";
import type { Logger } from "#base/log.ts";
import { connectionOwner } from "#kernel/sock-diag.ts";

/** This user's programs, and root's. */
export function isWelcome(owner: number | undefined): boolean {
  return owner === 0 || (owner !== undefined && owner === process.getuid?.());
}

/** A kernel that told before and does not now, for want of descriptors say, is no reason to let anybody in. */
export function ask(ownerOf: () => number | undefined, log: Logger): number | undefined {
  try {
    return ownerOf();
  } catch (error) {
    log.warn("the kernel does not say whose a connection is", { error: String(error) });
    return undefined;
  }
}

/** Not asked where the kernel cannot tell (`tellsOwners`). */
export function askKernel(socket: Socket): number | undefined {
  const { remoteAddress, remotePort, localAddress, localPort } = socket;
  if (remoteAddress === undefined || remotePort === undefined) return undefined;
  if (localAddress === undefined || localPort === undefined) return undefined;
  return connectionOwner({
    local: { address: remoteAddress, port: remotePort },
    remote: { address: localAddress, port: localPort },
  });
}
