// `--to-pod PORT[/udp]`: which ports of the pod come to this laptop's 127.0.0.1.
import { AppError } from "#base/error.ts";
import { isAgentPort } from "#wire/agent-api.ts";
import type { PodPort } from "#wire/pod-port.ts";

/** `local`: ports of 127.0.0.1 that the local process is to listen on. */
export function readPodPorts(flags: readonly string[] | undefined, local: readonly string[] = []): PodPort[] {
  const taken = new Set(local.map((text) => Number.parseInt(text, 10)));
  const ports = (flags ?? []).map((text) => readPodPort(text, taken));
  const keys = ports.map(({ port, protocol }) => `${port}/${protocol}`);
  const twice = keys.find((key, index) => keys.indexOf(key) < index);
  if (twice === undefined) return ports;
  throw new AppError("usage", `--to-pod names ${twice} twice`, { hint: "give each port once" });
}

function readPodPort(text: string, taken: ReadonlySet<number>): PodPort {
  const [, digits = "", protocol = "tcp"] = /^(\d{1,5})(?:\/(tcp|udp))?$/i.exec(text) ?? [];
  const port = Number(digits);
  if (digits === "" || port < 1 || port > 65_535) {
    throw new AppError("usage", `--to-pod is "${text}", expected PORT or PORT/udp, for example 6379`);
  }
  if (isAgentPort(port)) {
    throw new AppError("usage", `--to-pod is "${text}", which is the traffic-agent's own port, expected another`);
  }
  if (taken.has(port)) {
    throw new AppError("usage", `--to-pod ${text} wants 127.0.0.1:${port}, where --port has the local process listen`, {
      hint: "let the local process listen on another port",
    });
  }
  return { port, protocol: protocol.toLowerCase() === "udp" ? "udp" : "tcp" };
}

/** What a port-forward cannot do, for those who would wait for it. */
export function podPortWarnings(ports: readonly PodPort[]): readonly string[] {
  const udp = ports.filter(({ protocol }) => protocol === "udp").map(({ port }) => port);
  if (udp.length === 0) return [];
  return [
    `UDP port ${udp.join(", ")} is reached at the pod's own address, through the traffic-manager: what listens on the pod's 127.0.0.1 alone does not get its datagrams`,
  ];
}
