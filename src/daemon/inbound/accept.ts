// A caller in the cluster reached an intercepted port: the manager relays its stream here, and the connection goes on
// to the process on the laptop. Refused by the process means refused to the agent, which passes to the application.
// @from manager/inbound/relay.ts
// @to daemon/inbound/dial-process.ts
import type { Logger } from "#base/log.ts";
import type { Route } from "#daemon/inspector/exchange.ts";
import type { Recorder } from "#daemon/inspector/recorder.ts";
import type { IncomingStream } from "#tunnel/tunnel.ts";
import type { InterceptPort } from "#wire/manager-api.ts";
import { formatEndpoint } from "#wire/open.ts";
import type { OpenRequest } from "#wire/open.ts";
import { dialProcess, relayDatagrams } from "./dial-process.ts";

export interface InboundOptions {
  /** The port of one's own intercept, or undefined when there is no such intercept any more. */
  readonly findPort: (interceptId: string, containerPort: number, protocol: "tcp" | "udp") => InterceptPort | undefined;
  /** Of the link, milliseconds. */
  readonly roundTripMs: () => number | undefined;
  /** Reads along while somebody looks. */
  readonly recorder: Pick<Recorder, "tap">;
  readonly log: Logger;
}

/** Answers one incoming stream; never throws. */
export function acceptInbound(incoming: IncomingStream, options: InboundOptions): void {
  const { request } = incoming;
  if (request.kind !== "inbound") {
    incoming.reject("unsupported", `a laptop takes no ${request.kind} streams`);
    return;
  }
  const port = options.findPort(request.interceptId, request.containerPort, request.protocol);
  if (port === undefined) {
    incoming.reject("not_found", `no intercept ${request.interceptId} on port ${request.containerPort}`);
    return;
  }
  const log = options.log.child({ interceptId: request.interceptId, source: request.source.address });
  if (request.protocol === "tcp")
    void dialProcess(incoming, port, log, (stream, socket) => {
      options.recorder.tap({ ...routeOf(request, port), roundTripMs: options.roundTripMs }, stream, socket);
    });
  else void relayDatagrams(incoming, port, log);
}

function routeOf(request: Extract<OpenRequest, { kind: "inbound" }>, port: InterceptPort): Route {
  return {
    intercept: request.interceptId.slice(request.interceptId.indexOf(":") + 1),
    containerPort: port.containerPort,
    podName: request.podName,
    caller: formatEndpoint(request.source),
    target: formatEndpoint({ address: port.targetHost, port: port.targetPort }),
  };
}
