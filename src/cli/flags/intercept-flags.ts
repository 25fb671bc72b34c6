// The flags of `intercept` that are checked before anything is started, and those of other versions that cannot be
// honoured: said clearly, never ignored in silence.
import { AppError } from "#base/error.ts";
import type { FilterFlags } from "#filter/flags.ts";
import { choosesRequests } from "./intercept-filter.ts";
import { refusePreview } from "#cli/cloud/preview-choice.ts";
import { readAddedHeaders, readIngressFlags, type PreviewFlags } from "#cli/cloud/preview-flags.ts";
import { checkBelongingsFlags, type BelongingsFlags } from "#cli/pod-belongings.ts";
import { readTargetName, type TargetName } from "./target-name.ts";
import { agentModes, type AgentMode } from "#wire/connect-choices.ts";
import { parseCertificateChoice, type InterceptTls } from "#wire/intercept-tls.ts";
import {
  existingModes,
  probeModes,
  refusedModes,
  type ExistingMode,
  type InterceptKind,
  type ProbeMode,
  type RefusedMode,
  type WorkloadKind,
} from "#wire/manager-api.ts";

export interface InterceptFlags extends FilterFlags, BelongingsFlags, PreviewFlags {
  /** Which command it is: an intercept when left out. */
  readonly attachment?: InterceptKind;
  readonly port?: readonly string[];
  readonly service?: string;
  readonly workload?: string;
  /** Of the workload, where it was said: `deploy/hello`. */
  readonly kind?: WorkloadKind;
  readonly deployment?: string;
  readonly address?: string;
  readonly agent?: string;
  readonly existing?: string;
  readonly onRefused?: string;
  readonly probes?: string;
  readonly mechanism?: string;
  readonly httpMatch?: readonly string[];
  readonly allowOverlap?: boolean;
  readonly tlsCert?: string;
  readonly plaintext?: boolean;
  readonly httpPlaintext?: boolean;
  readonly previewUrl?: boolean;
  /** Team mates may see its requests, by a cloud server. */
  readonly inspect?: boolean;
  readonly localOnly?: boolean;
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
  readTls(flags);
  checkMechanism(flags);
  refusePreview(flags);
  readIngressFlags(flags);
  readAddedHeaders(flags);
  const warnings = checkBelongingsFlags(flags, flags.port);
  return [...warnings, ...warnOfProbes(readProbes(flags.probes))];
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

/** Who answers the kubelet's probes: the application unless it is said otherwise. */
export function readProbes(flag: string | undefined): ProbeMode | undefined {
  const mode = probeModes.find((name) => name === flag);
  if (flag === undefined || mode !== undefined) return mode;
  throw new AppError("usage", `--probes is "${flag}", expected one of ${probeModes.join(", ")}`);
}

/** How connections that speak TLS are read; without a filter they are not. */
export function readTls(flags: InterceptFlags): InterceptTls | undefined {
  const { tlsCert } = flags;
  const plaintext = flags.plaintext === true || flags.httpPlaintext === true;
  const certificate = tlsCert === undefined ? undefined : parseCertificateChoice(tlsCert);
  if (tlsCert !== undefined && certificate === undefined) {
    throw new AppError("usage", `--tls-cert is "${tlsCert}", expected VOLUME[:CERTIFICATE,KEY], for example web-tls`);
  }
  if (tlsCert === undefined && !plaintext) return undefined;
  if (!choosesRequests(flags) && flags.attachment !== "wiretap") {
    const flag = tlsCert === undefined ? "--plaintext" : "--tls-cert";
    throw new AppError("usage", `${flag} goes with a filter: without one, connections reach the laptop as they are`);
  }
  return { ...(certificate === undefined ? {} : { certificate }), ...(plaintext ? { plaintext } : {}) };
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

/** `deploy/hello` and `svc/hello` say what `--workload` and `--service` say; `--workload` takes a kind as well. */
export function applyTarget({ name, as, kind }: TargetName, given: InterceptFlags): InterceptFlags {
  const flags = readWorkloadFlag(given);
  if (as === undefined) return flags;
  const named = as === "service" ? flags.service : (flags.workload ?? flags.deployment);
  const sameKind = kind === undefined || flags.kind === undefined || kind === flags.kind;
  if ((named === undefined || named === name) && sameKind) {
    return { ...flags, [as]: name, ...(kind === undefined ? {} : { kind }) };
  }
  throw new AppError("usage", `${as} ${name} and --${as} ${named} exclude each other`);
}

function readWorkloadFlag(flags: InterceptFlags): InterceptFlags {
  const { name, as, kind } = readTargetName(flags.workload ?? "");
  if (as === "service") throw new AppError("usage", `--workload is "${flags.workload}", expected a workload`);
  return kind === undefined ? flags : { ...flags, workload: name, kind };
}

function checkMechanism(flags: InterceptFlags): void {
  const { mechanism } = flags;
  if (mechanism !== undefined && mechanism !== "tcp" && mechanism !== "http") {
    throw new AppError("usage", `--mechanism is "${mechanism}", expected tcp, or http with a filter`);
  }
  if (mechanism === "http" && !choosesRequests(flags)) {
    throw new AppError("usage", '--mechanism is "http" without a filter, expected one', {
      hint: "give --http-header auto, say, or leave --mechanism out",
    });
  }
}

function warnOfProbes(probes: ProbeMode | undefined): readonly string[] {
  if (probes !== "laptop") return [];
  return [
    "the local process answers the kubelet's probes: while it hangs, at a breakpoint say, the pods become unready and are restarted",
  ];
}
