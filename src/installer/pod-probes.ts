// Pure: the kubelet's probes that a pod declares, as its agent knows them: by the port that they ask, and what they say
// about the protocol that is spoken there. Those that run a program in the container are nobody's but its own.
import type { Container, PodSpec, Probe } from "#kube/objects.ts";
import type { PodProbe } from "#wire/agent-api.ts";

export function findProbes(pod: PodSpec): readonly PodProbe[] {
  const sidecars = (pod.initContainers ?? []).filter(({ restartPolicy }) => restartPolicy === "Always");
  const all = [...pod.containers, ...sidecars].flatMap((container) =>
    [container.startupProbe, container.livenessProbe, container.readinessProbe].flatMap((probe) =>
      probe === undefined ? [] : toPodProbe(probe, container),
    ),
  );
  return [...new Map(all.map((probe) => [JSON.stringify(probe), probe])).values()];
}

/** None for one that asks another host. */
function toPodProbe({ httpGet, tcpSocket, grpc }: Probe, container: Container): readonly PodProbe[] {
  const asked = httpGet ?? tcpSocket ?? grpc;
  const containerPort = asked === undefined ? undefined : numberOf(asked.port, container);
  if (containerPort === undefined || (httpGet ?? tcpSocket)?.host) return [];
  if (httpGet === undefined) return [{ containerPort, by: grpc === undefined ? "tcp" : "grpc" }];
  return [{ containerPort, by: httpGet.scheme === "HTTPS" ? "https" : "http", path: httpGet.path ?? "/" }];
}

function numberOf(port: number | string, { ports = [] }: Container): number | undefined {
  return typeof port === "number" ? port : ports.find(({ name }) => name === port)?.containerPort;
}
