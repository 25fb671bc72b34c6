// From kubectl's flags and the command's environment to one KubeTarget. The daemon calls it with what the command
// sent: this process's own environment and directory play no part.
import { AppError } from "#base/error.ts";
import { describeFileError } from "#base/file-error.ts";
import { readFile } from "node:fs/promises";
import { delimiter, isAbsolute, join, resolve } from "node:path";
import { parseDurationMs } from "./duration.ts";
import { findExtension, parseExtension } from "./extension.ts";
import type { ConfigFile, MergedConfig, NamedEntry } from "./kubeconfig.ts";
import { isFields, mergeConfigs, text, textList } from "./kubeconfig.ts";
import { environmentProxy } from "./proxy.ts";
import type { ExecPlugin, Impersonation, KubeTarget, KubeUser, Material } from "./target.ts";

/** kubectl's connection flags, as `wire/kube-flags.ts` carries them. */
export interface ConnectionFlags {
  readonly kubeconfig?: string | undefined;
  readonly context?: string | undefined;
  readonly cluster?: string | undefined;
  readonly user?: string | undefined;
  readonly server?: string | undefined;
  readonly token?: string | undefined;
  readonly as?: string | undefined;
  readonly asGroup?: readonly string[] | undefined;
  readonly namespace?: string | undefined;
  readonly certificateAuthority?: string | undefined;
  readonly clientCertificate?: string | undefined;
  readonly clientKey?: string | undefined;
  readonly insecureSkipTlsVerify?: boolean | undefined;
  readonly tlsServerName?: string | undefined;
  readonly requestTimeout?: string | undefined;
}

export interface ConfigInput {
  readonly flags: ConnectionFlags;
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
}

type Fields = Readonly<Record<string, unknown>>;

const noEntry: NamedEntry = { fields: {}, directory: "/" };

/** Reads the kubeconfig files and applies the flags. */
export async function loadTarget(input: ConfigInput): Promise<KubeTarget> {
  const files = await readConfigFiles(input);
  const merged = mergeConfigs(files);
  return planTarget(
    merged,
    input,
    files.map((file) => file.path),
  );
}

async function readConfigFiles(input: ConfigInput): Promise<readonly ConfigFile[]> {
  const { flags, env, cwd } = input;
  if (flags.kubeconfig !== undefined && flags.kubeconfig !== "") {
    const path = resolve(cwd, flags.kubeconfig);
    const file = await readOptional(path);
    if (file === undefined) {
      throw new AppError("kubeconfig_invalid", `kubeconfig ${path} does not exist`, { hint: "check --kubeconfig" });
    }
    return [file];
  }
  const paths = (env["KUBECONFIG"] ?? "").split(delimiter).filter((path) => path !== "");
  const home = env["HOME"] ?? env["USERPROFILE"];
  if (paths.length === 0 && home !== undefined && home !== "") paths.push(join(home, ".kube", "config"));
  const unique = [...new Set(paths.map((path) => resolve(cwd, path)))];
  const files = await Promise.all(unique.map(readOptional));
  return files.filter((file) => file !== undefined);
}

async function readOptional(path: string): Promise<ConfigFile | undefined> {
  try {
    return { path, text: await readFile(path, "utf8") };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new AppError("kubeconfig_invalid", `kubeconfig ${path} cannot be read: ${describeFileError(error)}`, {
      cause: error,
      hint: "check the path and its permissions",
    });
  }
}

/** The pure part: one context with the flags laid over it. */
export function planTarget(merged: MergedConfig, input: ConfigInput, files: readonly string[]): KubeTarget {
  const { flags } = input;
  const contextName = flags.context ?? merged.currentContext;
  const context = pickContext(merged, contextName, flags, files);
  const clusterName = flags.cluster ?? text(context["cluster"]) ?? "";
  const cluster = pickEntry(merged.clusters, clusterName, "cluster");
  const userName = flags.user ?? text(context["user"]) ?? "";
  const user = pickEntry(merged.users, userName, "user");
  const server = normalizeServer(flags.server ?? text(cluster.fields["server"]), clusterName);
  return {
    contextName,
    clusterName,
    namespace: flags.namespace ?? text(context["namespace"]) ?? "default",
    files,
    server,
    ...planTls(cluster, input),
    proxyUrl: text(cluster.fields["proxy-url"]) ?? environmentProxy(server, input.env),
    user: planUser(userName, user, cluster, input),
    impersonate: planImpersonation(user.fields, flags),
    requestTimeoutMs: planRequestTimeout(flags.requestTimeout),
    extension: parseExtension(cluster.fields),
    env: input.env,
    cwd: input.cwd,
  };
}

