// Which names are ours. Pure: a table from (name, type) to who answers; the tests are the specification.
//
// Three kinds of ours: the cluster domain, `*.svc` and include suffixes belong to nobody else; `<x>.<namespace>` too,
// unless the namespace is spelled like a public suffix; single labels (and those suffixes) are shared with the host:
// the cluster is asked first, and what it does not know is the host's.
// @from daemon/dns/resolve.ts
import { isIP } from "node:net";
import { prefixContains, type Prefix } from "#packet/address.ts";
import type { Translation } from "#packet/translation.ts";
import { dnsTypes } from "#packet/dns-message.ts";
import { isPublicSuffix } from "./public-suffix.ts";

export interface DnsConfig {
  /** The connection's name: what a pod of its cluster would find is below `NAME.telepresence`, too. */
  readonly connection?: string;
  /** Another connection has the names as the cluster writes them; ours are those below the suffix. */
  readonly suffixOnly?: boolean;
  /** `cluster.local` */
  readonly clusterDomain: string;
  /** The connection's namespace: single labels are looked up as a pod in it would. */
  readonly namespace: string;
  /** Single labels that are not in it are looked up in these. */
  readonly alsoNamespaces?: readonly string[];
  /** Namespaces whose services are known here: `<service>.<namespace>` is ours. */
  readonly namespaces: readonly string[];
  /** Services of the connection's namespace: `<pod>.<service>` is ours. */
  readonly services?: readonly string[];
  /** Addresses that services of it certainly have now: nobody is asked for them. */
  readonly serviceAddresses?: Readonly<Record<string, readonly string[]>>;
  /** The cluster's, but for public ones its first; the longer of include and exclude wins. A leading dot is nothing. */
  readonly includeSuffixes?: readonly string[];
  /** Never the cluster's. Default: `defaultExcludeSuffixes`. */
  readonly excludeSuffixes?: readonly string[];
  /** Exact names that stay the host's. */
  readonly excludes?: readonly string[];
  /** Names that stand for another name, or for an address. */
  readonly mappings?: readonly { readonly name: string; readonly aliasFor: string }[];
  /** Pod and service ranges: reverse look-ups of their addresses are ours. */
  readonly subnets?: readonly Prefix[];
  /** Where the laptop sees addresses that are elsewhere in the cluster. */
  readonly translation?: Translation;
  /** Addresses of IPv6 are left out of the cluster's answers: nothing here would reach them. */
  readonly withoutIpv6?: boolean;
}

/** What of it changes with the cluster. */
export type ChangingNames = Partial<Pick<DnsConfig, "namespaces" | "services" | "serviceAddresses" | "alsoNamespaces">>;

export const defaultExcludeSuffixes = [".arpa", ".com", ".io", ".net", ".org", ".ru"] as const;
/** The search domain that the hook gives systemd-resolved, so that it sends us single labels. It exists nowhere else. */
export const searchDomain = "tel2-search";
const checkLabel = "telepresence-check";
/** Asked through the system's resolver to see that the hook works; answered here. */
export const checkName = `${checkLabel}.${searchDomain}`;
/** Below it each connection has a suffix of its own. It is no public suffix. */
const connectionsDomain = "telepresence";

/** protocol: of the root helper's `dns.hook`. */
const maxRoutingDomains = 256;

export type Verdict =
  | { readonly kind: "host" }
  /** Ours, and certainly not there: nobody is asked. */
  | { readonly kind: "missing" }
  | { readonly kind: "check" }
  /** The user's own: another name or an address. */
  | { readonly kind: "alias"; readonly target: string }
  | {
      readonly kind: "cluster";
      /** Full names to ask for, in order, until one exists. */
      readonly candidates: readonly string[];
      /** Who answers when none exists. */
      readonly otherwise: "host" | "missing";
      /** Outside the cluster domain: the cluster's resolver asks further, perhaps the laptop itself. */
      readonly foreign?: true;
      /** Names of the zone in the answer go below the suffix: bare they may be another connection's. */
      readonly below?: { readonly zone: string; readonly suffix: string };
    };

const host: Verdict = { kind: "host" };
const missing: Verdict = { kind: "missing" };

/** Types that programs ask about single labels; NS, DS and the like come from resolvers that walk the public tree. */
const singleLabelTypes = new Set<number>([
  dnsTypes.a,
  dnsTypes.aaaa,
  dnsTypes.cname,
  dnsTypes.mx,
  dnsTypes.txt,
  dnsTypes.srv,
  dnsTypes.https,
  dnsTypes.any,
]);

