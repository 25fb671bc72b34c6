// The two ways in which the laptop's look-ups reach the daemon's DNS server, both gone by themselves: an owned nft
// table (with this process), or link settings of systemd-resolved (with the device).
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, isAppError, toAppError } from "#base/error.ts";
import { exec, execOk } from "#host/exec.ts";
import { forgetUdpFlows } from "#kernel/conntrack.ts";
import { NetworkNews } from "#kernel/network-news.ts";
import { natPriority, OwnedTable, type Chain } from "#kernel/nftables.ts";
import { dnsRedirect, markForwarded } from "#kernel/nft-rules.ts";
import { RouteSocket } from "#kernel/rtnetlink.ts";
import { parseAddress, prefixContains, sameAddress } from "#packet/address.ts";
import type { IpAddress } from "#packet/address.ts";
import { maxDeviceSlots, type DnsHook } from "#wire/helper.ts";
import { formatEndpoint } from "#wire/open.ts";
import { programEnvironment } from "./config.ts";
import { configuredNameservers } from "./host-resolvers.ts";
import { devicesOfOthers } from "./neighbours.ts";
import type { SessionDevice } from "./session.ts";

type NftHook = Extract<DnsHook, { mode: "nft" }>;
type ResolvedHook = Extract<DnsHook, { mode: "resolved" }>;

export interface DnsHookContext {
  readonly device: SessionDevice;
  readonly uid: number;
  readonly clock: Clock;
}

export interface OpenDnsHook {
  readonly mode: DnsHook["mode"];
  /** Takes a hook of the same mode. */
  replace(hook: DnsHook): Promise<void>;
  close(): Promise<void>;
}

/** chosen: resolvectl answers in milliseconds. */
const resolvectlMs = 3000;
/**
 * chosen: all of one hook's settings. With a `revert` before and one behind it stays below the daemon's limit of a
 * call, at which the connection ends and the session with it.
 */
