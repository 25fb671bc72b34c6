// The addresses that the device's network gives us, one set a family, parsed once.
import { AppError } from "#base/error.ts";
import { parseAddress, type IpAddress } from "#packet/address.ts";

/** Text as it comes from configuration; all three lie in the device's own network. */
export interface OutboundFamily {
  /** The device's own address, where our listener is. */
  readonly address: string;
  /** A socket that is bound to it, where the device is in another network namespace. */
  readonly listener?: number;
  /** Belongs to nobody: redirected connections seem to come from it. */
  readonly peer: string;
  /** Belongs to nobody: the self-test connects to it and we answer. */
  readonly probe: string;
}

export interface OutboundAddresses {
  readonly v4?: OutboundFamily;
  readonly v6?: OutboundFamily;
}

export interface FamilyAddresses {
  readonly version: 4 | 6;
  readonly text: OutboundFamily;
  readonly address: IpAddress;
  readonly peer: IpAddress;
  readonly probe: IpAddress;
}

export function parseFamily(version: 4 | 6, text: OutboundFamily): FamilyAddresses {
  const parse = (value: string): IpAddress => {
    const parsed = parseAddress(value);
    if (parsed?.length === (version === 4 ? 4 : 16)) return parsed;
    throw new AppError("invalid_config", `device address ${value} is not an IPv${version} address`);
  };
  return { version, text, address: parse(text.address), peer: parse(text.peer), probe: parse(text.probe) };
}
