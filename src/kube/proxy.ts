// Sockets to the API server, straight or through a proxy (`proxy-url`, HTTPS_PROXY): HTTP CONNECT and SOCKS5.
// One function makes every socket of this folder, so requests, watches and WebSockets cannot differ in how they get out.
import { once } from "node:events";
import type { Socket } from "node:net";
import { BlockList, connect as connectTcp, isIP } from "node:net";
import type { ConnectionOptions } from "node:tls";
import { connect as connectTls, getCACertificates, setDefaultCACertificates } from "node:tls";
import { AppError } from "#base/error.ts";
import { networkReason } from "./status.ts";

export interface SocketRoute {
  readonly host: string;
  readonly port: number;
  /** Undefined for plain http. */
  readonly tls: ConnectionOptions | undefined;
  readonly proxyUrl: string | undefined;
}

/** Longest answer of an HTTP proxy that we read before giving up. */
const proxyHeaderBytes = 16 * 1024;
/** Keep-alive probes begin after this; below the idle time-outs of common balancers (60 s). Chosen. */
const keepAliveDelayMs = 20_000;

/** A connected socket: TLS is complete when it resolves. */
export async function openSocket(route: SocketRoute, signal: AbortSignal): Promise<Socket> {
  signal.throwIfAborted();
  const first =
    route.proxyUrl === undefined
      ? await connectPlain(route.host, route.port, signal)
      : await connectThroughProxy(route, route.proxyUrl, signal);
  if (route.tls === undefined) return first;
  return startTls(first, { ...named(route.host), ...route.tls }, signal);
}

/** `host` is whom the certificate must name where there is no `servername`, which an address cannot be. */
function named(host: string): ConnectionOptions {
  return { host, servername: isIP(host) === 0 ? host : "" };
}

async function connectPlain(host: string, port: number, signal: AbortSignal): Promise<Socket> {
  const socket = connectTcp({ host, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: keepAliveDelayMs });
  return settle(socket, "connect", signal);
}

function startTls(socket: Socket, options: ConnectionOptions, signal: AbortSignal): Promise<Socket> {
  return settle(connectTls({ ...options, socket }), "secureConnect", signal);
}

async function settle<T extends Socket>(socket: T, event: string, signal: AbortSignal): Promise<T> {
  try {
    await once(socket, event, { signal });
    return socket;
  } catch (error) {
    socket.on("error", () => undefined); // the failure is already being reported
    socket.destroy();
    throw signal.aborted ? signal.reason : error;
  }
}

async function connectThroughProxy(route: SocketRoute, proxyUrl: string, signal: AbortSignal): Promise<Socket> {
  const proxy = parseProxy(proxyUrl);
  const name = proxyName(proxy);
  try {
    const socket = await reachProxy(proxy, route, signal).catch((error: unknown) => {
      throw new Error(`proxy ${name} cannot be reached: ${networkReason(error)}`, { cause: error });
    });
    const connect = proxy.kind === "socks5" ? socksConnect : httpConnect;
    return await connect(socket, proxy, route, signal).catch((error: unknown) => {
      const why = `does not lead to ${route.host}:${route.port}: ${networkReason(error)}`;
      throw new Error(`proxy ${name} ${why}`, { cause: error });
    });
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw new AppError("cluster_unreachable", (error as Error).message, { cause: error, hint: proxyHint });
  }
}

export const proxyHint = "check `proxy-url` in the kubeconfig, or HTTPS_PROXY and NO_PROXY";

async function reachProxy(proxy: Proxy, route: SocketRoute, signal: AbortSignal): Promise<Socket> {
  const plain = await connectPlain(proxy.host, proxy.port, signal);
  if (proxy.kind !== "https") return plain;
  // As kubectl does it: the cluster's own authority may have signed for the proxy as well.
  trustSystemAuthorities();
  const ca = route.tls?.ca === undefined ? {} : { ca: [route.tls.ca, getCACertificates("default")].flat() };
  return await startTls(plain, { ...named(proxy.host), ...ca }, signal);
}

