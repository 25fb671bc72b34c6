// Where the inspector finds one's own intercepts, and where a repeated request goes.
import type { Duplex } from "node:stream";
import { AppError } from "#base/error.ts";
import { dial } from "#tunnel/dial.ts";
import type { InspectedIntercept } from "#wire/inspector-api.ts";
import type { InterceptInfo } from "#wire/manager-api.ts";
import type { InspectorSources } from "./inspector.ts";
import type { Route } from "./exchange.ts";

interface PodAccess {
  openPodPort(namespace: string, podName: string, port: number, signal: AbortSignal): Promise<Duplex>;
}

export function inspectedPlaces(
  access: PodAccess,
  current: () => { readonly infos: readonly InterceptInfo[]; readonly connected: boolean },
): Pick<InspectorSources, "dial" | "intercepts"> {
  return {
    intercepts: () => {
      const { infos, connected } = current();
      return { intercepts: infos.map(inspected), connected };
    },
    dial: (route, to, signal) => {
      const info = current().infos.find(({ spec }) => spec.name === route.intercept);
      if (info === undefined) {
        throw new AppError(
          "intercept_not_found",
          `the intercept ${route.intercept} is over, so nothing can be sent for it`,
        );
      }
      // A port-forward comes from the pod's own loopback, where no redirect and no taken-over port name is in the way.
      if (to === "pod")
        return access.openPodPort(info.spec.workload.namespace, route.podName, route.containerPort, signal);
      return dialProcess(info, route, signal);
    },
  };
}

async function dialProcess({ spec }: InterceptInfo, route: Route, signal: AbortSignal): Promise<Duplex> {
  const port = spec.ports.find(({ containerPort }) => containerPort === route.containerPort);
  if (port === undefined) throw new AppError("not_found", `${spec.name} has no port ${route.containerPort} any more`);
  const { targetHost: host, targetPort } = port;
  try {
    return await dial({ address: host, port: targetPort }, signal);
  } catch (cause) {
    const hint = "start the process that the intercept sends its requests to";
    throw new AppError("refused", `nothing takes connections at ${host}:${targetPort}`, { cause, hint });
  }
}

function inspected({ spec, state, message }: InterceptInfo): InspectedIntercept {
  const { kind, name, namespace } = spec.workload;
  return {
    name: spec.name,
    workload: `${kind}/${name}`,
    namespace,
    state,
    ports: spec.ports.map((port) => `${port.targetHost}:${port.targetPort} ← ${port.containerPort}/${port.protocol}`),
    ...(message === "" ? {} : { message }),
    ...(spec.filter === undefined ? {} : { filter: spec.filter }),
  };
}
