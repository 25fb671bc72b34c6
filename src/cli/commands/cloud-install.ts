// `cloud install` and `cloud uninstall`: the cloud server in a cluster, with the user's own credentials; or only its
// manifests, for those who keep them elsewhere (GitOps). Secrets come from files, because others see a command's words.
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { AppError } from "#base/error.ts";
import { describeFileError } from "#base/file-error.ts";
import { isAgreed } from "#cli/agreement.ts";
import { readCertificates } from "#cli/cloud/certificate-file.ts";
import { readConfig } from "#cli/connection/connection.ts";
import type { CommandContext } from "#cli/context.ts";
import { openOrStartDaemon, quitDaemon } from "#cli/connection/daemon-socket.ts";
import { checkNamespaces, connectOptions } from "#cli/flags/flags.ts";
import { cloudInstallation, cloudSecretKeys, maxSecretLetters } from "#wire/cloud-install.ts";
import type { CloudInstallation, CloudSecretKey } from "#wire/cloud-install.ts";

/** chosen: as long as the daemon takes, and a little more. */
const installLimitMs = 310_000;
const defaultNamespace = "telepresence-cloud";
/** Where a cluster's proxies are; whoever else is there could only lie about an address. */
const privateRanges = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,100.64.0.0/10,fc00::/7";

export interface CloudInstallFlags {
  readonly url?: string;
  readonly previewDomain?: string;
  readonly cloudNamespace?: string;
  /** False for --no-ingress. */
  readonly ingress?: boolean;
  readonly ingressClass?: string;
  readonly tlsSecret?: string;
  readonly previewTlsSecret?: string;
  readonly trustedProxies?: string;
  readonly storageSize?: string;
  readonly storageClass?: string;
  /** False for --no-storage. */
  readonly storage?: boolean;
  readonly databaseUrlFile?: string;
  readonly oidcClientSecretFile?: string;
  readonly metricsTokenFile?: string;
  readonly extraCaFile?: string;
  readonly secret?: string;
  readonly secretKeys?: string;
  readonly oidcIssuer?: string;
  readonly oidcClientId?: string;
  readonly oidcGroupsClaim?: string;
  readonly oidcAdminGroup?: string;
  readonly print?: boolean;
  readonly printSecret?: boolean;
}

export async function runCloudInstall(context: CommandContext, flags: CloudInstallFlags): Promise<number> {
  const { output, environment } = context;
  const installation = await readInstallation(flags, environment.cwd);
  const target = connectOptions(context.flags, environment, await readConfig(context));
  const onlyPrint = flags.print === true || flags.printSecret === true;
  using daemon = await openOrStartDaemon(context, () => output.progress("Launching Telepresence User Daemon"));
  try {
    const params = { target, installation, onlyPrint };
    const { objects, done } = await daemon.client.call("cloudInstall", params, installLimitMs);
    if (onlyPrint) {
      const printed = flags.printSecret === true ? objects : withoutSecret(context, installation, objects);
      return await printObjects(context, printed);
    }
    output.lines(done);
    output.lines(nextSteps(installation));
    output.data({ url: installation.url, namespace: installation.namespace, done });
    return 0;
  } finally {
    if (daemon.started) await quitDaemon(context, daemon).catch(() => undefined); // what was done counts
  }
}

/** Manifests are on their way into a repository, or a log. Without its Secret a pod does not start, and says so. */
function withoutSecret(
  { output }: CommandContext,
  { secret }: CloudInstallation,
  objects: readonly unknown[],
): readonly unknown[] {
  if ("name" in secret || Object.keys(secret.values).length === 0) return objects;
  output.warn(
    `the Secret with ${Object.keys(secret.values).join(", ")} is not among these manifests; make it yourself and name it with --secret, or add --print-secret`,
  );
  return objects.filter((object) => (object as { readonly kind?: unknown }).kind !== "Secret");
}