const settingsMs = 8000;
/** RFC 1035 labels, with the underscore that people use. */
const domainPattern = /^(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*$/;

export async function openDnsHook(hook: DnsHook, context: DnsHookContext): Promise<OpenDnsHook> {
  const opened = hook.mode === "nft" ? openRedirect(context) : createResolvedHook(context);
  try {
    await opened.replace(hook);
    return opened;
  } catch (error) {
    await opened.close().catch(() => undefined); // the first error is the one that tells
    throw error;
  }
}

/** Marks what the daemon forwards before any redirect sees it. The priority is the kernel's of mangling. */
const markChain: Chain = { name: "forwarded", type: "filter", hook: "output", priority: -150 };

function openRedirect({ device, uid }: DnsHookContext): OpenDnsHook {
  const { slot } = device;
  const name = `telepresence-${uid}${slot === 0 ? "" : `-${slot}`}`;
  using opening = new DisposableStack();
  const table = asHookFailure(() => {
    // The highest slot's comes first.
    const opened = opening.use(OwnedTable.open(name, ["output"], natPriority + maxDeviceSlots - 1 - slot));
    opened.addChain(markChain, []);
    return opened;
  });
  let hooked: readonly IpAddress[] = [];
  opening.use(asHookFailure(() => onDeviceGone(device.name, () => forgetLookUps(hooked))));
  const parts = opening.move();
  return {
    mode: "nft",
    replace: (hook) => {
      const { port, nameservers, upstreamSourcePorts, pastOthersSourcePorts = [] } = hook as NftHook;
      const redirect = { port, nameservers: nameservers.map(checkNameserver), slot };
      asHookFailure(() => {
        const marks = [...markForwarded(upstreamSourcePorts, slot), ...markForwarded(pastOthersSourcePorts, 0)];
        table.replaceRules(markChain.name, marks);
        table.replaceRules("output", dnsRedirect(redirect));
      });
      forgetLookUps([...hooked, ...redirect.nameservers]);
      hooked = redirect.nameservers;
      return Promise.resolve();
    },
    close: () => {
      parts[Symbol.dispose]();
      forgetLookUps(hooked);
      return Promise.resolve();
    },
  };
}

/** Another connection may end without a word, and flows that lead to it would be kept alive by who uses them. */
function onDeviceGone(own: string, onGone: () => void): Disposable {
  const others = (): readonly string[] => {
    using socket = new RouteSocket();
    return devicesOfOthers(socket.links(), own).map(({ name }) => name);
  };
  let known = others();
  const onNews = (): void => {
    try {
      const now = others();
      if (known.some((name) => !now.includes(name))) onGone();
      known = now;
    } catch {
      // A shortage: the next news is looked at again.
    }
  };
  return new NetworkNews({ isOwn: (name) => name === own, onNews });
}

/** Programs that ask from one port again and again would go on as before the rules changed. */
function forgetLookUps(nameservers: readonly IpAddress[]): void {
  try {
    forgetUdpFlows(nameservers, 53);
  } catch {
    // A kernel that does not tell its flows: each ends by itself within two minutes.
  }
}

function createResolvedHook({ device, clock }: DnsHookContext): OpenDnsHook {
  const options = { clock, env: programEnvironment(), timeoutMs: resolvectlMs };
  return {
    mode: "resolved",
    replace: async (hook) => {
      const { server, port, domains, search = [] } = checkResolved(hook as ResolvedHook, device);
      using limit = deadline(clock, settingsMs, "giving systemd-resolved the device's settings");
      const run = (...args: readonly string[]): Promise<string> =>
        execOk("resolvectl", args, { ...options, signal: limit.signal });
      try {
        await run("dns", device.name, formatServer(server, port));
        await run("domain", device.name, ...search, ...domains.map((domain) => `~${domain}`));
        // Only our names come to us, and they are neither signed nor answered by multicast.
        await run("default-route", device.name, "false");
        for (const setting of ["dnssec", "dnsovertls", "llmnr", "mdns"]) await run(setting, device.name, "no");
      } catch (error) {
        throw hookFailure("systemd-resolved did not take the device's DNS settings", error);
      }
    },
    close: async () => {
      // Fails when the device is gone already, and its settings with it.
      await exec("resolvectl", ["revert", device.name], options);
    },
  };
}

function checkResolved(hook: ResolvedHook, device: SessionDevice): ResolvedHook {
  const server = parseAddress(hook.server);
  const isLoopback = server !== undefined && (server[0] === 127 || hook.server === "::1");
  const isOurs = server !== undefined && device.networks.some((network) => prefixContains(network, server));
  if (!isLoopback && !isOurs) {
    throw new AppError("protocol", `the DNS server "${hook.server}" is neither on the device nor on loopback`);
  }
  for (const domain of [...hook.domains, ...(hook.search ?? [])]) {
    if (domain.length <= 253 && domainPattern.test(domain)) continue;
    throw new AppError("protocol", `"${domain}" is no domain name; expected lower-case labels`);
  }
  return hook;
}

function formatServer(address: string, port: number): string {
  if (port === 53) return address;
  return formatEndpoint({ address, port });
}

/** Everybody's look-ups go where the hook says: only those that the host itself sends to this address may. */
function checkNameserver(text: string): IpAddress {
  const address = parseNameserver(text);
  if (configuredNameservers().some((known) => known.length === address.length && sameAddress(known, address))) {
    return address;
  }
  throw new AppError("denied", `${text} is no nameserver of this laptop; expected one of /etc/resolv.conf`);
}

/** A nameserver may have a zone, which the redirect does not need. */
function parseNameserver(text: string): IpAddress {
  const address = parseAddress(text.split("%")[0] ?? "");
  if (address !== undefined) return address;
  throw new AppError("protocol", `"${text}" is no nameserver's address`);
}

function asHookFailure<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw hookFailure("look-ups cannot be redirected", error);
  }
}

function hookFailure(what: string, cause: unknown): AppError {
  if (isAppError(cause, "protocol")) return cause;
  const { message, hint, fields } = toAppError(cause);
  return new AppError("dns_hook_failed", `${what}: ${message}`, {
    cause,
    fields,
    ...(hint === undefined ? {} : { hint }),
  });
}