function pickContext(merged: MergedConfig, name: string, flags: ConnectionFlags, files: readonly string[]): Fields {
  const found = merged.contexts.get(name);
  if (found !== undefined) return found.fields;
  const known = [...merged.contexts.keys()];
  if (name !== "") {
    const choices = known.length === 0 ? "there are none" : `there are: ${known.join(", ")}`;
    throw new AppError("context_not_found", `context was not found for specified context: ${name} (${choices})`, {
      hint: "choose one with --context",
      fields: { contexts: known },
    });
  }
  if (flags.server !== undefined || flags.cluster !== undefined) return {};
  if (known.length > 0) {
    throw new AppError("context_not_found", `kubeconfig has no current context (there are: ${known.join(", ")})`, {
      hint: "choose one with --context or `kubectl config use-context`",
      fields: { contexts: known },
    });
  }
  const where = files.length === 0 ? "no file was found" : files.join(", ");
  throw new AppError("context_not_found", `kubeconfig has no context definition (${where})`, {
    hint: "set KUBECONFIG or --kubeconfig to a file that has one",
  });
}

function pickEntry(entries: ReadonlyMap<string, NamedEntry>, name: string, what: string): NamedEntry {
  if (name === "") return noEntry;
  const found = entries.get(name);
  if (found !== undefined) return found;
  const known = [...entries.keys()];
  throw new AppError(
    "kubeconfig_invalid",
    `${what} ${JSON.stringify(name)} is not in the kubeconfig (${known.length === 0 ? `it has no ${what}s` : `there are: ${known.join(", ")}`})`,
    { hint: `name one with --${what} or mend the context` },
  );
}

function normalizeServer(server: string | undefined, clusterName: string): string {
  if (server === undefined) {
    throw new AppError("kubeconfig_invalid", `cluster ${JSON.stringify(clusterName)} of the kubeconfig has no server`, {
      hint: "add its `server` or pass --server",
    });
  }
  const [, scheme] = /^([a-z][a-z0-9+.-]*):\/\//i.exec(server) ?? [];
  if (scheme !== undefined && !/^https?$/i.test(scheme)) {
    throw new AppError(
      "kubeconfig_invalid",
      `server ${JSON.stringify(server)} is of ${scheme}, expected https://HOST:PORT`,
    );
  }
  const withScheme = /^https?:\/\//i.test(server) ? server : `https://${server}`;
  let url: URL;
  try {
    url = new URL(withScheme);
  } catch (error) {
    throw new AppError("kubeconfig_invalid", `server ${JSON.stringify(server)} is not a URL`, {
      cause: error,
      hint: "expected https://host:port",
    });
  }
  return `${url.protocol}//${url.host}${url.pathname.replace(/\/+$/, "")}`;
}

type TlsPlan = Pick<KubeTarget, "ca" | "insecure" | "tlsServerName">;

function planTls(cluster: NamedEntry, input: ConfigInput): TlsPlan {
  const { flags, cwd } = input;
  const insecure = flags.insecureSkipTlsVerify ?? cluster.fields["insecure-skip-tls-verify"] === true;
  return {
    insecure,
    ca: insecure
      ? undefined
      : (fileFlag(flags.certificateAuthority, cwd) ?? material(cluster.fields, "certificate-authority")),
    tlsServerName: flags.tlsServerName ?? text(cluster.fields["tls-server-name"]),
  };
}