async function printObjects({ output }: CommandContext, objects: readonly unknown[]): Promise<number> {
  const { stringify } = await import("#cli/yaml.ts");
  const texts = objects.map((object) => stringify(object).trimEnd());
  output.lines(texts.join("\n---\n").split("\n"));
  output.data(objects, { bare: true });
  return 0;
}

function nextSteps({ namespace, url, oidc, ingress, storage, secret }: CloudInstallation): readonly string[] {
  const hasDatabase = ("keys" in secret ? secret.keys : Object.keys(secret.values)).includes("database");
  return [
    `The cloud server stands in namespace ${namespace}, and is at ${url} as soon as that name leads there`,
    ...(ingress === undefined ? [`Lead ${url} to service telepresence-cloud, port 80, with TLS before it`] : []),
    ...(storage === "none" && !hasDatabase ? ["It forgets everything when its pod ends (--no-storage)"] : []),
    ...(oidc?.adminGroup === undefined
      ? [`The first administrator's link: kubectl logs -n ${namespace} deployment/telepresence-cloud | grep /invite/`]
      : []),
    `Then, on each laptop: telepresence login --cloud-url ${url}`,
  ];
}

async function readInstallation(flags: CloudInstallFlags, cwd: string): Promise<CloudInstallation> {
  const { oidcIssuer: issuer, oidcClientId: clientId } = flags;
  const url = readUrl(flags.url);
  checkNamespaces("--cloud-namespace", [flags.cloudNamespace]);
  if ((issuer === undefined) !== (clientId === undefined)) {
    throw new AppError("usage", "--oidc-issuer and --oidc-client-id belong together, and one of them is missing");
  }
  const ingress = {
    class: flags.ingressClass,
    tlsSecret: flags.tlsSecret,
    previewTlsSecret: flags.previewTlsSecret,
  };
  const wish = {
    namespace: flags.cloudNamespace ?? defaultNamespace,
    url,
    previewDomain: readDomain(flags.previewDomain),
    ingress: flags.ingress === false ? undefined : ingress,
    trustedProxies: flags.trustedProxies ?? privateRanges,
    storage: flags.storage === false ? "none" : { size: flags.storageSize ?? "1Gi", class: flags.storageClass },
    secret: await readSecret(flags, cwd),
    oidc:
      issuer === undefined
        ? undefined
        : { issuer, clientId, groupsClaim: flags.oidcGroupsClaim, adminGroup: flags.oidcAdminGroup },
  };
  const read = cloudInstallation.safeParse(wish);
  if (read.success) return read.data;
  const place = read.error.issues[0]?.path.join(".") ?? "";
  throw new AppError("usage", `${flagOf[place] ?? place} has a value that is not possible`);
}

/** Of a part of the installation that its schema refuses. */
const flagOf: Readonly<Record<string, string>> = {
  "ingress.class": "--ingress-class",
  "ingress.tlsSecret": "--tls-secret",
  "ingress.previewTlsSecret": "--preview-tls-secret",
  trustedProxies: "--trusted-proxies",
  storage: "--storage-size or --storage-class",
  secret: "--secret, or a file that its values are from,",
  "oidc.issuer": "--oidc-issuer",
  "oidc.clientId": "--oidc-client-id",
  "oidc.groupsClaim": "--oidc-groups-claim",
  "oidc.adminGroup": "--oidc-admin-group",
};

/** As an Ingress takes it. */
function readDomain(text: string | undefined): string | undefined {
  const domain = text?.toLowerCase().replace(/^\*?\./, "");
  if (domain === undefined || (domain.length <= 250 && domain.split(".").every(isLabel))) return domain;
  throw new AppError("usage", `--preview-domain is "${text}", expected a domain such as preview.example.net`);
}

const isLabel = (label: string): boolean => /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(label);

