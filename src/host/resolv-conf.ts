// resolv.conf(5) as text, pure. Read as the C library reads it: keywords at the start of a line, the last `search` or
// `domain` wins, comments begin a line with `#` or `;`. What the original got wrong: it took the last nameserver
// rather than the first, fell over an IPv6 one, and did not know `;`.
import { isIPv4, isIPv6 } from "node:net";

export interface ResolvConf {
  /** In order of preference; IPv6 addresses keep their zone (`fe80::1%eth0`). Empty when the file names none. */
  readonly nameservers: readonly string[];
  /** Lower case, without dots at the end. */
  readonly search: readonly string[];
  /** Names with fewer dots are tried with the search list first. */
  readonly ndots: number;
  readonly options: readonly string[];
}

/** resolv.conf(5): whom programs ask when the file names nobody, or is not there. */
const localNameserver = "127.0.0.1";
/** resolv.conf(5): the C library uses no more. */
const maxNameservers = 3;
const maxNdots = 15;

export function parseResolvConf(text: string): ResolvConf {
  const nameservers: string[] = [];
  let search: readonly string[] = [];
  const options: string[] = [];
  for (const line of text.split(/\r?\n/)) {
    const words = line.split(/[ \t]+/).filter((word) => word !== "");
    const [keyword, ...values] = words;
    // The C library wants the keyword in the first column; an indented one is ignored by it, so by us.
    if (keyword === undefined || /^[\s#;]/.test(line)) continue;
    const first = values[0];
    if (keyword === "nameserver") nameservers.push(...nameserverAt(first ?? ""));
    else if (keyword === "domain" && first !== undefined) search = [normalize(first)];
    else if (keyword === "search") search = values.filter((word) => !/^[#;]/.test(word)).map(normalize);
    else if (keyword === "options") options.push(...values);
  }
  return {
    nameservers: nameservers.slice(0, maxNameservers),
    search: search.filter((suffix) => suffix !== ""),
    ndots: ndotsOf(options),
    options,
  };
}

function ndotsOf(options: readonly string[]): number {
  const last = options.findLast((option) => /^ndots:\d+$/.test(option));
  return last === undefined ? 1 : Math.min(maxNdots, Number(last.slice("ndots:".length)));
}

/** Whom programs ask by this file. */
export function askedNameservers({ nameservers }: ResolvConf): readonly string[] {
  return nameservers.length === 0 ? [localNameserver] : nameservers;
}

/** One address or none, as packets have it: 0.0.0.0 is this machine, and an embedded IPv4 address is one of IPv4. */
function nameserverAt(text: string): readonly string[] {
  const embedded = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(text)?.[1];
  if (embedded !== undefined) return nameserverAt(embedded);
  if (text === "0.0.0.0") return [localNameserver];
  if (text === "::") return ["::1"];
  return isIPv4(text) || isIPv6(text) ? [text] : [];
}

function normalize(suffix: string): string {
  return suffix.replace(/\.+$/, "").toLowerCase();
}
