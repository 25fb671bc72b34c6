// The agent's configuration, from its container's environment; parsed once. The installer writes all of it; the pod's
// name, uid and addresses come from the downward API.
import { networkInterfaces } from "node:os";
import { AppError } from "#base/error.ts";
import type { LogLevel } from "#base/log.ts";
import {
  agentConfigSchema,
  agentConfigVariable,
  agentHealthPort,
  agentIntroductionPort,
  appEnvironmentPrefix,
} from "#wire/agent-api.ts";
import type { AgentConfig } from "#wire/agent-api.ts";
import { agentDoorName } from "#wire/agent-door.ts";

export interface AgentSettings {
  readonly config: AgentConfig;
  readonly podName: string;
  readonly podUid: string;
  readonly podIps: readonly string[];
  readonly logLevel: LogLevel;
  /** How long connections may go on after SIGTERM. */
  readonly drainMs: number;
  /** 0 takes any free port (tests). */
  readonly ports: { readonly introduction: number; readonly health: number };
  /** Where programs in this container ask; another one in tests. */
  readonly doorName: string;
}

const logLevels: readonly LogLevel[] = ["trace", "debug", "info", "warn", "error", "silent"];
/** chosen: kubelet's default grace period less a margin; it kills by itself where the pod's is shorter. */
const defaultDrainSeconds = 28;

export function parseAgentSettings(env: NodeJS.ProcessEnv = process.env): AgentSettings {
  const listed = (env["TELEPRESENCE_POD_IPS"] ?? "").split(/[\s,]+/).filter((item) => item !== "");
  return Object.freeze({
    config: parseAgentConfig(env[agentConfigVariable]),
    podName: env["TELEPRESENCE_POD_NAME"] ?? "",
    podUid: env["TELEPRESENCE_POD_UID"] ?? "",
    podIps: listed.length > 0 ? listed : interfaceAddresses(),
    logLevel: parseLogLevel(env["TELEPRESENCE_LOG_LEVEL"]),
    drainMs: parseSeconds("TELEPRESENCE_DRAIN_SECONDS", env["TELEPRESENCE_DRAIN_SECONDS"]) * 1000,
    ports: { introduction: agentIntroductionPort, health: agentHealthPort },
    doorName: agentDoorName,
  });
}

function parseAgentConfig(text: string | undefined): AgentConfig {
  if (text === undefined) throw new AppError("invalid_config", `${agentConfigVariable} is not set, expected JSON`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new AppError("invalid_config", `${agentConfigVariable} is not JSON`, { cause: error });
  }
  const parsed = agentConfigSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new AppError("invalid_config", `${agentConfigVariable} at "${issue?.path.join(".")}": ${issue?.message}`);
}

function interfaceAddresses(): readonly string[] {
  return Object.values(networkInterfaces()).flatMap((addresses) =>
    (addresses ?? [])
      .filter((entry) => !entry.internal && !/^(fe[89ab]|169\.254\.)/i.test(entry.address))
      .map((entry) => entry.address),
  );
}

function parseSeconds(name: string, text: string | undefined): number {
  if (text === undefined || text === "") return defaultDrainSeconds;
  const seconds = Number(text);
  if (Number.isFinite(seconds) && seconds >= 0 && seconds <= 86_400) return seconds;
  throw new AppError("invalid_config", `${name} is "${text}", expected seconds from 0 to 86400`);
}

function parseLogLevel(text: string | undefined): LogLevel {
  const level = logLevels.find((name) => name === (text ?? "info"));
  if (level !== undefined) return level;
  throw new AppError("invalid_config", `TELEPRESENCE_LOG_LEVEL is "${text}", expected one of ${logLevels.join(", ")}`);
}

/** Names that describe this container, not the application's. */
const ownNames = new Set(["HOME", "PATH", "HOSTNAME"]);

/** The application's environment, which the installer repeats in ours under a prefix; what `environment` prints. */
export function applicationEnvironment(env: NodeJS.ProcessEnv = process.env): Readonly<Record<string, string>> {
  const application: Record<string, string> = {};
  for (const [name, value] of Object.entries(env)) {
    if (!name.startsWith(appEnvironmentPrefix) || value === undefined) continue;
    const original = name.slice(appEnvironmentPrefix.length);
    if (original === "" || ownNames.has(original) || original === agentConfigVariable) continue;
    // A reference that nobody answers stays as a text, with our prefix in it.
    application[original] = value.replaceAll(`$(${appEnvironmentPrefix}`, "$(");
  }
  return application;
}
