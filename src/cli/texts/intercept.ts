// One intercept for people: the block below `Using Deployment hello` and below a workload in `list`.
import type { InterceptInfo } from "#wire/manager-api.ts";
import { describeByPass } from "./caller-path.ts";
import { filterPairs } from "./filter.ts";
import type { KeyValue } from "./key-values.ts";
import { formatKeyValues } from "./key-values.ts";
import { countOlder } from "./older-connections.ts";
import { podPortPairs } from "./pod-ports.ts";
import { previewPairs } from "./preview.ts";
import { isReplacement } from "./replacement.ts";
import { describeUnread } from "./unread-connections.ts";
import { copyPairs, isWiretap } from "./wiretap.ts";

const blockIndent = 3;
/** chosen: pods named on the line; the rest are counted. */
const maxPodsShown = 3;

/** What only `--debug` and foreign intercepts show. */
export interface InterceptDetail {
  readonly debug: boolean;
  /** Somebody else's: name the person. */
  readonly foreign: boolean;
}

export function formatIntercept(info: InterceptInfo, detail: InterceptDetail): readonly string[] {
  const { spec } = info;
  const pairs: KeyValue[] = [
    { key: nameKey(info), value: spec.name },
    { key: "State", value: formatState(info) },
    { key: "Workload kind", value: spec.workload.kind },
  ];
  if (isReplacement(info)) pairs.push({ key: "Container name", value: spec.containerName });
  if (detail.foreign) pairs.push({ key: "Client", value: info.client });
  if (detail.debug) pairs.push(...debugPairs(info));
  pairs.push(...portPairs(info), ...filterPairs(info));
  pairs.push(...previewPairs(info));
  if (info.mountPoint !== undefined) pairs.push({ key: "Volume Mount Point", value: info.mountPoint });
  pairs.push(...podPortPairs(info.toPod), ...agentPairs(info));
  if (info.state !== "error" && info.message !== "") pairs.push({ key: "Message", value: info.message });
  const older = countOlder(info);
  const missed = isWiretap(info) ? "Not copied" : "Not intercepted";
  if (older !== undefined) pairs.push({ key: missed, value: `${older}, opened before` });
  pairs.push(...describeUnread(info).map((value) => ({ key: "Not filtered", value })));
  const byPass = describeByPass(info);
  if (byPass !== undefined) pairs.push({ key: "By-passed", value: byPass });
  pairs.push(...callerPairs(info, detail));
  pairs.push(...copyPairs(info));
  if (info.refusedByLaptop > 0) {
    const value = `${info.refusedByLaptop} ${whither(info)} because nothing accepted them on the laptop`;
    pairs.push({ key: isWiretap(info) ? "Copies refused" : "Connections refused", value });
  }
  return formatKeyValues(pairs, blockIndent);
}

function nameKey(info: InterceptInfo): string {
  if (isReplacement(info)) return "Replacement name";
  return isWiretap(info) ? "Wiretap name" : "Intercept name";
}

function agentPairs({ agent, replacedPods }: InterceptInfo): readonly KeyValue[] {
  const key = "Agent";
  if (agent === "ephemeral") return [{ key, value: "ephemeral container, no pod was restarted" }];
  if (replacedPods === undefined) return [];
  const pods = replacedPods === 1 ? "one pod was" : `${replacedPods} pods were`;
  return [{ key, value: `added to the pods by a rollout, ${pods} replaced` }];
}

function whither(info: InterceptInfo): string {
  if (isWiretap(info)) return "not made";
  return info.spec.onRefused === "fail" ? "failed" : "went to the application";
}

/** For a line that says more. */
export function formatRefused(info: InterceptInfo): string {
  const count = info.refusedByLaptop;
  if (!isWiretap(info)) return `${count} refused here ${whither(info)}`;
  return `${count === 1 ? "1 copy" : `${count} copies`} refused here`;
}

function callerPairs({ callerAddress }: InterceptInfo, { debug }: InterceptDetail): readonly KeyValue[] {
  const key = "Caller address";
  if (callerAddress?.kept === false) {
    return [{ key, value: `the pod's own while passed through (${callerAddress.reason})` }];
  }
  return debug && callerAddress !== undefined ? [{ key, value: "kept" }] : [];
}

export function formatState(info: InterceptInfo): string {
  return info.state === "error" ? `error: ${info.message}` : info.state.toUpperCase();
}

/** Ports that go to the same host share a line of addresses; there is one such line as a rule. */
function portPairs(info: InterceptInfo): readonly KeyValue[] {
  const hosts = [...new Set(info.spec.ports.map((port) => port.targetHost))];
  return hosts.map((host) => ({
    key: isWiretap(info) ? "Copying" : "Intercepting",
    value: `${formatPods(info)} -> ${host}`,
    below: info.spec.ports
      .filter((port) => port.targetHost === host)
      .map((port) => `${port.containerPort} -> ${port.targetPort} ${port.protocol.toUpperCase()}`),
  }));
}

function formatPods(info: InterceptInfo): string {
  const shown = info.pods.slice(0, maxPodsShown).map((pod) => pod.ip);
  const more = info.pods.length - shown.length;
  if (shown.length === 0) return "no pod";
  return more > 0 ? `${shown.join(", ")} and ${more} more` : shown.join(", ");
}

function debugPairs(info: InterceptInfo): readonly KeyValue[] {
  return [
    { key: "ID", value: info.id },
    { key: "Session", value: info.sessionId },
    { key: "Mechanism", value: info.spec.filter === undefined ? "tcp" : "http" },
    { key: "Container", value: info.spec.containerName },
    { key: "Pods", value: info.pods.map((pod) => pod.name).join(", ") },
  ];
}
