// News of this network namespace's links, addresses and routes, from the kernel itself (rtnetlink(7)). No privilege is
// needed. What wireless cards and routers say again and again without a change is no news.
import { checkCall, libc, watchReadable } from "./ffi.ts";
import type { ReadinessWatch } from "./ffi.ts";
import { decodeMessages, viewOf } from "./netlink.ts";
import type { NetlinkMessage } from "./netlink.ts";
import { RouteSocket } from "./rtnetlink.ts";
import { decodeAddress, decodeLink, decodeRoute, rtm } from "./rtnetlink-messages.ts";
import type { InterfaceAddress, Link } from "./rtnetlink-messages.ts";

const afNetlink = 16;
const sockRaw = 3;
const sockCloexec = 0o2000000;
const dontWait = 0x40;
const enobufs = 105;
/** RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR and _IPV6_ROUTE. */
const groups = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
const receiveBytes = 64 * 1024;

export interface NetworkNewsOptions {
  /** What becomes of one's own devices is no news. */
  readonly isOwn: (deviceName: string) => boolean;
  /** Something has changed; many times in a storm. */
  readonly onNews: () => void;
}

export class NetworkNews implements Disposable {
  readonly #options: NetworkNewsOptions;
  readonly #fd: number;
  readonly #watch: ReadinessWatch;
  readonly #into = new Uint8Array(receiveBytes);
  #links = new Map<number, Link>();
  #addresses = new Set<string>();
  #closed = false;

  constructor(options: NetworkNewsOptions) {
    this.#options = options;
    const c = libc();
    this.#fd = checkCall(c.socket(afNetlink, sockRaw | sockCloexec, 0), "internal", "opening a netlink socket");
    try {
      const address = new Uint8Array(12);
      viewOf(address).setUint16(0, afNetlink, true);
      viewOf(address).setUint32(8, groups, true);
      checkCall(c.bind(this.#fd, address, address.length), "internal", "subscribing to news of the network");
      this.#learn();
      this.#watch = watchReadable(this.#fd, () => this.#read());
    } catch (error) {
      c.close(this.#fd);
      throw error;
    }
    this.#watch.unref();
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#watch.close();
    libc().close(this.#fd);
  }

  #learn(): void {
    using socket = new RouteSocket();
    this.#links = new Map(socket.links().map((link) => [link.ifIndex, link]));
    this.#addresses = new Set(socket.addresses().map(nameOf));
  }

  /** Nobody waits for this turn of the loop: thrown further, a shortage would end the process. */
  #learnAgain(): void {
    try {
      this.#learn();
    } catch {
      // what was known before is better than nothing
    }
  }

  #read(): void {
    let isNews = false;
    while (!this.#closed) {
      const length = libc().recv(this.#fd, this.#into, receiveBytes, dontWait);
      if (length === -enobufs) {
        // More than the kernel keeps for a reader: nobody knows what it was.
        isNews = true;
        this.#learnAgain();
      } else if (length <= 0) break;
      else for (const message of decodeMessages(this.#into.subarray(0, length))) isNews = this.#take(message) || isNews;
    }
    if (isNews) this.#options.onNews();
  }

  /** Whether it is news. */
  #take(message: NetlinkMessage): boolean {
    switch (message.type) {
      case rtm.newLink:
      case rtm.deleteLink:
        return this.#takeLink(decodeLink({ ...message, type: rtm.newLink }), message.type === rtm.deleteLink);
      case rtm.newAddress:
      case rtm.deleteAddress:
        return this.#takeAddress(
          decodeAddress({ ...message, type: rtm.newAddress }),
          message.type === rtm.deleteAddress,
        );
      case rtm.newRoute:
      case rtm.deleteRoute:
        return !this.#isOwn(decodeRoute({ ...message, type: rtm.newRoute })?.ifIndex);
      default:
        return false;
    }
  }

  #takeLink(link: Link | undefined, isGone: boolean): boolean {
    if (link === undefined) return false;
    const before = this.#links.get(link.ifIndex);
    this.#links.set(link.ifIndex, link); // also of one that is gone: its routes are told later
    if (this.#options.isOwn(link.name)) return false;
    return isGone || before?.up !== link.up || before.hasCarrier !== link.hasCarrier;
  }

  #takeAddress(address: InterfaceAddress | undefined, isGone: boolean): boolean {
    if (address === undefined || this.#isOwn(address.ifIndex)) return false;
    const name = nameOf(address);
    const wasThere = isGone ? this.#addresses.delete(name) : this.#addresses.has(name);
    if (!isGone) this.#addresses.add(name);
    return wasThere === isGone;
  }

  #isOwn(ifIndex: number | undefined): boolean {
    const name = ifIndex === undefined ? undefined : this.#links.get(ifIndex)?.name;
    return name !== undefined && this.#options.isOwn(name);
  }
}

function nameOf({ ifIndex, address, bits }: InterfaceAddress): string {
  return `${ifIndex} ${Buffer.from(address).toString("hex")}/${bits}`;
}
