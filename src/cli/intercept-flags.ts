// The flags of `intercept` that are checked before anything is started, and those of other versions that cannot be
// honoured: said clearly, never ignored in silence.
import { AppError } from "#base/error.ts";
import type { FilterFlags } from "#filter/flags.ts";
import { choosesRequests } from "./intercept-filter.ts";
import type { TargetName } from "./target-name.ts";
import { agentModes, type AgentMode } from "#wire/control-api.ts";
import { existingModes, refusedModes, type ExistingMode, type RefusedMode } from "#wire/manager-api.ts";

export interface InterceptFlags extends FilterFlags {
  readonly port?: readonly string[];
  readonly service?: string;
  readonly workload?: string;
  readonly deployment?: string;
  readonly container?: string;
  readonly address?: string;
  readonly agent?: string;
  readonly existing?: string;
  readonly onRefused?: string;
  readonly envFile?: string;
  readonly envJson?: string;
  readonly detailedOutput?: boolean;
  readonly mount?: string;
  readonly mechanism?: string;
  readonly httpMatch?: readonly string[];
  readonly allowOverlap?: boolean;
  readonly previewUrl?: boolean;
}

/** Warnings; throws what cannot be done. */
export function checkInterceptFlags(flags: InterceptFlags): readonly string[] {
  for (const port of flags.port ?? []) checkPort(port);
  if (flags.workload !== undefined && flags.deployment !== undefined && flags.workload !== flags.deployment) {
    throw new AppError("usage", `--workload ${flags.workload} and --deployment ${flags.deployment} exclude each other`);
  }
  checkAddress(flags.address);
  readAgentMode(flags.agent, undefined);
  readExisting(flags.existing);
  readOnRefused(flags.onRefused);
  refuseAbsent(flags);
  return [...checkMount(flags.mount), ...warnOfGrpc(flags)];
}

/** A host name or an address, by its letters; whether somebody listens there is seen when a caller comes. */
function checkAddress(address: string | undefined): void {
  if (address === undefined || /^[\w.:%-]+$/.test(address)) return;
  throw new AppError("usage", `--address is "${address}", expected a host name or an IP address without a port`);
}

/** How an agent comes to the pods: the flag, else the configuration's key, else whatever does without a restart. */
export function readAgentMode(flag: string | undefined, configured: AgentMode | undefined): AgentMode {
  if (flag === undefined) return configured ?? "auto";
  const mode = agentModes.find((name) => name === flag);
  if (mode !== undefined) return mode;
  throw new AppError("usage", `--agent is "${flag}", expected one of ${agentModes.join(", ")}`);
}

/** What becomes of connections that are older than the intercept: they stay unless it is said otherwise. */
export function readExisting(flag: string | undefined): ExistingMode | undefined {
  const mode = existingModes.find((name) => name === flag);
  if (flag === undefined || mode !== undefined) return mode;
  throw new AppError("usage", `--existing is "${flag}", expected one of ${existingModes.join(", ")}`);
}

/** Who answers when the laptop's process does not take a connection: the application unless it is said otherwise. */
export function readOnRefused(flag: string | undefined): RefusedMode | undefined {
  const mode = refusedModes.find((name) => name === flag);
  if (flag === undefined || mode !== undefined) return mode;
  throw new AppError("usage", `--on-refused is "${flag}", expected one of ${refusedModes.join(", ")}`);
}

/** `local[:service port]`; what the second part means is known in the cluster. */
function checkPort(text: string): void {
  const [local = "", remote, ...rest] = text.split(":");
  const number = Number(local);
  if (!/^\d+$/.test(local) || number < 1 || number > 65_535) {
    throw new AppError("usage", `--port is "${text}", expected LOCAL[:SERVICE_PORT] with LOCAL from 1 to 65535`);
  }
  if (remote === "" || rest.length > 0) {
    throw new AppError("usage", `--port is "${text}", expected LOCAL[:SERVICE_PORT], for example 8080:http`);
  }
}

/** `deploy/hello` and `svc/hello` say what `--workload` and `--service` say. */
export function applyTarget({ name, as }: TargetName, flags: InterceptFlags): InterceptFlags {
  if (as === undefined) return flags;
  const given = as === "service" ? flags.service : (flags.workload ?? flags.deployment);
  if (given === undefined || given === name) return { ...flags, [as]: name };
  throw new AppError("usage", `${as} ${name} and --${as} ${given} exclude each other`);
}

function refuseAbsent(flags: InterceptFlags): void {
  const { mechanism } = flags;
  if (mechanism !== undefined && mechanism !== "tcp" && mechanism !== "http") {
    throw new AppError("usage", `--mechanism is "${mechanism}", expected tcp, or http with a filter`);
  }
  if (mechanism === "http" && !choosesRequests(flags)) {
    throw new AppError("usage", '--mechanism is "http" without a filter, expected one', {
      hint: "give --http-header auto, say, or leave --mechanism out",
    });
  }
  if (flags.previewUrl === true) throw unsupported("--preview-url", "leave it out");
}

/** Its protocol is HTTP/2, which is passed as a whole: better said than waited for. */
function warnOfGrpc({ grpcMethod }: InterceptFlags): readonly string[] {
  if (grpcMethod === undefined) return [];
  return ["HTTP/2 connections go to the application in this version: --grpc-method sees gRPC over HTTP/1.1 only"];
}

function unsupported(subject: string, hint: string): AppError {
  return new AppError("unsupported", `${subject} is not available in this version`, { hint });
}

/** Volumes are mounted when nothing is said, once they are; asked for, their absence is told. */
function checkMount(mount: string | undefined): readonly string[] {
  if (mount === undefined || ["false", "0", "f"].includes(mount.toLowerCase())) return [];
  return [`--mount=${mount} has no effect: volumes are not mounted in this version`];
}
