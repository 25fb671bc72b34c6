// config.yml: the keys of 2.20 that mean something here, checked once. An unknown key is an error with the nearest
// name; a key of 2.20 that has no effect here is told, not swallowed. A missing or an empty file is legal.
import { readFile } from "node:fs/promises";
import { isIPv4 } from "node:net";
import { AppError } from "#base/error.ts";
import { describeFileError } from "#base/file-error.ts";
import type { DnsWishes } from "#wire/dns-wishes.ts";
import { agentModes, type AgentMode } from "#wire/connect-choices.ts";
import { nearestName } from "#cli/nearest.ts";

export interface ClientConfig {
  readonly registry?: string;
  readonly image?: string;
  readonly pullPolicy?: PullPolicy;
  readonly managerNamespace?: string;
  readonly mappedNamespaces?: readonly string[];
  readonly alsoProxy?: readonly string[];
  readonly neverProxy?: readonly string[];
  readonly allowConflictingSubnets?: readonly string[];
  /** `off`, when what collides is to be refused. */
  readonly vnat?: readonly string[];
  readonly virtualSubnet?: string;
  readonly dns?: DnsWishes;
  readonly defaultPort?: number;
  readonly agent?: AgentMode;
  /** Upper bounds of the calls to the daemon. */
  readonly connectTimeoutMs?: number;
  readonly interceptTimeoutMs?: number;
  /** Keys of 2.20 that were set and have no effect. */
  readonly withoutEffect: readonly string[];
}

export const pullPolicies = ["Always", "IfNotPresent", "Never"] as const;
export type PullPolicy = (typeof pullPolicies)[number];

export const emptyConfig: ClientConfig = { withoutEffect: [] };

type Reader = (value: unknown, key: string) => unknown;

/** Each key and how its value is read; `undefined` is a key of 2.20 that has no effect. */
const keys: Readonly<Record<string, Readonly<Record<string, Reader | undefined>>>> = {
  images: {
    registry: readText,
    agentImage: readText,
    pullPolicy: readPullPolicy,
    clientImage: undefined,
    webhookRegistry: undefined,
    webhookAgentImage: undefined,
  },
  cluster: {
    defaultManagerNamespace: readText,
    mappedNamespaces: readTexts,
    connectFromRootDaemon: undefined,
    agentPortForward: undefined,
    forceSPDY: undefined,
    virtualIPSubnet: undefined,
  },
  intercept: {
    defaultPort: readPort,
    agent: readAgent,
    appProtocolStrategy: undefined,
    useFtp: undefined,
    localShortcut: undefined,
    localShortcutIsGlobal: undefined,
    mountsRoot: undefined,
  },
  routing: {
    alsoProxySubnets: readTexts,
    neverProxySubnets: readTexts,
    allowConflictingSubnets: readTexts,
    recursionBlockDuration: undefined,
    virtualSubnet: readSubnet,
    autoResolveConflicts: readBoolean,
  },
  timeouts: {
    clusterConnect: readDuration,
    trafficManagerConnect: readDuration,
    agentInstall: readDuration,
    intercept: readDuration,
    apply: undefined,
    connectivityCheck: undefined,
    containerShutdown: undefined,
    endpointDial: undefined,
    ftpReadWrite: undefined,
    ftpShutdown: undefined,
    helm: undefined,
    proxyDial: undefined,
    roundtripLatency: undefined,
    trafficManagerAPI: undefined,
  },
  logLevels: { userDaemon: undefined, rootDaemon: undefined, kubeAuthDaemon: undefined, cli: undefined },
  dns: {
    localAddresses: readTexts,
    localIP: readText,
    excludeSuffixes: readTexts,
    includeSuffixes: readTexts,
    excludes: readTexts,
    mappings: readMappings,
    lookupTimeout: readDuration,
    remoteIP: undefined,
    recursionCheck: undefined,
    useComplexLookup: undefined,
  },
  grpc: { connectionTTL: undefined, maxReceiveSize: undefined, pingInterval: undefined, teleroutePort: undefined },
  docker: {
    addHostGateway: undefined,
    enableIPv4: undefined,
    enableIPv6: undefined,
    hostGateway: undefined,
    telemount: undefined,
    teleroute: undefined,
  },
  helm: { chartURL: undefined },
  nodeAgent: { enabled: undefined },
  telepresenceAPI: { port: undefined },
  usage: { enabled: undefined, collectorAddress: undefined, insecure: undefined },
};

