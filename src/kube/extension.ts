// The `telepresence.io` extension of a kubeconfig's cluster entry, in both spellings that exist in the field:
// `also-proxy` at the top, and `routing.alsoProxySubnets`.
import type { ClusterExtension } from "./target.ts";
import { parseDurationMs } from "./duration.ts";
import { isFields, text, textList } from "./kubeconfig.ts";

type Fields = Readonly<Record<string, unknown>>;

/** An extension's body by name, from a cluster's `extensions` list. */
export function findExtension(cluster: Fields, name: string): unknown {
  const list = cluster["extensions"];
  if (!Array.isArray(list)) return undefined;
  for (const item of list as readonly unknown[]) {
    if (isFields(item) && item["name"] === name) return item["extension"];
  }
  return undefined;
}

export function parseExtension(cluster: Fields): ClusterExtension {
  const found = findExtension(cluster, "telepresence.io");
  const root = isFields(found) ? found : {};
  const routing = section(root, "routing");
  const dns = section(root, "dns");
  const clusterKeys = section(root, "cluster");
  const lookupTimeout = text(pick(dns, "lookup-timeout", "lookupTimeout"));
  return {
    managerNamespace:
      text(section(root, "manager")["namespace"]) ??
      text(pick(clusterKeys, "defaultManagerNamespace", "manager-namespace")),
    alsoProxy: [
      ...textList(pick(root, "also-proxy", "alsoProxy")),
      ...textList(pick(routing, "alsoProxySubnets", "also-proxy", "alsoProxy")),
    ],
    neverProxy: [
      ...textList(pick(root, "never-proxy", "neverProxy")),
      ...textList(pick(routing, "neverProxySubnets", "never-proxy", "neverProxy")),
    ],
    allowConflictingSubnets: [
      ...textList(pick(root, "allow-conflicting-subnets", "allowConflictingSubnets")),
      ...textList(pick(routing, "allowConflictingSubnets", "allow-conflicting-subnets")),
    ],
    mappedNamespaces: textList(pick(clusterKeys, "mappedNamespaces", "mapped-namespaces")),
    dns: {
      includeSuffixes: textList(pick(dns, "include-suffixes", "includeSuffixes")),
      excludeSuffixes: textList(pick(dns, "exclude-suffixes", "excludeSuffixes")),
      excludes: textList(dns["excludes"]),
      mappings: mappings(dns["mappings"]),
      localAddresses: [
        ...textList(pick(dns, "local-addresses", "localAddresses")),
        ...textList([text(pick(dns, "local-ip", "localIP", "localIp"))]),
      ],
      lookupTimeoutMs: lookupTimeout === undefined ? undefined : parseDurationMs(lookupTimeout),
    },
  };
}

function mappings(value: unknown): ClusterExtension["dns"]["mappings"] {
  if (!Array.isArray(value)) return [];
  return (value as readonly unknown[]).filter(isFields).flatMap((item) => {
    const name = text(item["name"]);
    const aliasFor = text(pick(item, "aliasFor", "alias-for"));
    return name === undefined || aliasFor === undefined ? [] : [{ name, aliasFor }];
  });
}

function section(root: Fields, key: string): Fields {
  const value = root[key];
  return isFields(value) ? value : {};
}

function pick(fields: Fields, ...keys: readonly string[]): unknown {
  for (const key of keys) if (fields[key] !== undefined) return fields[key];
  return undefined;
}
