// Links, addresses and routes of this network namespace. Listing needs no privilege, changing needs NET_ADMIN.
import { AppError, isAppError } from "#base/error.ts";
import { formatAddress, formatPrefix } from "#packet/address.ts";
import type { IpAddress, Prefix } from "#packet/address.ts";
import type { NetlinkMessage } from "./netlink.ts";
import { NetlinkSocket } from "./netlink-socket.ts";
import {
  decodeAddress,
  decodeLink,
  decodeRoute,
  encodeDump,
  encodeLinkAlias,
  encodeLinkUp,
  encodeNewAddress,
  encodeNoAutomaticAddress,
  encodeRouteChange,
  encodeRouteTo,
  rtm,
} from "./rtnetlink-messages.ts";
import type { InterfaceAddress, Link, Route } from "./rtnetlink-messages.ts";

const netlinkRoute = 0;
/** chosen: a dump that the kernel says changed under it is read again this often. */
const maxDumpAttempts = 5;

export class RouteSocket implements Disposable {
  readonly #socket = new NetlinkSocket(netlinkRoute, "tun_unavailable");

  links(): readonly Link[] {
    return this.#dump(rtm.getLink, 16, decodeLink, "listing links");
  }
  addresses(): readonly InterfaceAddress[] {
    return this.#dump(rtm.getAddress, 8, decodeAddress, "listing addresses");
  }
  /** Routes of all tables, both families. */
  routes(): readonly Route[] {
    return this.#dump(rtm.getRoute, 12, decodeRoute, "listing routes");
  }

  /** The route the kernel takes to the address now, or undefined when it has none. */
  routeTo(address: IpAddress): Route | undefined {
    const what = `looking up the route to ${formatAddress(address)}`;
    try {
      const answers = this.#ask((sequence) => encodeRouteTo(sequence, address), what);
      return answers.map(decodeRoute).find((route) => route !== undefined);
    } catch (error) {
      const errno = isAppError(error) ? error.fields["errno"] : undefined;
      // What the kernel answers for no route, an unreachable, a prohibit and a blackhole route.
      if (errno === "ENETUNREACH" || errno === "EHOSTUNREACH" || errno === "EACCES" || errno === "EINVAL") {
        return undefined;
      }
      throw error;
    }
  }

  /** Keeps the kernel from giving the link an IPv6 address of its own; nothing to do where IPv6 is off. */
  disableAutomaticAddress(ifIndex: number): void {
    try {
      this.#ask((sequence) => encodeNoAutomaticAddress(sequence, ifIndex), "setting up the device for IPv6");
    } catch (error) {
      const errno = isAppError(error) ? error.fields["errno"] : undefined;
      if (errno !== "EAFNOSUPPORT" && errno !== "EINVAL" && errno !== "EOPNOTSUPP") throw error;
    }
  }
  setLinkUp(ifIndex: number, mtu: number): void {
    this.#ask((sequence) => encodeLinkUp(sequence, ifIndex, mtu), `bringing the device up with MTU ${mtu}`);
  }
  /** At most `maxLinkAliasBytes`. */
  setLinkAlias(ifIndex: number, alias: string): void {
    this.#ask((sequence) => encodeLinkAlias(sequence, ifIndex, alias), "giving the device an alias");
  }
  addAddress(ifIndex: number, address: IpAddress, bits: number): void {
    const what = `giving the device the address ${formatAddress(address)}/${bits}`;
    this.#ask((sequence) => encodeNewAddress(sequence, ifIndex, address, bits), what);
  }
  addRoute(destination: Prefix, ifIndex: number): void {
    const what = `adding the route ${formatPrefix(destination)}`;
    this.#ask((sequence) => encodeRouteChange(sequence, "add", destination, ifIndex), what);
  }
  /** Deleting what is not there is no error. */
  deleteRoute(destination: Prefix, ifIndex: number): void {
    const what = `removing the route ${formatPrefix(destination)}`;
    try {
      this.#ask((sequence) => encodeRouteChange(sequence, "delete", destination, ifIndex), what);
    } catch (error) {
      if (!isAppError(error) || error.fields["errno"] !== "ESRCH") throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }

  #ask(encode: (sequence: number) => Uint8Array, what: string): readonly NetlinkMessage[] {
    const sequence = this.#socket.nextSequence();
    return this.#socket.exchange(encode(sequence), new Set([sequence]), what);
  }

  #dump<T>(
    type: number,
    headerBytes: number,
    decode: (message: NetlinkMessage) => T | undefined,
    what: string,
  ): readonly T[] {
    for (let attempt = 1; ; attempt++) {
      try {
        return this.#ask((sequence) => encodeDump(sequence, type, headerBytes), what)
          .map(decode)
          .filter((item) => item !== undefined);
      } catch (error) {
        const interrupted = isAppError(error) && error.fields["errno"] === "EINTR";
        if (!interrupted) throw error;
        if (attempt === maxDumpAttempts) {
          throw new AppError("tun_unavailable", `${what} failed: they changed ${attempt} times while being read`);
        }
      }
    }
  }
}
