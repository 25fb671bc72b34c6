// The Service by which laptops come straight to the manager's direct port: made on an administrator's word, found by
// every laptop that may read it, removed with the manager. Of no use to anybody who has no session of a port-forward.
import { AppError } from "#base/error.ts";
import type { Kube } from "#kube/client.ts";
import { services, type Service } from "#kube/objects.ts";
import { orUndefined } from "#kube/refusals.ts";
import { isMissingPermission } from "#kube/status.ts";
import { managerDirectPort } from "#wire/manager-api.ts";
import { isOurs, managerSelector } from "./marks.ts";

const serviceName = "traffic-manager-direct";
/** Where something of the administrator's own leads to it: `host:port`. */
const placeAnnotation = "telepresence.io/direct";

export interface DirectPlaces {
  readonly places: readonly { readonly host: string; readonly port: number }[];
  /** Open on every node. */
  readonly nodePort: number | undefined;
}

/** `nodeport`, `loadbalancer`, or `HOST:PORT` of what passes TLS on to the Service as it comes. */
export async function ensureDirectService(
  kube: Kube,
  namespace: string,
  wish: string,
  signal: AbortSignal,
): Promise<void> {
  const service = buildService(namespace, wish);
  const ref = { namespace, name: serviceName };
  const found = await kube.find(services, ref, signal);
  if (found === undefined) {
    await kube.create(services, service, signal);
    return;
  }
  if (!isOurs(found.metadata)) {
    throw new AppError("conflict", `service ${serviceName} in namespace ${namespace} is not ours`, {
      hint: "remove it, or use another namespace for the traffic-manager (--manager-namespace)",
    });
  }
  const { annotations } = service.metadata;
  const isSame =
    found.spec.type === service.spec.type &&
    found.metadata.annotations?.[placeAnnotation] === annotations?.[placeAnnotation];
  if (isSame) return;
  const patch = {
    metadata: { annotations: { [placeAnnotation]: annotations?.[placeAnnotation] ?? null } },
    spec: { type: service.spec.type },
  };
  await kube.patch(services, ref, patch, signal);
}

function buildService(namespace: string, wish: string): Service {
  const type = { nodeport: "NodePort", loadbalancer: "LoadBalancer" }[wish];
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: {
      name: serviceName,
      namespace,
      labels: { ...managerSelector },
      ...(type === undefined ? { annotations: { [placeAnnotation]: wish } } : {}),
    },
    spec: {
      type: type ?? "ClusterIP",
      selector: { ...managerSelector },
      ports: [{ name: "direct", port: managerDirectPort, targetPort: managerDirectPort, protocol: "TCP" }],
    },
  } as Service;
}

/** Undefined when there is none, or it may not be read. */
export async function findDirectService(
  kube: Kube,
  namespace: string,
  signal: AbortSignal,
): Promise<DirectPlaces | undefined> {
  const found = await orUndefined(kube.find(services, { namespace, name: serviceName }, signal));
  if (found === undefined || !isOurs(found.metadata)) return undefined;
  const [port] = found.spec.ports ?? [];
  const named = parsePlace(found.metadata.annotations?.[placeAnnotation]);
  const balanced = (found.status?.loadBalancer?.ingress ?? []).flatMap(({ ip, hostname }) => {
    const host = ip ?? hostname;
    return host === undefined || port === undefined ? [] : [{ host, port: port.port }];
  });
  return { places: [...(named === undefined ? [] : [named]), ...balanced], nodePort: port?.nodePort };
}

/** With the manager. */
export async function removeDirectService(kube: Kube, namespace: string, signal: AbortSignal): Promise<void> {
  try {
    const found = await kube.find(services, { namespace, name: serviceName }, signal);
    if (found === undefined || !isOurs(found.metadata)) return;
    await kube.delete(services, { namespace, name: serviceName, uid: found.metadata.uid }, signal);
  } catch (error) {
    if (!isMissingPermission(error)) throw error; // whoever may not did not make it
  }
}

function parsePlace(text: string | undefined): { readonly host: string; readonly port: number } | undefined {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text ?? "") ?? [];
  const host = bracketed ?? plain;
  return host === undefined ? undefined : { host, port: Number(port) };
}
