// What `status` says of the link to the manager: what carries it, how it is, and what became of it.
import type { Duplex } from "node:stream";
import type { DaemonStatus } from "#wire/control-api.ts";
import type { DirectWay } from "./direct-way.ts";
import type { ManagerLink } from "./manager-link.ts";

type Transport = NonNullable<DaemonStatus["transport"]>;

/** Who knows transports that are not the direct way's. */
export interface Describer {
  describeTransport(transport: Duplex): Transport;
}

export function linkStatus(
  { current, transport, changes }: ManagerLink,
  direct: DirectWay | undefined,
  access: Describer,
): Pick<DaemonStatus, "transport" | "roundTrip" | "linkChanges"> {
  const { roundTripMs: value, silentMs: ageMs } = current?.session ?? {};
  const isThere = current !== undefined && transport !== undefined;
  return {
    linkChanges: changes,
    ...(isThere ? { transport: describe(transport, direct, access) } : {}),
    ...(value === undefined || ageMs === undefined ? {} : { roundTrip: { value, ageMs } }),
  };
}

function describe(transport: Duplex, direct: DirectWay | undefined, access: Describer): Transport {
  const place = direct?.nameOf(transport);
  if (place !== undefined) return { name: "direct", protocol: `TLS to ${place}` };
  const note = direct?.problem;
  const described = access.describeTransport(transport);
  return note === undefined ? described : { ...described, note: `direct is not taken: ${note}` };
}
