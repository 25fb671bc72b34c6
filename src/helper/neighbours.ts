// Connections beside this one, as the kernel knows them: each has its device, and the device's alias says what that
// connection needs outside of its cluster. No registry of ours would be right after every death in every order.
import { AppError } from "#base/error.ts";
import { maxLinkAliasBytes, type Link } from "#kernel/rtnetlink-messages.ts";
import { formatAddress, parseAddress } from "#packet/address.ts";
import type { IpAddress } from "#packet/address.ts";
import { deviceOwner } from "#wire/helper.ts";
import type { HostNetwork } from "./route-check.ts";

const aliasStart = "telepresence, outside of the cluster:";

/** As many as fit, the first before the others: API servers have a few addresses. */
export function formatNeeds(addresses: readonly IpAddress[]): string {
  let alias = aliasStart;
  for (const address of addresses) {
    const longer = `${alias} ${formatAddress(address)}`;
    if (longer.length > maxLinkAliasBytes) break;
    alias = longer;
  }
  return alias;
}

/** What all connections but that of the device `own` need outside. */
export function neededByOthers(links: readonly Link[], own: string): HostNetwork["needed"] {
  return devicesOfOthers(links, own).flatMap(({ name, alias }) =>
    alias
      .slice(aliasStart.length)
      .split(" ")
      .flatMap((word) => {
        const address = parseAddress(word);
        return address === undefined ? [] : [{ address, device: name }];
      }),
  );
}

/** Throws while another user is connected: look-ups and routes are the whole machine's. */
export function checkAloneOnMachine(links: readonly Link[], uid: number): void {
  const other = links.find(({ name }) => (deviceOwner(name) ?? uid) !== uid);
  if (other === undefined) return;
  throw new AppError(
    "tun_unavailable",
    `the network device ${other.name} exists: another user of this machine is connected`,
    {
      hint: "use `telepresence connect --proxy` or `telepresence run`, or wait until that user has quit",
    },
  );
}

export function slotTaken(name: string, cause: unknown): AppError {
  return new AppError("tun_unavailable", `the network device ${name} exists: another connection of this user has it`, {
    cause,
    fields: { taken: name },
    hint: "use this connection with `telepresence connect --proxy` or `telepresence run`, or end the other one first",
  });
}

export function devicesOfOthers(links: readonly Link[], own: string): readonly Link[] {
  return links.filter(({ name }) => name !== own && deviceOwner(name) !== undefined);
}