/** `required` when the user named the file himself. */
export async function readConfigFile(path: string, required: boolean): Promise<ClientConfig> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    const absent = ["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "");
    if (absent && !required) return emptyConfig;
    throw invalid(`${path} cannot be read: ${describeFileError(error)}`, "check the path and its permissions", error);
  }
  if (text.trim() === "") return emptyConfig;
  const { parse } = await import("#cli/yaml.ts");
  let root: unknown;
  try {
    root = parse(text);
  } catch (error) {
    const [where] = (error as Error).message.split("\n");
    throw invalid(`${path} is not YAML: ${where?.replace(/:$/, "")}`, "correct the file", error);
  }
  return parseClientConfig(root, path);
}

/** The checked content of config.yml. `source` names it in messages. */
export function parseClientConfig(root: unknown, source: string): ClientConfig {
  if (root === null || root === undefined) return emptyConfig;
  if (!isFields(root)) throw invalid(`${source} holds ${describe(root)}, expected a mapping of keys`);
  const values = new Map<string, unknown>();
  const withoutEffect: string[] = [];
  for (const [name, value] of flatten(root, source)) {
    const read = readerOf(name, source);
    if (read === undefined) withoutEffect.push(name);
    else if (value !== null) values.set(name, read(value, `${source}: ${name}`));
  }
  return assemble(values, withoutEffect);
}

/** `section.key` and value of all that was set; what is no section is refused. */
function flatten(root: Readonly<Record<string, unknown>>, source: string): readonly (readonly [string, unknown])[] {
  return Object.entries(root).flatMap(([section, body]) => {
    if (!Object.hasOwn(keys, section)) throw unknownKey(source, section, Object.keys(keys));
    if (body === null) return [];
    if (!isFields(body)) throw invalid(`${source}: ${section} is ${describe(body)}, expected a mapping of keys`);
    return Object.entries(body).map(([key, value]) => [`${section}.${key}`, value] as const);
  });
}

/** Undefined for a key without effect. */
function readerOf(name: string, source: string): Reader | undefined {
  const dot = name.indexOf(".");
  const known = keys[name.slice(0, dot)] ?? {};
  const key = name.slice(dot + 1);
  if (!Object.hasOwn(known, key)) throw unknownKey(source, name, fullNames());
  return known[key];
}

function assemble(values: ReadonlyMap<string, unknown>, withoutEffect: readonly string[]): ClientConfig {
  const put = <K extends keyof ClientConfig>(name: K, key: string): Partial<Pick<ClientConfig, K>> =>
    values.has(key) ? ({ [name]: values.get(key) } as Pick<ClientConfig, K>) : {};
  return {
    ...put("registry", "images.registry"),
    ...put("image", "images.agentImage"),
    ...put("pullPolicy", "images.pullPolicy"),
    ...put("managerNamespace", "cluster.defaultManagerNamespace"),
    ...put("mappedNamespaces", "cluster.mappedNamespaces"),
    ...put("alsoProxy", "routing.alsoProxySubnets"),
    ...put("neverProxy", "routing.neverProxySubnets"),
    ...put("allowConflictingSubnets", "routing.allowConflictingSubnets"),
    ...(values.get("routing.autoResolveConflicts") === false ? { vnat: ["off"] } : {}),
    ...put("virtualSubnet", "routing.virtualSubnet"),
    ...assembleDns(values),
    ...put("defaultPort", "intercept.defaultPort"),
    ...put("agent", "intercept.agent"),
    ...sum("connectTimeoutMs", [values.get("timeouts.clusterConnect"), values.get("timeouts.trafficManagerConnect")]),
    ...sum("interceptTimeoutMs", [values.get("timeouts.agentInstall"), values.get("timeouts.intercept")]),
    withoutEffect,
  };
}

function assembleDns(values: ReadonlyMap<string, unknown>): Pick<ClientConfig, "dns"> {
  const localIp = values.get("dns.localIP");
  const dns = {
    includeSuffixes: values.get("dns.includeSuffixes"),
    excludeSuffixes: values.get("dns.excludeSuffixes"),
    excludes: values.get("dns.excludes"),
    mappings: values.get("dns.mappings"),
    lookupTimeoutMs: values.get("dns.lookupTimeout"),
    localAddresses: values.get("dns.localAddresses") ?? (localIp === undefined ? undefined : [localIp]),
  };
  const set = Object.entries(dns).filter(([, value]) => value !== undefined);
  return set.length === 0 ? {} : { dns: Object.fromEntries(set) as DnsWishes };
}

