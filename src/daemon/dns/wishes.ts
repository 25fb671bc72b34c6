// What the user says about names, brought together: the kubeconfig's extension before config.yml, key by key.
import { isIP } from "node:net";
import { AppError } from "#base/error.ts";
import { isLoopback, type HostResolver } from "#host/resolver.ts";
import type { DnsWishes } from "#wire/dns-wishes.ts";

type Undefinable<T> = { readonly [K in keyof T]?: T[K] | undefined };

const labelPattern = /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/i;

/** What is set in `above`, and of the rest what is set in `below`. Empty lists of the extension are none. */
export function mergeWishes(above: Undefinable<DnsWishes>, below: DnsWishes): DnsWishes {
  const set = Object.entries(above).filter(([, value]) => value !== undefined && !isEmptyList(value));
  const merged: DnsWishes = { ...below, ...Object.fromEntries(set) };
  const { includeSuffixes = [], excludeSuffixes = [], excludes = [], mappings = [], localAddresses = [] } = merged;
  for (const suffix of [...includeSuffixes, ...excludeSuffixes]) checkName("suffix", suffix.replace(/^\./, ""));
  for (const name of excludes) checkName("name", name);
  for (const { name, aliasFor } of mappings) {
    checkName("name of a mapping", name);
    if (isIP(aliasFor) === 0) checkName("alias of a mapping", aliasFor);
  }
  for (const address of localAddresses) {
    if (isIP(address) === 0) throw invalid(`${address} is no nameserver's address`, "expected one such as 192.0.2.53");
  }
  return merged;
}

/**
 * The host's resolver with the nameservers that the user would rather have asked. One on this machine may ask those of
 * resolv.conf in turn, which the redirect takes for a program's question: it is for them all the same.
 */
export function withLocalAddresses(resolver: HostResolver, { localAddresses = [] }: DnsWishes): HostResolver {
  if (localAddresses.length === 0) return resolver;
  const others = resolver.nameservers.filter((address) => !localAddresses.includes(address));
  const asksUs = resolver.mode === "nft" && localAddresses.some(isLoopback) && others.length > 0;
  return { ...resolver, nameservers: localAddresses, ...(asksUs ? { behind: others } : {}) };
}

function checkName(what: string, text: string): void {
  const labels = text.replace(/\.$/, "").split(".");
  if (text.length <= 254 && labels.every((label) => labelPattern.test(label))) return;
  throw invalid(`"${text}" is no ${what}`, "expected labels of letters, digits, - and _ with dots between them");
}

function invalid(message: string, hint: string): AppError {
  return new AppError("invalid_config", `dns: ${message}`, { hint: `${hint}; see config.yml and the kubeconfig` });
}

function isEmptyList(value: unknown): boolean {
  return Array.isArray(value) && value.length === 0;
}
