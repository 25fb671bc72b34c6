// What commander has parsed, as the daemon wants it. Precedence: flag, environment, config.yml, built-in default.
import { isIP } from "node:net";
import { AppError } from "#base/error.ts";
import { softwareVersion } from "#base/version.ts";
import { transportWishes } from "#wire/connect-choices.ts";
import type { ConnectOptions } from "#wire/control-api.ts";
import type { CliEnvironment } from "#cli/config.ts";
import type { ClientConfig } from "./config-file.ts";
import { parsePullPolicy } from "./config-file.ts";
import { readTargetName } from "./target-name.ts";
import type { OutputMode, ProgressMode, Syntax } from "#cli/output.ts";

/** Flags that every command takes. Names are commander's camel case of the flags. */
export interface GlobalFlags {
  readonly kubeconfig?: string;
  readonly context?: string;
  readonly cluster?: string;
  readonly user?: string;
  readonly server?: string;
  readonly token?: string;
  readonly as?: string;
  readonly asGroup?: readonly string[];
  readonly namespace?: string;
  readonly certificateAuthority?: string;
  readonly clientCertificate?: string;
  readonly clientKey?: string;
  readonly insecureSkipTlsVerify?: boolean;
  readonly tlsServerName?: string;
  readonly requestTimeout?: string;
  readonly output?: string;
  readonly format?: string;
  readonly progress?: string;
  readonly verbose?: boolean;
  readonly config?: string;
  /** Which of several connections, as a regular expression of its name. */
  readonly use?: string;
}

/** Flags of the commands that may connect. */
export interface ConnectFlags {
  /** Of the connection. */
  readonly name?: string;
  readonly managerNamespace?: string;
  readonly mappedNamespaces?: readonly string[];
  readonly alsoProxy?: readonly string[];
  readonly neverProxy?: readonly string[];
  readonly allowConflictingSubnets?: readonly string[];
  readonly vnat?: readonly string[];
  readonly via?: string;
  readonly proxyVia?: readonly string[];
  readonly transport?: string;
  readonly direct?: string;
  readonly image?: string;
  readonly imagePullPolicy?: string;
  readonly proxy?: boolean;
  readonly proxySocks?: string;
  readonly proxyHttp?: string;
}

const kubeFlagNames = [
  "kubeconfig",
  "context",
  "cluster",
  "user",
  "server",
  "token",
  "as",
  "asGroup",
  "namespace",
  "certificateAuthority",
  "clientCertificate",
  "clientKey",
  "insecureSkipTlsVerify",
  "tlsServerName",
  "requestTimeout",
] as const;

/** Named as what the daemon is asked for is. */
export const connectFlagNames = [
  "managerNamespace",
  "mappedNamespaces",
  "alsoProxy",
  "neverProxy",
  "allowConflictingSubnets",
  "vnat",
  "via",
  "proxyVia",
  "transport",
  "direct",
] as const;

/** True when a flag names a place or a way to connect; `--namespace` alone does not. */
export function namesPlace(flags: GlobalFlags & ConnectFlags): boolean {
  const names = [...kubeFlagNames.filter((name) => name !== "namespace"), ...connectFlagNames];
  return names.some((name) => isGiven(flags[name]));
}

export function connectOptions(
  flags: GlobalFlags & ConnectFlags,
  environment: CliEnvironment,
  config: ClientConfig,
): ConnectOptions {
  const kube: Record<string, unknown> = {};
  for (const name of kubeFlagNames) if (isGiven(flags[name])) kube[name] = flags[name];
  checkConnectFlags(flags);
  return {
    kube: { flags: kube, cwd: environment.cwd, env: { ...environment.all } },
    managerNamespace: given(flags.managerNamespace) ?? config.managerNamespace,
    mappedNamespaces: copy(flags.mappedNamespaces ?? config.mappedNamespaces),
    alsoProxy: copy(flags.alsoProxy ?? config.alsoProxy),
    neverProxy: copy(flags.neverProxy ?? config.neverProxy),
    allowConflictingSubnets: copy(flags.allowConflictingSubnets ?? config.allowConflictingSubnets),
    vnat: copy(flags.vnat ?? config.vnat),
    virtualSubnet: config.virtualSubnet,
    dns: config.dns,
    ...viaWishes(flags),
    transport: transportWish(given(flags.transport)),
    direct: directWish(given(flags.direct)),
    image: imageReference(flags, environment, config),
    imagePullPolicy: pullPolicy(flags, environment, config),
    rootless: rootlessWish(flags),
  };
}