export class Names {
  readonly #domain: string;
  readonly #suffix: string | undefined;
  readonly #suffixOnly: boolean;
  /** Where single labels are looked up. */
  readonly #searched: readonly string[];
  readonly #namespaces: ReadonlySet<string>;
  readonly #services: ReadonlySet<string>;
  readonly #includes: readonly string[];
  readonly #excludes: readonly string[];
  readonly #excludedNames: ReadonlySet<string>;
  readonly #aliases: ReadonlyMap<string, string>;
  readonly #subnets: readonly Prefix[];
  readonly #translation: Translation | undefined;

  constructor(config: DnsConfig) {
    this.#domain = plain(config.clusterDomain);
    this.#suffix = suffixOf(config);
    this.#suffixOnly = config.suffixOnly === true;
    this.#searched = [config.namespace, ...(config.alsoNamespaces ?? [])].map(plain);
    this.#namespaces = new Set([...config.namespaces.map(plain), ...this.#searched]);
    this.#services = new Set((config.services ?? []).map(plain));
    this.#includes = [...(config.includeSuffixes ?? []).map(plain), this.#domain];
    this.#excludes = (config.excludeSuffixes ?? defaultExcludeSuffixes).map(plain);
    this.#excludedNames = new Set((config.excludes ?? []).map(plain));
    this.#aliases = new Map((config.mappings ?? []).map(({ name, aliasFor }) => [plain(name), plain(aliasFor)]));
    this.#subnets = config.subnets ?? [];
    this.#translation = config.translation;
  }