function planUser(name: string, entry: NamedEntry, cluster: NamedEntry, input: ConfigInput): KubeUser {
  const { flags, cwd } = input;
  const { fields } = entry;
  const username = text(fields["username"]);
  const provider = isFields(fields["auth-provider"]) ? fields["auth-provider"] : undefined;
  const token = flags.token ?? text(fields["token"]);
  return {
    name,
    certificate: fileFlag(flags.clientCertificate, cwd) ?? material(fields, "client-certificate"),
    key: fileFlag(flags.clientKey, cwd) ?? material(fields, "client-key"),
    token: flags.token ?? (text(fields["tokenFile"]) === undefined ? token : undefined),
    tokenFile: flags.token === undefined ? text(fields["tokenFile"]) : undefined,
    basic: username === undefined ? undefined : { username, password: text(fields["password"]) ?? "" },
    exec: planExec(fields["exec"], entry.directory, cluster.fields),
    oidc: planProvider(provider),
  };
}

function planProvider(provider: Fields | undefined): Readonly<Record<string, string>> | undefined {
  if (provider === undefined) return undefined;
  if (provider["name"] !== "oidc") {
    throw new AppError(
      "unsupported",
      `auth-provider ${JSON.stringify(provider["name"])} of the kubeconfig is not supported (kubectl dropped it in 1.26)`,
      { hint: "use an exec plugin" },
    );
  }
  const config = isFields(provider["config"]) ? provider["config"] : {};
  return Object.fromEntries(
    Object.entries(config).filter((pair): pair is [string, string] => typeof pair[1] === "string"),
  );
}

function planExec(value: unknown, directory: string, cluster: Fields): ExecPlugin | undefined {
  if (!isFields(value)) return undefined;
  const command = text(value["command"]);
  if (command === undefined) {
    throw new AppError("kubeconfig_invalid", "the exec plugin of the kubeconfig has no command", {
      hint: "add `exec.command`",
    });
  }
  const env: Record<string, string> = {};
  for (const item of Array.isArray(value["env"]) ? (value["env"] as readonly unknown[]) : []) {
    if (isFields(item) && typeof item["name"] === "string") env[item["name"]] = text(item["value"]) ?? "";
  }
  return {
    apiVersion: text(value["apiVersion"]) ?? "client.authentication.k8s.io/v1",
    command: command.includes("/") && !isAbsolute(command) ? join(directory, command) : command,
    args: textList(value["args"]),
    env,
    installHint: text(value["installHint"]),
    provideClusterInfo: value["provideClusterInfo"] === true,
    directory,
    clusterConfig: findExtension(cluster, "client.authentication.k8s.io/exec"),
  };
}

function planImpersonation(user: Fields, flags: ConnectionFlags): Impersonation {
  const extra: Record<string, readonly string[]> = {};
  const listed = isFields(user["as-user-extra"]) ? user["as-user-extra"] : {};
  for (const [key, values] of Object.entries(listed)) extra[key] = textList(values);
  return {
    user: flags.as ?? text(user["as"]),
    uid: text(user["as-uid"]),
    groups: flags.asGroup ?? textList(user["as-groups"]),
    extra,
  };
}

function planRequestTimeout(flag: string | undefined): number | undefined {
  if (flag === undefined || flag === "") return undefined;
  const ms = parseDurationMs(flag);
  if (ms === undefined) {
    throw new AppError("usage", `--request-timeout ${JSON.stringify(flag)} is not a duration`, {
      hint: "expected e.g. 30s or 2m",
    });
  }
  return ms === 0 ? undefined : ms;
}

function fileFlag(path: string | undefined, cwd: string): Material | undefined {
  return path === undefined || path === "" ? undefined : { file: resolve(cwd, path) };
}

/** `<key>-data` (base64) before `<key>` (a path), as kubectl does. */
function material(fields: Fields, key: string): Material | undefined {
  const data = text(fields[`${key}-data`]);
  if (data !== undefined) return { pem: Buffer.from(data, "base64").toString("utf8") };
  const file = text(fields[key]);
  return file === undefined ? undefined : { file };
}