/** Logins go over it. */
function readUrl(text: string | undefined): string {
  if (text === undefined) throw new AppError("usage", "cloud install needs --url https://NAME, as people will type it");
  const url = URL.parse(text);
  if (url !== null && url.protocol === "https:" && url.href === `${url.origin}/`) return url.origin;
  throw new AppError("usage", `--url is "${text}", expected https://NAME without a path`);
}

async function readSecret(flags: CloudInstallFlags, cwd: string): Promise<CloudInstallation["secret"]> {
  const files: Readonly<Record<CloudSecretKey, string | undefined>> = {
    database: flags.databaseUrlFile,
    "oidc-client-secret": flags.oidcClientSecretFile,
    "metrics-token": flags.metricsTokenFile,
    "extra-ca": flags.extraCaFile,
  };
  const given = cloudSecretKeys.flatMap((key) => {
    const file = files[key];
    return file === undefined ? [] : [[key, file] as const];
  });
  if (flags.secret !== undefined) {
    if (given.length > 0) throw new AppError("usage", "--secret excludes the files that a Secret is made of");
    return { name: flags.secret, keys: readKeys(flags.secretKeys ?? "database") };
  }
  if (flags.secretKeys !== undefined) throw new AppError("usage", "--secret-keys needs --secret NAME");
  const values = given.map(async ([key, file]) => [key, await readKey(key, file, cwd)] as const);
  return { values: Object.fromEntries(await Promise.all(values)) };
}

function readKeys(text: string): CloudSecretKey[] {
  return text.split(",").map((word) => {
    const key = cloudSecretKeys.find((known) => known === word.trim());
    if (key !== undefined) return key;
    throw new AppError("usage", `--secret-keys has "${word}", expected some of ${cloudSecretKeys.join(", ")}`);
  });
}

/** Node would go on without authorities that it cannot read, with a line in the server's log. */
async function readKey(key: CloudSecretKey, file: string, cwd: string): Promise<string> {
  if (key !== "extra-ca") return await readValue(file, cwd);
  const place = file === "-" ? "/dev/stdin" : file;
  return readCertificates({ flag: "--extra-ca-file", file: place, maxBytes: maxSecretLetters }, cwd);
}

async function readValue(file: string, cwd: string): Promise<string> {
  const text = await readFile(file === "-" ? "/dev/stdin" : resolve(cwd, file), "utf8").catch((cause: unknown) => {
    throw new AppError("usage", `the file ${file} cannot be read: ${describeFileError(cause)}`, { cause });
  });
  const value = text.trim();
  if (value === "") throw new AppError("usage", `the file ${file} is empty, expected a secret in it`);
  return value;
}

export interface CloudUninstallFlags {
  readonly cloudNamespace?: string;
  readonly deleteData?: boolean;
  /** Nobody is asked. */
  readonly yes?: boolean;
}

export async function runCloudUninstall(context: CommandContext, flags: CloudUninstallFlags): Promise<number> {
  const { output, environment } = context;
  const namespace = flags.cloudNamespace ?? defaultNamespace;
  checkNamespaces("--cloud-namespace", [namespace]);
  const target = connectOptions(context.flags, environment, await readConfig(context));
  const deleteData = flags.deleteData === true;
  const ending = `the cloud server of namespace ${namespace}, with all that people have stored there`;
  if (deleteData && flags.yes !== true && !(await isAgreed(context, ending))) {
    output.line("Nothing was removed");
    return 1;
  }
  using daemon = await openOrStartDaemon(context, () => output.progress("Launching Telepresence User Daemon"));
  try {
    const params = { target, namespace, deleteData };
    const { removed, warnings } = await daemon.client.call("cloudUninstall", params, installLimitMs);
    for (const warning of warnings) output.warn(warning);
    output.lines(removed.length > 0 ? removed : ["Nothing to remove"]);
    output.data({ removed });
    return 0;
  } finally {
    if (daemon.started) await quitDaemon(context, daemon).catch(() => undefined);
  }
}
