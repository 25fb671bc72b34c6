// One context of a kubeconfig, flattened: everything needed to reach one cluster as one user. Made by config.ts,
// opened by client.ts. Holds credentials: lives in memory only, never in a log.

/** A file's content, or where it is; files are read again when they change (rotated certificates, tokens). */
export type Material = { readonly pem: string } | { readonly file: string };

/** A credential plugin (client.authentication.k8s.io). */
export interface ExecPlugin {
  readonly apiVersion: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly installHint: string | undefined;
  readonly provideClusterInfo: boolean;
  /** Directory of the kubeconfig, for a command given as a relative path. */
  readonly directory: string;
  /** What the cluster entry carries for the plugin (`client.authentication.k8s.io/exec` extension). */
  readonly clusterConfig: unknown;
}

export interface KubeUser {
  readonly name: string;
  readonly certificate: Material | undefined;
  readonly key: Material | undefined;
  readonly token: string | undefined;
  readonly tokenFile: string | undefined;
  readonly basic: { readonly username: string; readonly password: string } | undefined;
  readonly exec: ExecPlugin | undefined;
  readonly oidc: Readonly<Record<string, string>> | undefined;
}

export interface Impersonation {
  readonly user: string | undefined;
  readonly uid: string | undefined;
  readonly groups: readonly string[];
  readonly extra: Readonly<Record<string, readonly string[]>>;
}

/** The `telepresence.io` extension of the cluster's entry. */
export interface ClusterExtension {
  readonly managerNamespace: string | undefined;
  readonly alsoProxy: readonly string[];
  readonly neverProxy: readonly string[];
  readonly allowConflictingSubnets: readonly string[];
  readonly mappedNamespaces: readonly string[];
  readonly dns: {
    readonly includeSuffixes: readonly string[];
    readonly excludeSuffixes: readonly string[];
    readonly excludes: readonly string[];
    readonly mappings: readonly { readonly name: string; readonly aliasFor: string }[];
    /** Nameservers to ask in place of the laptop's. */
    readonly localAddresses: readonly string[];
    readonly lookupTimeoutMs: number | undefined;
  };
}

export interface KubeTarget {
  readonly contextName: string;
  readonly clusterName: string;
  /** Namespace of the connection. */
  readonly namespace: string;
  /** Files that were read, for messages. */
  readonly files: readonly string[];
  /** `https://host:port/prefix`, without a trailing slash. */
  readonly server: string;
  readonly ca: Material | undefined;
  readonly insecure: boolean;
  readonly tlsServerName: string | undefined;
  /** http, https or socks5 proxy on the way to the server. */
  readonly proxyUrl: string | undefined;
  readonly user: KubeUser;
  readonly impersonate: Impersonation;
  /** `--request-timeout`; undefined leaves each call's own bound. */
  readonly requestTimeoutMs: number | undefined;
  readonly extension: ClusterExtension;
  /** Environment and directory of the command, for credential plugins. */
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
}

/** `kubectl` with the flags that lead to the same place, for hints. */
export function kubectlCommand(target: KubeTarget): string {
  const parts = ["kubectl"];
  if (target.contextName !== "") parts.push("--context", shellWord(target.contextName));
  if (target.impersonate.user !== undefined) parts.push("--as", shellWord(target.impersonate.user));
  for (const group of target.impersonate.groups) parts.push("--as-group", shellWord(group));
  return parts.join(" ");
}

function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
