// The addresses on the way to the API server: they stay on the laptop's own routes, or the tunnel would lead through
// itself (trap 12). Behind a proxy only the proxy has to be known here, the server's name often is to nobody else.
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { AppError } from "#base/error.ts";
import { parseProxy } from "#kube/proxy.ts";
import type { KubeTarget } from "#kube/target.ts";

export type Lookup = (host: string) => Promise<readonly string[]>;

const systemLookup: Lookup = async (host) => (await lookup(host, { all: true })).map(({ address }) => address);

export async function addressesOnTheWay(
  { server, proxyUrl }: Pick<KubeTarget, "server" | "proxyUrl">,
  find: Lookup = systemLookup,
): Promise<readonly string[]> {
  const host = new URL(server).hostname.replace(/^\[|\]$/g, "");
  if (proxyUrl === undefined) return await addressesOf(host, "server of the kubeconfig", find);
  const [ofProxy, ofServer] = await Promise.all([
    addressesOf(parseProxy(proxyUrl).host, "proxy", find),
    addressesOf(host, "server", find).catch(() => []),
  ]);
  return [...new Set([...ofProxy, ...ofServer])];
}

async function addressesOf(host: string, what: string, find: Lookup): Promise<readonly string[]> {
  if (isIP(host) !== 0) return [host];
  try {
    return [...new Set(await find(host))];
  } catch (error) {
    throw new AppError("cluster_unreachable", `the cluster's host ${host} cannot be resolved`, {
      cause: error,
      hint: `check the ${what} and the laptop's network`,
    });
  }
}
