// Ports of a pod on this laptop (`--to-pod`).
import { formatPodPort, type PodPort } from "#wire/pod-port.ts";
import type { KeyValue } from "./key-values.ts";

/** Nothing without any. */
export function podPortPairs(ports: readonly PodPort[] | undefined): readonly KeyValue[] {
  if (ports === undefined) return [];
  const below = ports.map(({ port, protocol }) => `127.0.0.1:${port} -> ${port} ${protocol.toUpperCase()}`);
  return [{ key: "Port forwards", value: "to the pod", below }];
}

/** For a line that says more. */
export function describePodPorts(ports: readonly PodPort[] | undefined): string {
  return ports === undefined
    ? ""
    : `, to the pod ${ports.map((port) => `127.0.0.1:${formatPodPort(port)}`).join(", ")}`;
}

export const podPortsToJson = (ports: readonly PodPort[] | undefined): readonly string[] | undefined =>
  ports?.map(formatPodPort);
