// The server's settings: flags of `telepresence cloud serve`, each also as a variable of the environment, because a
// container is set up by those and a secret must not stand in argv. Parsed once; an error names what was given.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Command, Option } from "commander";
import { AppError } from "#base/error.ts";
import { describeFileError } from "#base/file-error.ts";
import type { LogLevel } from "#base/log.ts";

export type DatabaseChoice =
  | { readonly kind: "sqlite"; readonly path: string }
  | { readonly kind: "postgres"; readonly url: string };

export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
}

export interface OidcConfig {
  readonly issuer: URL;
  readonly clientId: string;
  readonly clientSecret: string | undefined;
  /** The claim that lists a person's groups; each is a team. */
  readonly groupsClaim: string;
  /** Members of this group are administrators. */
  readonly adminGroup: string | undefined;
}

export interface CloudConfig {
  readonly listen: { readonly host: string; readonly port: number };
  readonly database: DatabaseChoice;
  /** What people type, without a path. */
  readonly url: URL;
  /** Previews are `https://NAME.` and this, with the port of `url`. Without one there are none. */
  readonly previewDomain: string | undefined;
  readonly tls: TlsFiles | undefined;
  readonly oidc: OidcConfig | undefined;
  /** Ranges whose X-Forwarded-For is believed. */
  readonly trustedProxies: readonly string[];
  /** Who has it may read /metrics without being a person. */
  readonly metricsToken: string | undefined;
  readonly logLevel: LogLevel;
}

const logLevels: readonly LogLevel[] = ["trace", "debug", "info", "warn", "error", "silent"];
const defaultPort = 8443;

const flags = {
  listen: ["HOST:PORT", `address of the one port (default: 127.0.0.1:${defaultPort})`],
  url: ["URL", "what people type to come here (default: http://localhost:PORT, for this machine only)"],
  "preview-domain": [
    "DOMAIN",
    "previews are *.DOMAIN, which leads here too (default: preview.localhost with localhost)",
  ],
  database: ["sqlite:FILE|postgres://USER@HOST/NAME", "where everything is kept (default: a SQLite file of this user)"],
  "tls-cert": ["FILE", "certificate chain, PEM; without one the port speaks plain HTTP"],
  "tls-key": ["FILE", "its key, PEM"],
  "oidc-issuer": ["URL", "OpenID Connect provider by which people log in (default: built-in accounts)"],
  "oidc-client-id": ["ID", "this server's name at the provider"],
  "oidc-client-secret-file": ["FILE", "file with this server's secret at the provider"],
  "oidc-groups-claim": ["NAME", "claim that lists a person's groups, which become teams (default: groups)"],
  "oidc-admin-group": ["NAME", "group whose members are administrators here"],
  "trusted-proxies": ["RANGES", "addresses of proxies before this server whose X-Forwarded-For counts"],
  "metrics-token-file": [
    "FILE",
    "file with the token by which Prometheus reads /metrics (default: administrators only)",
  ],
  "log-level": ["LEVEL", `one of ${logLevels.join(", ")} (default: info)`],
} as const;

type Flag = keyof typeof flags;
type Given = Readonly<Partial<Record<Flag, string>>>;

const variableOf = (flag: Flag): string => `TELEPRESENCE_CLOUD_${flag.toUpperCase().replaceAll("-", "_")}`;

/** `words` stand behind `telepresence cloud`. Help and mistakes of usage end by commander, with what it has written. */
export function parseCloudConfig(
  words: readonly string[],
  prepare: (command: Command) => void,
  env: NodeJS.ProcessEnv = process.env,
): CloudConfig {
  const command = new Command("telepresence cloud");
  command.configureOutput({
    outputError: (text, write) =>
      write(`telepresence cloud serve: ${text.replace(/^error: /, "")}See 'telepresence cloud serve --help'.\n`),
  });
  prepare(command);
  const serve = command.command("serve").description("Serve login, previews and the dashboard for a team, on one port");
  for (const [flag, [value, text]] of Object.entries(flags)) {
    serve.addOption(new Option(`--${flag} <${value}>`, text));
  }
  serve.addHelpText("after", `\nEach flag is also a variable: --oidc-issuer is ${variableOf("oidc-issuer")}.`);
  serve.action(() => undefined);
  command.parse([...words], { from: "user" });
  const options = serve.opts<Record<string, string>>();
  const given: Record<string, string> = {};
  for (const flag of Object.keys(flags) as Flag[]) {
    const camelCase = flag.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
    const value = options[camelCase] ?? env[variableOf(flag)];
    if (value !== undefined && value !== "") given[flag] = value;
  }
  return Object.freeze(readConfig(given, env));
}

function readConfig(given: Given, env: NodeJS.ProcessEnv): CloudConfig {
  const listen = parseListen(given.listen ?? `127.0.0.1:${defaultPort}`);
  const tls = parseTls(given);
  const url = parseOwnUrl(given.url, listen, tls !== undefined);
  return {
    listen,
    url,
    tls,
    previewDomain: parsePreviewDomain(given["preview-domain"], url),
    database: parseDatabase(given.database, env),
    oidc: parseOidc(given),
    trustedProxies: (given["trusted-proxies"] ?? "").split(/[\s,]+/).filter((range) => range !== ""),
    metricsToken: parseMetricsToken(given["metrics-token-file"]),
    logLevel: parseLogLevel(given["log-level"] ?? "info"),
  };
}