  /** The name in lower case without a last dot. */
  classify(name: string, type: number): Verdict {
    const suffix = this.#suffix;
    if (suffix !== undefined && (name === suffix || endsIn(name, suffix)))
      return this.#classifyBelow(name, type, suffix);
    if (this.#suffixOnly) return endsIn(name, "arpa") ? this.#classifyReverse(name) : host;
    if (name === checkLabel || name === checkName) return { kind: "check" };
    if (name === searchDomain) return missing;
    if (!endsIn(name, searchDomain)) return this.#classifyBare(name, type);
    const verdict = this.#classifyBare(name.slice(0, -searchDomain.length - 1), type);
    if (verdict.kind === "alias") return verdict;
    // The search domain is ours alone: what is not in the cluster is nowhere.
    return verdict.kind === "cluster" ? { ...verdict, otherwise: "missing" } : missing;
  }

  /** Nobody else's, and whatever is found there stays there. */
  #classifyBelow(name: string, type: number, suffix: string): Verdict {
    const bare = name.slice(0, -suffix.length - 1);
    if (bare === "") return missing;
    if (bare === checkLabel) return { kind: "check" };
    const verdict = this.#classifyBare(bare, type);
    if (verdict.kind === "alias") {
      return isIP(verdict.target) === 0 ? { kind: "alias", target: `${verdict.target}.${suffix}` } : verdict;
    }
    if (verdict.kind !== "cluster") return missing;
    return { ...verdict, otherwise: "missing", below: { zone: this.#domain, suffix } };
  }

  #classifyBare(name: string, type: number): Verdict {
    const alias = this.#aliases.get(name);
    if (alias !== undefined) return { kind: "alias", target: alias };
    const labels = name.split(".");
    const inDomain = name === this.#domain || endsIn(name, this.#domain);
    if (isDiscovery(labels)) return inDomain ? missing : host;
    if (this.#excludedNames.has(name)) return host;
    if (endsIn(name, "arpa")) return this.#classifyReverse(name);
    if (inDomain) return only(name);
    if (isLocalName(labels) || name === "") return host;
    return this.#classifyBySuffix(name) ?? this.#classifyShort(name, labels, type);
  }

  #classifyBySuffix(name: string): Verdict | undefined {
    const include = longestSuffix(name, this.#includes);
    const exclude = longestSuffix(name, this.#excludes);
    if (include === 0 && exclude === 0) return undefined;
    if (include <= exclude) return host;
    // Also when the user says so, a public suffix belongs to the world as well.
    const otherwise = isPublicSuffix(name.slice(-include)) ? "host" : "missing";
    return { ...only(name), otherwise, foreign: true };
  }

  /** `hello`: what a pod's search path makes of it. */
  #classifySingle(name: string, type: number): Verdict {
    if (!/^[a-z0-9][a-z0-9_-]*$/.test(name) || !singleLabelTypes.has(type)) return host;
    const domain = this.#domain;
    const inSearched = this.#searched.map((namespace) => `${name}.${namespace}.svc.${domain}`);
    const candidates = [...inSearched, `${name}.svc.${domain}`, `${name}.${domain}`];
    return { kind: "cluster", candidates, otherwise: "host" };
  }

  /** `hello.ns`, `hello.ns.svc`, `web-0.web`, `_http._tcp.hello`. */
  #classifyShort(name: string, labels: readonly string[], type: number): Verdict {
    if (labels.length === 1) return this.#classifySingle(name, type);
    const last = labels.at(-1) ?? "";
    if (last === "svc") return only(`${name}.${this.#domain}`);
    const inOwn = `${name}.${this.#searched[0]}.svc.${this.#domain}`;
    const inNamed = `${name}.svc.${this.#domain}`;
    const isNamespace = this.#namespaces.has(last);
    const isService = this.#services.has(last);
    if (!isNamespace && !isService) return host;
    const candidates = [...(isNamespace ? [inNamed] : []), ...(isService ? [inOwn] : [])];
    return { kind: "cluster", candidates, otherwise: isPublicSuffix(last) ? "host" : "missing" };
  }

  #classifyReverse(name: string): Verdict {
    const address = reverseAddress(name);
    if (address === undefined) return host;
    if (!this.#subnets.some((subnet) => prefixContains(subnet, address))) return host;
    const real = this.#translation?.toReal(address);
    const verdict = { ...only(real === undefined ? name : reverseName(real)), foreign: true } as const;
    if (!this.#suffixOnly || this.#suffix === undefined) return verdict;
    return { ...verdict, below: { zone: this.#domain, suffix: this.#suffix } };
  }
}

function only(candidate: string): Verdict & { readonly kind: "cluster" } {
  return { kind: "cluster", candidates: [candidate], otherwise: "missing" };
}

/** Proxy discovery and service discovery ask about whatever domain they see; the cluster knows nothing of either. */
function isDiscovery(labels: readonly string[]): boolean {
  return labels[0] === "wpad" || labels.includes("_dns-sd") || labels.includes("_mdns");
}

/** Names that never leave a host or its link (RFC 6761, RFC 6762, RFC 7686). */
function isLocalName(labels: readonly string[]): boolean {
  const last = labels.at(-1);
  return last === "localhost" || last === "local" || last === "onion" || last === "invalid";
}

/** The address of a complete reverse name (RFC 1035 §3.5, RFC 3596 §2.5). */
export function reverseAddress(name: string): Uint8Array | undefined {
  if (endsIn(name, "in-addr.arpa")) {
    const parts = name.split(".").slice(0, -2).toReversed();
    const valid = parts.length === 4 && parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) < 256);
    return valid ? Uint8Array.from(parts, Number) : undefined;
  }
  if (!endsIn(name, "ip6.arpa")) return undefined;
  const digits = name.split(".").slice(0, -2).toReversed();
  if (digits.length !== 32 || !digits.every((digit) => /^[0-9a-f]$/.test(digit))) return undefined;
  return Uint8Array.from({ length: 16 }, (_, index) =>
    Number.parseInt(digits.slice(index * 2, index * 2 + 2).join(""), 16),
  );
}

function reverseName(address: Uint8Array): string {
  if (address.length === 4) return `${[...address].toReversed().join(".")}.in-addr.arpa`;
  const digits = Buffer.from(address).toString("hex").split("");
  return `${digits.toReversed().join(".")}.ip6.arpa`;
}

/** Below it are the names of this connection's cluster and no others. */
export function suffixOf({ connection }: Pick<DnsConfig, "connection">): string | undefined {
  return connection === undefined ? undefined : `${connection}.${connectionsDomain}`;
}

/** `checkName`, or where that is another connection's, one below the suffix. */
export function checkNameOf(config: DnsConfig): string {
  const suffix = config.suffixOnly === true ? suffixOf(config) : undefined;
  return suffix === undefined ? checkName : `${checkLabel}.${suffix}`;
}

/** What systemd-resolved is told to ask us for, as plain labels. resolvectl's limit is far above; the helper's is this. */
export function routingDomains(config: DnsConfig): readonly string[] {
  const { clusterDomain, namespaces, alsoNamespaces = [], includeSuffixes = [], mappings = [] } = config;
  const own = [suffixOf(config)].filter((suffix) => suffix !== undefined);
  if (config.suffixOnly === true) return own;
  const mapped = mappings.map(({ name }) => name);
  const domains = [clusterDomain, "svc", ...own, ...includeSuffixes, ...mapped, ...alsoNamespaces, ...namespaces].map(
    plain,
  );
  return [...new Set(domains)].slice(0, maxRoutingDomains);
}

function plain(name: string): string {
  return name.toLowerCase().replace(/^\.|\.$/g, "");
}

function endsIn(name: string, suffix: string): boolean {
  return name.length > suffix.length && name.endsWith(suffix) && name[name.length - suffix.length - 1] === ".";
}

function longestSuffix(name: string, suffixes: readonly string[]): number {
  let longest = 0;
  for (const suffix of suffixes) {
    if (suffix.length > longest && (name === suffix || endsIn(name, suffix))) longest = suffix.length;
  }
  return longest;
}