/** The original bounds two phases that are one call here; one that is not set keeps its default of 2.20. */
function sum(
  name: "connectTimeoutMs" | "interceptTimeoutMs",
  [first, second]: readonly unknown[],
): Partial<ClientConfig> {
  if (first === undefined && second === undefined) return {};
  const [firstDefault, secondDefault] = name === "connectTimeoutMs" ? [20_000, 60_000] : [120_000, 30_000];
  return {
    [name]: ((first as number | undefined) ?? firstDefault) + ((second as number | undefined) ?? secondDefault),
  };
}

const fullNames = (): readonly string[] =>
  Object.entries(keys).flatMap(([section, known]) => Object.keys(known).map((key) => `${section}.${key}`));

function unknownKey(source: string, key: string, known: readonly string[]): AppError {
  const nearest = nearestName(key, known);
  const hint = nearest === undefined ? `known keys: ${known.join(", ")}` : `did you mean ${nearest}?`;
  return invalid(`${source} has the unknown key ${key}`, hint);
}

function invalid(message: string, hint?: string, cause?: unknown): AppError {
  return new AppError("invalid_config", message, { cause, ...(hint === undefined ? {} : { hint }) });
}

const isFields = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** A value that is long is another file's text, most of the time: nobody wants to read it here. */
function describe(value: unknown): string {
  if (Array.isArray(value)) return "a list";
  const text = JSON.stringify(value);
  if (text.length <= 60) return text;
  return isFields(value) ? "a mapping" : "a long text";
}

function readText(value: unknown, key: string): string {
  if (typeof value === "string" && value !== "") return value;
  throw invalid(`${key} is ${describe(value)}, expected a text`);
}

function readTexts(value: unknown, key: string): readonly string[] {
  if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value;
  throw invalid(`${key} is ${describe(value)}, expected a list of texts`);
}

function readMappings(value: unknown, key: string): NonNullable<DnsWishes["mappings"]> {
  if (!Array.isArray(value)) throw invalid(`${key} is ${describe(value)}, expected a list of name and aliasFor`);
  return (value as readonly unknown[]).map((item, index) => {
    const at = `${key}[${index}]`;
    if (!isFields(item)) throw invalid(`${at} is ${describe(item)}, expected name and aliasFor`);
    const other = Object.keys(item).find((name) => !["name", "aliasFor"].includes(name));
    if (other !== undefined) throw invalid(`${at} has the unknown key ${other}, expected name and aliasFor`);
    return { name: readText(item["name"], `${at}.name`), aliasFor: readText(item["aliasFor"], `${at}.aliasFor`) };
  });
}

function readBoolean(value: unknown, key: string): boolean {
  if (typeof value === "boolean") return value;
  throw invalid(`${key} is ${describe(value)}, expected true or false`);
}

/** An IPv4 range: IPv6 has one of our own. */
function readSubnet(value: unknown, key: string): string {
  const [address = "", bits = "", ...rest] = String(value).split("/");
  if (isIPv4(address) && /^\d{1,2}$/.test(bits) && Number(bits) <= 32 && rest.length === 0) return String(value);
  throw invalid(`${key} is ${describe(value)}, expected an IPv4 range such as 240.0.0.0/4`);
}

function readPort(value: unknown, key: string): number {
  if (typeof value === "number" && Number.isInteger(value) && value >= 1 && value <= 65_535) return value;
  throw invalid(`${key} is ${describe(value)}, expected a port from 1 to 65535`);
}

function readAgent(value: unknown, key: string): AgentMode {
  const mode = agentModes.find((name) => name === value);
  if (mode !== undefined) return mode;
  throw invalid(`${key} is ${JSON.stringify(value)}, expected one of ${agentModes.join(", ")}`);
}

function readPullPolicy(value: unknown, key: string): PullPolicy {
  return parsePullPolicy(String(value), key);
}

export function parsePullPolicy(text: string, source: string): PullPolicy {
  const known = pullPolicies.find((policy) => policy.toLowerCase() === text.toLowerCase());
  if (known !== undefined) return known;
  throw invalid(`${source} is ${JSON.stringify(text)}, expected one of ${pullPolicies.join(", ")}`);
}

const unitMs: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** As 2.20 takes it: a number of seconds, or Go's `1m30s`. */
function readDuration(value: unknown, key: string): number {
  const text = String(value);
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  if (/^(\d+(\.\d+)?(ms|s|m|h))+$/.test(text)) {
    return [...text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)].reduce(
      (total, [, count, unit]) => total + Number(count) * (unitMs[unit ?? ""] ?? 0),
      0,
    );
  }
  throw invalid(`${key} is ${describe(value)}, expected seconds or a duration such as 30s or 1m30s`);
}
