// A connection without a device: where its proxies are, and the environment in which programs use them.
import type { Connection } from "#wire/control-api.ts";

/**
 * Variables in the spellings that programs read. The API server is never behind the proxy: its connection is what the
 * proxy itself goes through, and `kubectl` and this command must work when it is gone.
 */
export function proxyEnvironment(connection: Connection | undefined): Readonly<Record<string, string>> {
  if (connection?.proxy === undefined) return {};
  const { socks, http } = connection.proxy;
  const never = ["localhost", "127.0.0.1", "::1", hostOf(connection.server)].filter((host) => host !== "");
  const variables = {
    ALL_PROXY: `socks5h://${socks}`,
    HTTP_PROXY: `http://${http}`,
    HTTPS_PROXY: `http://${http}`,
    NO_PROXY: [...new Set(never)].join(","),
  };
  const lower = Object.entries(variables).map(([name, value]) => [name.toLowerCase(), value]);
  // Node's own way to ask for what other programs do by themselves.
  return { ...variables, ...Object.fromEntries(lower), NODE_USE_ENV_PROXY: "1" };
}

/** For people: lines to put into a shell. */
export function formatProxy(connection: Connection | undefined): readonly string[] {
  if (connection?.proxy === undefined) return [];
  const { socks, http } = connection.proxy;
  const variables = Object.entries(proxyEnvironment(connection));
  return [
    `Proxies: SOCKS5 ${socks}, HTTP ${http}; programs use them by these variables:`,
    ...variables.map(([name, value]) => `  export ${name}=${value}`),
  ];
}

export function proxyToJson(connection: Connection): Readonly<Record<string, unknown>> | undefined {
  return connection.proxy && { ...connection.proxy, environment: proxyEnvironment(connection) };
}

function hostOf(url: string): string {
  return URL.canParse(url) ? new URL(url).hostname.replace(/^\[|\]$/g, "") : "";
}