let trustsSystem = false;
/** Beside Node's own the system's, where a company puts those of its proxies; kubectl knows only these. */
export function trustSystemAuthorities(): void {
  if (trustsSystem) return;
  trustsSystem = true;
  // One list for all, since one of its own is read anew for each connection: 50 ms.
  setDefaultCACertificates([...new Set([...getCACertificates("default"), ...getCACertificates("system")])]);
}

/** For messages: never with its password. */
export function proxyName({ kind, host, port }: Proxy): string {
  return `${kind}://${host.includes(":") ? `[${host}]` : host}:${port}`;
}

interface Proxy {
  readonly kind: "http" | "https" | "socks5";
  readonly host: string;
  readonly port: number;
  readonly username: string;
  readonly password: string;
}

const defaultPorts = { http: 80, https: 443, socks5: 1080 } as const;

export function parseProxy(proxyUrl: string): Proxy {
  const { url, username, password } = parseUrl(proxyUrl);
  const scheme = url.protocol.slice(0, -1);
  const kind = scheme === "socks5h" || scheme === "socks" ? "socks5" : scheme;
  if (kind !== "http" && kind !== "https" && kind !== "socks5") {
    throw new AppError(
      "kubeconfig_invalid",
      `the proxy for the cluster has scheme ${scheme}, expected http, https or socks5`,
      {
        hint: proxyHint,
      },
    );
  }
  return {
    kind,
    host: url.hostname.replace(/^\[|\]$/g, ""),
    port: url.port === "" ? defaultPorts[kind] : Number(url.port),
    username,
    password,
  };
}

