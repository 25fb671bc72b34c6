// Who we are to the API server: certificate, token, plugin, impersonation. Files are read again when they change,
// plugins run again when their credential expires or the server refused it.
import { createHash, X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { ConnectionOptions } from "node:tls";
import { deadline, raceSignal } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import { describeFileError } from "#base/file-error.ts";
import { isFields, text } from "./kubeconfig.ts";
import { refreshOidc } from "./oidc.ts";
import { trustSystemAuthorities } from "./proxy.ts";
import { describeUser } from "./status.ts";
import type { ExecPlugin, KubeTarget, Material } from "./target.ts";

/** Runs a credential plugin; given by the caller, because only host/ starts processes. */
export type RunCommand = (command: PluginCommand, signal: AbortSignal) => Promise<PluginResult>;

export interface PluginCommand {
  readonly file: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
}

export interface PluginResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Credentials {
  readonly headers: Readonly<Record<string, string | readonly string[]>>;
  /** Undefined for a plain http server. */
  readonly tls: ConnectionOptions | undefined;
  /** Changes when the TLS side does: sockets of another identity must not be used again. */
  readonly identity: string;
}

interface PluginCredential {
  readonly token: string | undefined;
  readonly certificate: string | undefined;
  readonly key: string | undefined;
  readonly expiresAtMs: number | undefined;
}

/** How long what was read from files counts as fresh; client-go's figure is the same order. Chosen. */
const fileFreshMs = 30_000;
/** A credential is renewed this long before it expires, so that a request in flight does not meet the end. Chosen. */
const renewEarlyMs = 10_000;
/** A plugin may open a browser and wait for its user. Chosen. */
const pluginMs = 90_000;

export class Authenticator {
  readonly #target: KubeTarget;
  readonly #clock: Clock;
  readonly #run: RunCommand | undefined;
  #cached: { readonly credentials: Credentials; readonly untilMs: number } | undefined;
  #plugin: PluginCredential | undefined;
  #pending: Promise<Credentials> | undefined;
  #certificateEndMs: number | undefined;

  constructor(target: KubeTarget, clock: Clock, run: RunCommand | undefined) {
    this.#target = target;
    this.#clock = clock;
    this.#run = run;
  }

  /** Fresh credentials; concurrent callers share one plugin run, which a caller's signal does not end for the others. */
  credentials(signal: AbortSignal): Promise<Credentials> {
    const cached = this.#cached;
    if (cached !== undefined && this.#clock.wallMs() < cached.untilMs) return Promise.resolve(cached.credentials);
    this.#pending ??= this.#loadInTime().finally(() => {
      this.#pending = undefined;
    });
    return raceSignal(this.#pending, signal);
  }

  async #loadInTime(): Promise<Credentials> {
    using limit = deadline(this.#clock, pluginMs, "getting credentials from the kubeconfig");
    return await raceSignal(this.#load(limit.signal), limit.signal);
  }

  /** The server refused them: true when asking again can give others. */
  invalidate(): boolean {
    this.#cached = undefined;
    this.#plugin = undefined;
    const { exec, tokenFile, oidc, certificate } = this.#target.user;
    return (
      exec !== undefined ||
      tokenFile !== undefined ||
      oidc !== undefined ||
      (certificate !== undefined && "file" in certificate)
    );
  }

  /** Why the server refused them, where that is plain; asked after a refusal, as this clock may be the wrong one. */
  explainRefusal(): AppError | undefined {
    const endMs = this.#certificateEndMs;
    if (endMs === undefined || this.#clock.wallMs() < endMs) return undefined;
    const when = new Date(endMs).toISOString().slice(0, 16).replace("T", " ");
    const { server } = this.#target;
    return new AppError(
      "unauthorized",
      `the client certificate of ${describeUser(this.#target)} expired on ${when} UTC, and ${server} does not accept it`,
      { hint: "log in to the cluster again, or get a kubeconfig with a new certificate" },
    );
  }

  async #load(signal: AbortSignal): Promise<Credentials> {
    const plugin = await this.#pluginCredential(signal);
    const token = (await this.#configuredToken(signal)) ?? plugin?.token;
    const tls = await this.#tls(plugin);
    const credentials = { tls, headers: this.#headers(token), identity: hash(tls) };
    const pluginEndMs = (plugin?.expiresAtMs ?? Number.POSITIVE_INFINITY) - renewEarlyMs;
    this.#cached = { credentials, untilMs: Math.min(this.#clock.wallMs() + fileFreshMs, pluginEndMs) };
    return credentials;
  }

  async #configuredToken(signal: AbortSignal): Promise<string | undefined> {
    const { user } = this.#target;
    if (user.tokenFile !== undefined) return (await readNamed(user.tokenFile, "tokenFile")).trim();
    if (user.token !== undefined) return user.token;
    return user.oidc === undefined ? undefined : await refreshOidc(user.oidc, this.#clock.wallMs(), signal);
  }

  async #tls(plugin: PluginCredential | undefined): Promise<ConnectionOptions | undefined> {
    if (!this.#target.server.startsWith("https:")) return undefined;
    const { user, tlsServerName } = this.#target;
    const [ca, certificate, key] = await Promise.all([
      readMaterial(this.#target.ca, "certificate-authority"),
      readMaterial(user.certificate, "client-certificate"),
      readMaterial(user.key, "client-key"),
    ]);
    this.#certificateEndMs = certificateEnd(certificate);
    if (ca === undefined) trustSystemAuthorities();
    return {
      ...(ca === undefined ? {} : { ca }),
      ...identityOf(certificate ?? plugin?.certificate, key ?? plugin?.key),
      ...(tlsServerName === undefined ? {} : { servername: tlsServerName }),
      rejectUnauthorized: !this.#target.insecure,
      minVersion: "TLSv1.2",
      ALPNProtocols: ["http/1.1"],
    };
  }

  #headers(token: string | undefined): Record<string, string | readonly string[]> {
    const { user, impersonate } = this.#target;
    const headers: Record<string, string | readonly string[]> = {};
    if (token !== undefined && token !== "") headers["Authorization"] = `Bearer ${token}`;
    else if (user.basic !== undefined) {
      const { username, password } = user.basic;
      headers["Authorization"] = `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
    }
    if (impersonate.user !== undefined) headers["Impersonate-User"] = impersonate.user;
    if (impersonate.uid !== undefined) headers["Impersonate-Uid"] = impersonate.uid;
    if (impersonate.groups.length > 0) headers["Impersonate-Group"] = impersonate.groups;
    for (const [key, values] of Object.entries(impersonate.extra)) {
      headers[`Impersonate-Extra-${encodeURIComponent(key)}`] = values;
    }
    return headers;
  }

  async #pluginCredential(signal: AbortSignal): Promise<PluginCredential | undefined> {
    const { exec, token, tokenFile } = this.#target.user;
    if (exec === undefined || token !== undefined || tokenFile !== undefined) return undefined;
    const known = this.#plugin;
    const expiresAtMs = known?.expiresAtMs ?? Number.POSITIVE_INFINITY;
    if (known !== undefined && this.#clock.wallMs() < expiresAtMs - renewEarlyMs) return known;
    if (this.#run === undefined) throw new AppError("unsupported", "credential plugins cannot be run here");
    const result = await this.#run(planPlugin(this.#target, exec), signal).catch((error: unknown) => {
      throw missingPlugin(exec, error);
    });
    this.#plugin = parsePluginResult(exec, result);
    return this.#plugin;
  }
}

function planPlugin(target: KubeTarget, exec: ExecPlugin): PluginCommand {
  const ca = target.ca !== undefined && "pem" in target.ca ? Buffer.from(target.ca.pem).toString("base64") : undefined;
  const info = {
    apiVersion: exec.apiVersion,
    kind: "ExecCredential",
    spec: {
      interactive: false,
      ...(exec.provideClusterInfo
        ? {
            cluster: {
              server: target.server,
              "tls-server-name": target.tlsServerName,
              "insecure-skip-tls-verify": target.insecure || undefined,
              "certificate-authority-data": ca,
              "proxy-url": target.proxyUrl,
              config: exec.clusterConfig ?? null,
            },
          }
        : {}),
    },
  };
  return {
    file: exec.command,
    args: exec.args,
    cwd: target.cwd,
    env: { ...target.env, ...exec.env, KUBERNETES_EXEC_INFO: JSON.stringify(info) },
  };
}

function missingPlugin(exec: ExecPlugin, error: unknown): AppError {
  const missing = [error, (error as Error).cause].some((item) => (item as NodeJS.ErrnoException)?.code === "ENOENT");
  if (!missing && error instanceof AppError) return error;
  const why = missing ? "was not found" : `could not be started: ${String(error)}`;
  return new AppError("unauthorized", `credential plugin ${JSON.stringify(exec.command)} of the kubeconfig ${why}`, {
    cause: error,
    hint: exec.installHint?.trim() ?? "install it or put its folder on PATH",
  });
}

function parsePluginResult(exec: ExecPlugin, result: PluginResult): PluginCredential {
  const failed = (why: string): AppError =>
    new AppError("unauthorized", `credential plugin ${JSON.stringify(exec.command)} ${why}`, {
      hint: "run the command yourself, it may want a new login",
    });
  if (result.exitCode !== 0) {
    const said = result.stderr.trim().split("\n").slice(-3).join(" ").slice(0, 500);
    throw failed(`failed with exit code ${result.exitCode}${said === "" ? "" : `: ${said}`}`);
  }
  const status = parseStatusOf(result.stdout);
  if (status === undefined) throw failed("did not answer with an ExecCredential");
  const token = text(status["token"]);
  const certificate = text(status["clientCertificateData"]);
  if (token === undefined && certificate === undefined) throw failed("gave neither a token nor a certificate");
  const expires = Date.parse(text(status["expirationTimestamp"]) ?? "");
  return {
    token,
    certificate,
    key: text(status["clientKeyData"]),
    expiresAtMs: Number.isNaN(expires) ? certificateEnd(certificate) : expires,
  };
}

function parseStatusOf(stdout: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const parsed: unknown = JSON.parse(stdout);
    return isFields(parsed) && isFields(parsed["status"]) ? parsed["status"] : undefined;
  } catch {
    return undefined; // the caller names the plugin
  }
}

function certificateEnd(pem: string | undefined): number | undefined {
  if (pem === undefined) return undefined;
  try {
    return Date.parse(new X509Certificate(pem).validTo);
  } catch {
    return undefined; // the TLS layer will say what is wrong with it
  }
}

function identityOf(cert: string | undefined, key: string | undefined): ConnectionOptions {
  if (cert === undefined || key === undefined) return {};
  return { cert, key };
}

async function readMaterial(material: Material | undefined, what: string): Promise<string | undefined> {
  if (material === undefined) return undefined;
  return "pem" in material ? material.pem : readNamed(material.file, what);
}

async function readNamed(path: string, what: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw new AppError(
      "kubeconfig_invalid",
      `${what} ${path} of the kubeconfig cannot be read: ${describeFileError(error)}`,
      {
        cause: error,
        hint: "mend the path in the kubeconfig",
      },
    );
  }
}

function hash(tls: object | undefined): string {
  return createHash("sha256")
    .update(JSON.stringify(tls ?? null))
    .digest("hex");
}
