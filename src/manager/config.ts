// The manager's configuration, from its container's environment; parsed once, unknown values are errors that name the
// variable. The installer writes the first four from the downward API.
import { networkInterfaces } from "node:os";
import { AppError } from "#base/error.ts";
import type { LogLevel } from "#base/log.ts";
import { managerAgentPort, managerDirectPort, managerHealthPort, managerLaptopPort } from "#wire/manager-api.ts";
import { rangeSet } from "#egress/guard.ts";

export interface ManagerConfig {
  readonly podName: string;
  readonly namespace: string;
  /** Addresses of this pod. */
  readonly podIps: readonly string[];
  /** Addresses of nodes: this pod's own, and what the install lists. */
  readonly nodeIps: readonly string[];
  /** Lists further ones, one a line, and is kept current. */
  readonly nodesFile?: string | undefined;
  readonly allowNodes: boolean;
  readonly allowRanges: readonly string[];
  readonly denyRanges: readonly string[];
  readonly apiServiceHost: string | undefined;
  readonly resolvConfPath: string;
  readonly logLevel: LogLevel;
  /** 0 takes any free port (tests). */
  readonly ports: {
    readonly laptop: number;
    readonly agent: number;
    readonly health: number;
    readonly direct: number;
  };
}

const logLevels: readonly LogLevel[] = ["trace", "debug", "info", "warn", "error", "silent"];

export function parseManagerConfig(env: NodeJS.ProcessEnv = process.env): ManagerConfig {
  const listed = splitList(env["TELEPRESENCE_POD_IPS"]);
  return Object.freeze({
    podName: env["TELEPRESENCE_POD_NAME"] ?? "traffic-manager",
    namespace: env["TELEPRESENCE_POD_NAMESPACE"] ?? "",
    podIps: listed.length > 0 ? listed : interfaceAddresses(),
    nodeIps: [...splitList(env["TELEPRESENCE_NODE_IPS"]), ...splitList(env["TELEPRESENCE_OTHER_NODE_IPS"])],
    nodesFile: env["TELEPRESENCE_NODES_FILE"],
    allowNodes: parseFlag("TELEPRESENCE_ALLOW_NODES", env["TELEPRESENCE_ALLOW_NODES"]),
    allowRanges: parseRanges(env["TELEPRESENCE_ALLOW_RANGES"]),
    denyRanges: parseRanges(env["TELEPRESENCE_DENY_RANGES"]),
    apiServiceHost: env["KUBERNETES_SERVICE_HOST"],
    resolvConfPath: "/etc/resolv.conf",
    logLevel: parseLogLevel(env["TELEPRESENCE_LOG_LEVEL"]),
    ports: {
      laptop: managerLaptopPort,
      agent: managerAgentPort,
      health: managerHealthPort,
      direct: managerDirectPort,
    },
  });
}

/** Addresses of this pod's interfaces, loopback left out. */
export function interfaceAddresses(): readonly string[] {
  return Object.values(networkInterfaces()).flatMap((addresses) =>
    (addresses ?? []).filter((entry) => !entry.internal && !isLinkLocal(entry.address)).map((entry) => entry.address),
  );
}

function isLinkLocal(address: string): boolean {
  return /^(fe[89ab]|169\.254\.)/i.test(address);
}

function splitList(text: string | undefined): readonly string[] {
  return (text ?? "").split(/[\s,]+/).filter((item) => item !== "");
}

function parseRanges(text: string | undefined): readonly string[] {
  const ranges = splitList(text);
  rangeSet(ranges); // throws for a malformed one now, not at the first dial
  return ranges;
}

function parseFlag(name: string, text: string | undefined): boolean {
  if (text === undefined || text === "" || text === "false") return false;
  if (text === "true") return true;
  throw new AppError("invalid_config", `${name} is "${text}", expected true or false`);
}

function parseLogLevel(text: string | undefined): LogLevel {
  const level = logLevels.find((name) => name === (text ?? "info"));
  if (level !== undefined) return level;
  throw new AppError("invalid_config", `TELEPRESENCE_LOG_LEVEL is "${text}", expected one of ${logLevels.join(", ")}`);
}
