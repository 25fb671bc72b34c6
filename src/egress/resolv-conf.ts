// The pod's own resolv.conf: nameservers and search list, as resolv.conf(5) says. The manager may not import host/,
// and needs only these two lines.
import { isIP } from "node:net";

export interface ResolvConf {
  readonly nameservers: readonly string[];
  readonly search: readonly string[];
}

/** Lines that mean nothing are passed over, as the C library does. */
export function parseResolvConf(text: string): ResolvConf {
  const nameservers: string[] = [];
  let search: readonly string[] = [];
  for (const line of text.split("\n")) {
    // Comment signs begin a comment only at the start of a line; what follows the address is ignored anyway.
    const [keyword, ...values] = line.trim().split(/\s+/);
    if (keyword === "nameserver" && values[0] !== undefined && isIP(values[0]) !== 0) nameservers.push(values[0]);
    else if (keyword === "search" || keyword === "domain") search = values;
  }
  return { nameservers: nameservers.slice(0, 3), search };
}

/** The cluster's domain, told by the search list that the kubelet writes: `<namespace>.svc.<domain>`, `svc.<domain>`. */
export function clusterDomainOf(conf: ResolvConf): string {
  const service = conf.search.find((entry) => entry.toLowerCase().startsWith("svc."));
  const domain = service?.slice("svc.".length).replace(/\.$/, "").toLowerCase();
  return domain === undefined || domain === "" ? "cluster.local" : domain;
}
