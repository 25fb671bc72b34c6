// resolv.conf(5) as text, pure. Read as the C library reads it: keywords at the start of a line, the last `search` or
// `domain` wins, comments begin a line with `#` or `;`. What the original got wrong: it took the last nameserver
// rather than the first, fell over an IPv6 one, and did not know `;`.

export interface ResolvConf {
  /** In order of preference; IPv6 addresses keep their zone (`fe80::1%eth0`). At least one entry or none at all. */
  readonly nameservers: readonly string[];
  /** Lower case, without dots at the end. */
  readonly search: readonly string[];
  /** Names with fewer dots are tried with the search list first. */
  readonly ndots: number;
  readonly options: readonly string[];
}

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
    if (keyword === "nameserver" && first !== undefined && isNameserver(first)) nameservers.push(first);
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

function isNameserver(text: string): boolean {
  const [address = "", zone, ...more] = text.split("%");
  if (more.length > 0) return false;
  if (!address.includes(":")) return zone === undefined && /^(\d{1,3}\.){3}\d{1,3}$/.test(address);
  return (zone === undefined || zone !== "") && /^[0-9a-fA-F:.]+$/.test(address);
}

function normalize(suffix: string): string {
  return suffix.replace(/\.+$/, "").toLowerCase();
}