/** `--via SUBNET=WORKLOAD` is `--proxy-via` of the original. */
function viaWishes({ via = "", proxyVia = [] }: ConnectFlags): Pick<ConnectOptions, "via" | "proxyVia"> {
  const some = via.includes("=") ? [...proxyVia, via] : proxyVia;
  return {
    via: via === "" || via.includes("=") ? undefined : workloadWish(via),
    proxyVia: some.length === 0 ? undefined : some.map(viaWish),
  };
}

function viaWish(text: string): NonNullable<ConnectOptions["proxyVia"]>[number] {
  const [subnet = "", workload = "", ...rest] = text.split("=");
  if (workload === "" || rest.length > 0) {
    throw new AppError("usage", `--proxy-via has "${text}", expected SUBNET=WORKLOAD such as 10.8.0.0/16=web`);
  }
  if (!viaWords.includes(subnet)) checkRanges("--proxy-via", [subnet]);
  return { subnet, workload: workloadWish(workload) };
}

function workloadWish(text: string): NonNullable<ConnectOptions["via"]> {
  const { name, kind } = readTargetName(text);
  return { name, ...(kind === undefined ? {} : { kind }) };
}

function transportWish(text: string | undefined): ConnectOptions["transport"] {
  const wish = transportWishes.find((known) => known === (text ?? "auto"));
  if (wish === undefined) {
    throw new AppError("usage", `--transport is "${text}", expected one of ${transportWishes.join(", ")}`);
  }
  return text === undefined ? undefined : wish;
}

function directWish(text: string | undefined): string | undefined {
  if (text === undefined || ["nodeport", "loadbalancer"].includes(text)) return text;
  if (/^(\[[0-9a-f:]+\]|[a-z0-9.-]+):\d{1,5}$/i.test(text)) return text;
  throw new AppError("usage", `--direct is "${text}", expected nodeport, loadbalancer or HOST:PORT`);
}

/** A port of a proxy is a wish for proxies. */
function rootlessWish({ proxy, proxySocks, proxyHttp }: ConnectFlags): ConnectOptions["rootless"] {
  if (proxy !== true && proxySocks === undefined && proxyHttp === undefined) return undefined;
  const socksPort = proxyPort("--proxy-socks", proxySocks);
  const httpPort = proxyPort("--proxy-http", proxyHttp);
  if (socksPort === httpPort && socksPort !== 0) {
    throw new AppError("usage", `--proxy-socks and --proxy-http are both ${socksPort}, expected two ports`);
  }
  return { proxy: { socksPort, httpPort } };
}

/** 0 is one that is free. */
function proxyPort(flag: string, text = "0"): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
  if (port <= 65_535) return port;
  throw new AppError("usage", `${flag} is "${text}", expected a port number`);
}

/** An empty text is none, as kubectl has it: scripts write `--context "$CONTEXT"`. */
const isGiven = (value: unknown): boolean => value !== undefined && value !== "";
const given = (text: string | undefined): string | undefined => (text === "" ? undefined : text);

const viaWords: readonly string[] = ["service", "pods", "also", "all"];
const vnatWords: readonly string[] = [...viaWords, "off"];