/** What went wrong is not told further: it has the whole of the URL, with its password. */
function parseUrl(proxyUrl: string): { readonly url: URL; readonly username: string; readonly password: string } {
  try {
    const url = new URL(/^[a-z0-9+]+:\/\//i.test(proxyUrl) ? proxyUrl : `http://${proxyUrl}`);
    const [username, password] = [decodeURIComponent(url.username), decodeURIComponent(url.password)];
    return { url, username, password };
  } catch {
    throw new AppError("kubeconfig_invalid", "the proxy for the cluster is not given as a URL", { hint: proxyHint });
  }
}

async function httpConnect(socket: Socket, proxy: Proxy, route: SocketRoute, signal: AbortSignal): Promise<Socket> {
  const host = route.host.includes(":") ? `[${route.host}]` : route.host;
  const authority = `${host}:${route.port}`;
  const withPassword = proxy.username !== "";
  const credentials = Buffer.from(`${proxy.username}:${proxy.password}`).toString("base64");
  const authorization = withPassword ? `Proxy-Authorization: Basic ${credentials}\r\n` : "";
  socket.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n${authorization}\r\n`);
  const head = await readUntil(socket, signal, (bytes) => {
    const end = bytes.indexOf("\r\n\r\n");
    return end < 0 ? undefined : end + 4;
  });
  const status = /^HTTP\/1\.[01] (\d{3})([^\r\n]*)/.exec(head.toString("latin1"));
  if (status?.[1] !== "200") {
    socket.destroy();
    if (status?.[1] === "407") {
      throw new Error(
        `it ${withPassword ? "refused the user name and password" : "wants a user name and password"} (407)`,
      );
    }
    throw new Error(`it answered ${status === null ? "no HTTP" : `${status[1]}${status[2]}`}`);
  }
  return socket;
}

async function socksConnect(socket: Socket, proxy: Proxy, route: SocketRoute, signal: AbortSignal): Promise<Socket> {
  const withPassword = proxy.username !== "";
  socket.write(Buffer.from(withPassword ? [5, 2, 0, 2] : [5, 1, 0]));
  const choice = await readUntil(socket, signal, exactly(2));
  if (choice[0] !== 5 || choice[1] === 0xff) throw new Error("it accepts none of our ways to log in");
  if (choice[1] === 2) await socksLogin(socket, proxy, signal);
  const name = Buffer.from(route.host, "utf8");
  socket.write(
    Buffer.concat([Buffer.from([5, 1, 0, 3, name.length]), name, Buffer.from([route.port >> 8, route.port & 255])]),
  );
  const answer = await readUntil(socket, signal, (bytes) => {
    if (bytes.length < 5) return undefined;
    const addressBytes = bytes[3] === 1 ? 4 : bytes[3] === 4 ? 16 : 1 + (bytes[4] ?? 0);
    return bytes.length < 6 + addressBytes ? undefined : 6 + addressBytes;
  });
  if (answer[1] !== 0) throw new Error(`SOCKS5 answered code ${answer[1]}`);
  return socket;
}

async function socksLogin(socket: Socket, proxy: Proxy, signal: AbortSignal): Promise<void> {
  const user = Buffer.from(proxy.username, "utf8");
  const password = Buffer.from(proxy.password, "utf8");
  socket.write(Buffer.concat([Buffer.from([1, user.length]), user, Buffer.from([password.length]), password]));
  const answer = await readUntil(socket, signal, exactly(2));
  if (answer[1] !== 0) throw new Error("it refused the user name and password");
}

function exactly(count: number): (bytes: Buffer) => number | undefined {
  return (bytes) => (bytes.length < count ? undefined : count);
}

/** Reads until `measure` knows the length of the answer; what follows it goes back to the socket. */
async function readUntil(
  socket: Socket,
  signal: AbortSignal,
  measure: (bytes: Buffer) => number | undefined,
): Promise<Buffer> {
  let bytes: Buffer = Buffer.alloc(0);
  try {
    for (;;) {
      const chunk = socket.read() as Buffer | null;
      if (chunk === null) {
        if (socket.readableEnded || socket.destroyed) throw new Error("it closed the connection");
        await once(socket, "readable", { signal });
        continue;
      }
      bytes = Buffer.concat([bytes, chunk]);
      const length = measure(bytes);
      if (length !== undefined) {
        if (bytes.length > length) socket.unshift(bytes.subarray(length));
        return bytes.subarray(0, length);
      }
      if (bytes.length > proxyHeaderBytes) throw new Error("its answer is too long");
    }
  } catch (error) {
    socket.on("error", () => undefined); // the failure is already being reported
    socket.destroy();
    throw error;
  }
}

/** HTTPS_PROXY, HTTP_PROXY and NO_PROXY, as Go's programs read them. */
export function environmentProxy(server: string, env: Readonly<Record<string, string>>): string | undefined {
  const url = new URL(server);
  const key = url.protocol === "https:" ? "https_proxy" : "http_proxy";
  const proxy = firstOf(env, key);
  if (proxy === undefined) return undefined;
  const host = url.hostname.replace(/^\[|\]$/g, "");
  if (host === "localhost" || host === "::1" || host.startsWith("127.")) return undefined;
  const port = url.port === "" ? String(defaultPorts[url.protocol === "https:" ? "https" : "http"]) : url.port;
  const excluded = (firstOf(env, "no_proxy") ?? "").split(",").map((item) => item.trim().toLowerCase());
  return excluded.some((pattern) => matchesNoProxy(pattern, host, port)) ? undefined : proxy;
}

function firstOf(env: Readonly<Record<string, string>>, key: string): string | undefined {
  return [env[key.toUpperCase()], env[key]].find((value) => value !== undefined && value !== "");
}

function matchesNoProxy(pattern: string, host: string, port: string): boolean {
  if (pattern === "") return false;
  if (pattern === "*") return true;
  if (pattern.includes("/")) return matchesSubnet(pattern, host);
  const [, bracketed, plain, wantedPort] = /^(?:\[([^\]]*)\]|([^:]*))(?::(\d+))?$/.exec(pattern) ?? [];
  if (wantedPort !== undefined && wantedPort !== port) return false;
  const name = bracketed ?? plain ?? pattern;
  if (isIP(name) !== 0) return host === name;
  // with a dot before it, its subdomains only
  if (/^\*?\./.test(name)) return host.endsWith(name.replace(/^\*/, ""));
  return host === name || host.endsWith(`.${name}`);
}

function matchesSubnet(cidr: string, host: string): boolean {
  const [base = "", bits = ""] = cidr.split("/");
  const family = isIP(base) === 6 ? "ipv6" : "ipv4";
  if (isIP(base) === 0 || isIP(base) !== isIP(host) || !/^\d+$/.test(bits)) return false;
  if (Number(bits) > (family === "ipv6" ? 128 : 32)) return false;
  const subnet = new BlockList();
  subnet.addSubnet(base, Number(bits), family);
  return subnet.check(host, family);
}