function parseListen(text: string): CloudConfig["listen"] {
  const [, host, digits] = /^(?:\[?([^\]]*)\]?:)?(\d{1,5})$/.exec(text) ?? [];
  const port = Number(digits);
  if (digits !== undefined && port <= 65_535) return { host: host === undefined || host === "" ? "::" : host, port };
  throw new AppError("usage", `--listen is "${text}", expected HOST:PORT such as 127.0.0.1:${defaultPort}`);
}

/** Cookies that carry a login are for HTTPS; browsers make an exception for this machine's own names. */
export function isLoopbackName(host: string): boolean {
  return /^(localhost|127(\.\d+){3}|\[::1\])$/.test(host) || host.endsWith(".localhost");
}

function parseOwnUrl(text: string | undefined, { host, port }: CloudConfig["listen"], tls: boolean): URL {
  if (text === undefined) {
    if (isLoopbackName(host) || host === "::1") return new URL(`${tls ? "https" : "http"}://localhost:${port}`);
    throw new AppError("usage", `the server is to listen on ${host} and does not know its own address`, {
      hint: "add --url https://NAME, as people type it",
    });
  }
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.href !== `${url.origin}/`) {
    throw new AppError("usage", `--url is "${text}", expected https://NAME without a path`);
  }
  if (url.protocol === "https:" || isLoopbackName(url.hostname)) return url;
  throw new AppError("usage", `--url is "${text}", which would carry logins in plain text`, {
    hint: "give it a certificate with --tls-cert and --tls-key, or put a proxy with TLS before it",
  });
}

function parsePreviewDomain(text: string | undefined, url: URL): string | undefined {
  if (text === undefined) return isLoopbackName(url.hostname) ? "preview.localhost" : undefined;
  const domain = text.toLowerCase().replace(/^\*?\./, "");
  if (!/^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]+$/.test(domain)) {
    throw new AppError("usage", `--preview-domain is "${text}", expected a domain such as preview.example.com`);
  }
  if (domain !== url.hostname && !url.hostname.endsWith(`.${domain}`)) return domain;
  throw new AppError("usage", `--preview-domain is "${text}", and --url lies in it`, {
    hint: "use a domain that is not the server's own, so that a preview cannot reach its cookies",
  });
}

function parseTls(given: Given): TlsFiles | undefined {
  const [cert, key] = [given["tls-cert"], given["tls-key"]];
  if (cert === undefined && key === undefined) return undefined;
  if (cert !== undefined && key !== undefined) return { cert, key };
  throw new AppError("usage", "--tls-cert and --tls-key belong together, and one of them is missing");
}

function parseDatabase(text: string | undefined, env: NodeJS.ProcessEnv): DatabaseChoice {
  if (text === undefined) return { kind: "sqlite", path: join(dataFolder(env), "telepresence", "cloud.sqlite") };
  if (/^postgres(ql)?:\/\//.test(text)) return { kind: "postgres", url: text };
  if (text.startsWith("sqlite:") && text.length > 7) return { kind: "sqlite", path: text.slice(7) };
  const shown = text.replace(/\/\/[^@/]*@/, "//…@");
  throw new AppError("usage", `--database is "${shown}", expected sqlite:FILE or postgres://USER@HOST/NAME`);
}

function dataFolder(env: NodeJS.ProcessEnv): string {
  const chosen = env["XDG_DATA_HOME"];
  return chosen?.startsWith("/") === true ? chosen : join(env["HOME"] ?? "/var/lib", ".local", "share");
}

function parseOidc(given: Given): OidcConfig | undefined {
  const issuer = given["oidc-issuer"];
  if (issuer === undefined) return undefined;
  const clientId = given["oidc-client-id"];
  if (!URL.canParse(issuer)) throw new AppError("usage", `--oidc-issuer is "${issuer}", expected a URL`);
  if (clientId === undefined) throw new AppError("usage", "--oidc-issuer needs --oidc-client-id");
  const secretFile = given["oidc-client-secret-file"];
  return {
    issuer: new URL(issuer),
    clientId,
    clientSecret: secretFile === undefined ? undefined : readSecret(secretFile),
    groupsClaim: given["oidc-groups-claim"] ?? "groups",
    adminGroup: given["oidc-admin-group"],
  };
}

function readSecret(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch (cause) {
    throw new AppError("invalid_config", `the file ${path} cannot be read: ${describeFileError(cause)}`, { cause });
  }
}

function parseMetricsToken(file: string | undefined): string | undefined {
  const token = file === undefined ? undefined : readSecret(file);
  if (token === undefined || /^[\x21-\x7e]{16,500}$/.test(token)) return token;
  throw new AppError("invalid_config", `the token in ${file} is of no use, expected at least 16 letters and digits`);
}

function parseLogLevel(text: string): LogLevel {
  const level = logLevels.find((name) => name === text);
  if (level !== undefined) return level;
  throw new AppError("usage", `--log-level is "${text}", expected one of ${logLevels.join(", ")}`);
}
