// One session of one user: at most one device, its routes, one DNS hook. Nobody else can have it twice, because the
// device's name holds the user's id and its slot, and the kernel gives a name out once; both are gone with the session.
import type { Clock } from "#base/clock.ts";
import { AppError, isAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { libc } from "#kernel/ffi.ts";
import { RouteSocket } from "#kernel/rtnetlink.ts";
import { routeTable } from "#kernel/rtnetlink-messages.ts";
import { openTun } from "#kernel/tun.ts";
import { formatPrefix, parseAddress, parsePrefix } from "#packet/address.ts";
import type { IpAddress, Prefix } from "#packet/address.ts";
import { formatDeviceName } from "#wire/helper.ts";
import type { DnsHook, HelperParams, HelperResult } from "#wire/helper.ts";
import { openDnsHook } from "./dns-hook.ts";
import type { OpenDnsHook } from "./dns-hook.ts";
import { hostResolvers } from "./host-resolvers.ts";
import { checkAloneOnMachine, devicesOfOthers, formatNeeds, neededByOthers, slotTaken } from "./neighbours.ts";
import { checkRoutes, parseRoute } from "./route-check.ts";
import type { HostNetwork } from "./route-check.ts";

export interface SessionDevice {
  readonly name: string;
  readonly slot: number;
  readonly index: number;
  /** The device's own networks. */
  readonly networks: readonly Prefix[];
}

interface DeviceAddress {
  readonly address: IpAddress;
  readonly bits: number;
  readonly network: Prefix;
}

export class HelperSession implements AsyncDisposable {
  readonly #uid: number;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #netlink = new RouteSocket();
  readonly #routes = new Map<string, Prefix>();
  #device: SessionDevice | undefined;
  #dns: OpenDnsHook | undefined;
  #closing: Promise<void> | undefined;

  constructor(uid: number, clock: Clock, log: Logger) {
    this.#uid = uid;
    this.#clock = clock;
    this.#log = log;
  }

  /** The descriptor is to be passed on, then released: from then on the device lives as long as the daemon's copy. */
  openDevice(params: HelperParams<"device.open">): {
    readonly result: HelperResult<"device.open">;
    readonly fd: number;
    readonly release: () => void;
  } {
    if (this.#device !== undefined) throw new AppError("protocol", `the device ${this.#device.name} is open already`);
    const addresses = params.addresses.map(parseDeviceAddress);
    const { slot = 0, mtu } = params;
    checkAloneOnMachine(this.#netlink.links(), this.#uid);
    const { fd, name } = this.#makeDevice(slot);
    const release = (): void => void libc().close(fd);
    try {
      const index = this.#indexOf(name);
      const networks = addresses.map(({ network }) => network);
      checkRoutes(networks, this.#hostNetwork({ name, index }), { never: [], overlap: [] });
      this.#netlink.setLinkAlias(index, formatNeeds([]));
      this.#netlink.disableAutomaticAddress(index);
      for (const { address, bits } of addresses) this.#netlink.addAddress(index, address, bits);
      this.#netlink.setLinkUp(index, mtu);
      this.#device = { name, slot, index, networks };
      this.#log.info("device opened", { device: name, addresses: params.addresses });
      return { result: { name, index, mtu }, fd, release };
    } catch (error) {
      release();
      throw error;
    }
  }

  /** All or nothing: on failure the routes are as they were. */
  setRoutes(params: HelperParams<"routes.set">): HelperResult<"routes.set"> {
    const device = this.#requireDevice();
    const never = params.never.map(requireAddress);
    const overlap = (params.overlap ?? []).map(parseRoute);
    const wanted = new Map(params.routes.map((text) => [text, parseRoute(text)]));
    // Whoever manages this machine's network may have taken away what we set: what counts is what stands.
    const standing = this.#standingRoutes(device);
    const added = [...wanted].filter(([text]) => !standing.has(text)).map(([, prefix]) => prefix);
    const removed = [...this.#routes].filter(([text]) => !wanted.has(text)).map(([, prefix]) => prefix);
    // Those that stand are checked again: the host, or what may never be a route, may have changed.
    this.#netlink.setLinkAlias(
      device.index,
      formatNeeds(never.filter((address) => !this.#leadsToAnother(address, device))),
    );
    const check = (): void => {
      // Another user's helper may have looked when there was no device yet.
      checkAloneOnMachine(this.#netlink.links(), this.#uid);
      checkRoutes([...wanted.values()], this.#hostNetwork(device), { never, overlap });
    };
    check();
    // And once more: another connection's helper may have looked at the same time, and added what overlaps.
    this.#add(added, device, check);
    for (const [text, prefix] of wanted) this.#routes.set(text, prefix);
    for (const prefix of removed) this.#remove(prefix, device);
    this.#log.info("routes set", { added: added.map(formatPrefix), removed: removed.map(formatPrefix) });
    return { added: added.length, removed: removed.length };
  }

  async hookDns(hook: DnsHook): Promise<void> {
    const device = this.#requireDevice();
    const standing = this.#dns;
    if (standing?.mode === hook.mode) {
      await standing.replace(hook);
    } else {
      await this.unhookDns();
      this.#dns = await openDnsHook(hook, { device, uid: this.#uid, clock: this.#clock });
    }
    this.#log.info("DNS hooked", { mode: hook.mode });
  }

  async unhookDns(): Promise<void> {
    const standing = this.#dns;
    this.#dns = undefined;
    await standing?.close();
  }

  /** Undoes what can still be undone; what cannot is gone with the device already. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    try {
      await this.unhookDns();
    } catch (error) {
      this.#log.warn("DNS hook not taken away", { error: String(error) });
    }
    const device = this.#device;
    this.#device = undefined;
    // The index may belong to another link once ours is gone.
    if (device !== undefined && this.#isOurs(device)) {
      for (const prefix of this.#routes.values()) this.#removeQuietly(prefix, device);
    }
    this.#routes.clear();
    this.#netlink[Symbol.dispose]();
  }

  #makeDevice(slot: number): { readonly fd: number; readonly name: string } {
    const name = formatDeviceName(this.#uid, slot);
    try {
      return openTun(name);
    } catch (error) {
      if (!isAppError(error) || error.fields["errno"] !== "EBUSY") throw error;
      throw slotTaken(name, error);
    }
  }

  #add(prefixes: readonly Prefix[], device: SessionDevice, checkAgain: () => void): void {
    const done: Prefix[] = [];
    try {
      for (const prefix of prefixes) {
        this.#addOne(prefix, device);
        done.push(prefix);
        this.#routes.set(formatPrefix(prefix), prefix);
        this.#checkTaken(prefix, device);
      }
      if (prefixes.length > 0) checkAgain();
    } catch (error) {
      for (const prefix of done) this.#removeQuietly(prefix, device);
      throw error;
    }
  }

  #addOne(prefix: Prefix, device: SessionDevice): void {
    try {
      this.#netlink.addRoute(prefix, device.index);
    } catch (error) {
      throw asConflict(error, prefix);
    }
  }

  /** A rule of a VPN's may send the addresses elsewhere although the route is there. */
  #checkTaken(prefix: Prefix, device: SessionDevice): void {
    const route = this.#netlink.routeTo(prefix.address);
    if (route?.ifIndex === device.index) return;
    const other = route?.ifIndex === undefined ? "nowhere" : `to ${this.#linkName(route.ifIndex)}`;
    const message = `packets for ${formatPrefix(prefix)} go ${other} in spite of the route to ${device.name}`;
    throw new AppError("route_conflict", message, {
      hint: "a VPN's routing rules (`ip rule`) stand above it",
      fields: { route: formatPrefix(prefix), against: [] },
    });
  }

  #remove(prefix: Prefix, device: SessionDevice): void {
    this.#netlink.deleteRoute(prefix, device.index);
    this.#routes.delete(formatPrefix(prefix));
  }
  #removeQuietly(prefix: Prefix, device: SessionDevice): void {
    try {
      this.#remove(prefix, device);
    } catch (error) {
      this.#log.warn("route not taken away", { route: formatPrefix(prefix), error: String(error) });
    }
  }

  #hostNetwork(own: Pick<SessionDevice, "name" | "index">): HostNetwork {
    return {
      routes: this.#netlink.routes().filter(({ table, ifIndex }) => table === routeTable.main && ifIndex !== own.index),
      addresses: this.#netlink.addresses().filter(({ ifIndex }) => ifIndex !== own.index),
      needed: neededByOthers(this.#netlink.links(), own.name),
      resolvers: hostResolvers(),
      linkName: (ifIndex) => this.#linkName(ifIndex),
    };
  }

  /** What is reached by another connection's device already cannot be kept out of that one's routes. */
  #leadsToAnother(address: IpAddress, own: SessionDevice): boolean {
    const index = this.#netlink.routeTo(address)?.ifIndex;
    const links = devicesOfOthers(this.#netlink.links(), own.name);
    return links.some(({ ifIndex }) => ifIndex === index);
  }

  #standingRoutes({ index }: SessionDevice): ReadonlySet<string> {
    const routes = this.#netlink
      .routes()
      .filter(({ table, ifIndex }) => table === routeTable.main && ifIndex === index);
    return new Set(routes.map(({ destination }) => formatPrefix(destination)));
  }

  #linkName(ifIndex: number): string {
    return this.#netlink.links().find((link) => link.ifIndex === ifIndex)?.name ?? `interface ${ifIndex}`;
  }
  #indexOf(name: string): number {
    const link = this.#netlink.links().find((candidate) => candidate.name === name);
    if (link === undefined) throw new AppError("tun_unavailable", `the network device ${name} went away at once`);
    return link.ifIndex;
  }
  #isOurs(device: SessionDevice): boolean {
    return this.#netlink.links().some(({ ifIndex, name }) => ifIndex === device.index && name === device.name);
  }
  #requireDevice(): SessionDevice {
    if (this.#device !== undefined) return this.#device;
    throw new AppError("protocol", "there is no device yet; expected `device.open` first");
  }
}

/** `246.246.0.1/30`: an address in a network, neither of them the other's. */
function parseDeviceAddress(text: string): DeviceAddress {
  const [addressText = "", bitsText = ""] = text.split("/");
  const address = parseAddress(addressText);
  const network = parsePrefix(text);
  const minBits = address?.length === 16 ? 64 : 16;
  if (address !== undefined && network !== undefined && bitsText !== "" && network.bits >= minBits) {
    return { address, bits: network.bits, network };
  }
  throw new AppError("protocol", `"${text}" is no device address; expected an address and /${minBits} or longer`);
}

function requireAddress(text: string): IpAddress {
  const address = parseAddress(text);
  if (address !== undefined) return address;
  throw new AppError("protocol", `"${text}" is no IP address`);
}

function asConflict(error: unknown, prefix: Prefix): unknown {
  if (!isAppError(error) || error.fields["errno"] !== "EEXIST") return error;
  const fields = { ...error.fields, route: formatPrefix(prefix), against: [formatPrefix(prefix)] };
  return new AppError("route_conflict", error.message, { cause: error, fields });
}