/** What can be said before a daemon is started, or anything in the cluster touched. */
function checkConnectFlags(flags: GlobalFlags & ConnectFlags): void {
  const { managerNamespace, mappedNamespaces = [], alsoProxy = [], neverProxy = [], vnat = [] } = flags;
  checkNamespaces("--manager-namespace", [managerNamespace]);
  checkNamespaces("--mapped-namespaces", mappedNamespaces);
  checkRanges("--also-proxy", alsoProxy);
  checkRanges("--never-proxy", neverProxy);
  checkRanges("--allow-conflicting-subnets", flags.allowConflictingSubnets ?? []);
  checkRanges(
    "--vnat",
    vnat.filter((wish) => !vnatWords.includes(wish)),
  );
}

export function checkNamespaces(flag: string, values: readonly (string | undefined)[]): void {
  const wrong = values.find((value) => isGiven(value) && !/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(value ?? ""));
  if (wrong === undefined) return;
  throw new AppError("usage", `${flag} is "${wrong}", expected lower-case letters, digits and dashes, 63 at most`);
}

/** An address, or one with a prefix length. */
function checkRanges(flag: string, values: readonly string[]): void {
  for (const value of values) {
    const [address = "", bits, ...rest] = value.split("/");
    const maxBits = { 0: -1, 4: 32, 6: 128 }[isIP(address)] ?? -1;
    const bitsFit = bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= maxBits);
    if (maxBits > 0 && bitsFit && rest.length === 0) continue;
    throw new AppError("usage", `${flag} has "${value}", expected address ranges such as 10.0.0.0/8`);
  }
}

const copy = (items: readonly string[] | undefined): string[] | undefined => items && [...items];

/** A reference with a slash is whole; a bare `name:tag` is looked for in the registry, when there is one. */
function imageReference(flags: ConnectFlags, { image }: CliEnvironment, config: ClientConfig): string | undefined {
  const name = given(flags.image) ?? image.image ?? config.image;
  const registry = (image.registry ?? config.registry)?.replace(/\/+$/, "");
  if (registry === undefined || name?.includes("/") === true) return name;
  return `${registry}/${name ?? `telepresence:${softwareVersion}`}`;
}

function pullPolicy(
  flags: ConnectFlags,
  { image }: CliEnvironment,
  config: ClientConfig,
): ConnectOptions["imagePullPolicy"] {
  if (flags.imagePullPolicy !== undefined) return pullPolicyFlag(flags.imagePullPolicy);
  if (image.pullPolicy !== undefined) return parsePullPolicy(image.pullPolicy, "TELEPRESENCE_IMAGE_PULL_POLICY");
  return config.pullPolicy;
}

function pullPolicyFlag(text: string): ConnectOptions["imagePullPolicy"] {
  try {
    return parsePullPolicy(text, "--image-pull-policy");
  } catch (error) {
    throw new AppError("usage", (error as AppError).message, { cause: error });
  }
}

const syntaxes = ["json", "json-stream", "yaml"] as const satisfies readonly Syntax[];

/** `--output` wraps in the envelope of 2.20, `--format` prints the object of 2.29; not both. */
export function outputMode(flags: GlobalFlags): OutputMode {
  if (flags.output !== undefined && flags.format !== undefined) {
    throw new AppError("usage", "--output and --format exclude each other");
  }
  if (flags.output !== undefined) return modeOf("envelope", "--output", flags.output);
  return modeOf("object", "--format", flags.format ?? "default");
}

function modeOf(kind: "envelope" | "object", flag: string, value: string): OutputMode {
  if (value === "default") return { kind: "text" };
  const syntax = syntaxes.find((known) => known === value);
  if (syntax !== undefined) return { kind, syntax };
  throw new AppError("usage", `${flag} is "${value}", expected one of default, ${syntaxes.join(", ")}`);
}

export function progressMode(flags: GlobalFlags): ProgressMode {
  switch (flags.progress) {
    case undefined:
    case "auto":
    case "tty":
      return "auto";
    case "plain":
      return "plain";
    case "quiet":
      return "quiet";
    default:
      throw new AppError("usage", `--progress is "${flags.progress}", expected one of auto, plain, quiet`);
  }
}
