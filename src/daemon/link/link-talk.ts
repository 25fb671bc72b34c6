// What a session hears over its link, and the last thing it says.
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import type { CloudSide } from "#daemon/previews/cloud-side.ts";
import { dialNearCloud } from "#daemon/previews/near-cloud.ts";
import type { IncomingStream } from "#tunnel/tunnel.ts";
import type { Inspector } from "#daemon/inspector/inspector.ts";
import type { Intercepts } from "#daemon/intercepts/intercepts.ts";
import { acceptInbound } from "#daemon/inbound/accept.ts";
import type { ManagerConnection, ManagerLink } from "./manager-link.ts";

/** chosen: agents confirm within 2 s; a manager that does not answer must not hold up `quit`. */
const departMs = 4000;

interface Listeners {
  readonly intercepts: Intercepts;
  readonly inspector: Inspector;
  readonly cloud: CloudSide;
  readonly log: Logger;
}

/** What comes over a new link, from agents and from the manager. */
export function listenTo({ session, rpc }: ManagerConnection, { intercepts, inspector, cloud, log }: Listeners): void {
  const { recorder } = inspector;
  const findPort: typeof intercepts.findPort = (id, port, protocol) => intercepts.findPort(id, port, protocol);
  session.onIncoming((incoming) => {
    const { request } = incoming;
    if (request.kind === "cloud") void dialNearCloud(incoming, request.url, cloud.membership.joinedUrl);
    else if (request.kind === "inspect") share(incoming, nameOf(request.interceptId), { intercepts, inspector });
    else acceptInbound(incoming, { findPort, roundTripMs: () => session.roundTripMs, recorder, log });
  });
  rpc.onNotification("intercepts.changed", ({ intercepts: infos }) => intercepts.onChanged(infos));
  rpc.onNotification("intercept.ended", (ended) => intercepts.onEnded(ended));
  rpc.onNotification("cloud.changed", (news) => cloud.membership.onChanged(news));
  rpc.onNotification("agent.lost", ({ podUid }) => intercepts.reintroduce(podUid));
}

const nameOf = (interceptId: string): string => interceptId.slice(interceptId.indexOf(":") + 1);

/** A team mate looks, through a cloud server. */
function share(
  incoming: IncomingStream,
  name: string,
  { intercepts, inspector }: Pick<Listeners, "intercepts" | "inspector">,
): void {
  if (!intercepts.shared.has(name)) incoming.reject("denied", `the requests of ${name} are not shared`);
  else if (!inspector.share(() => incoming.accept(), name)) incoming.reject("busy", "too many look at the requests");
}

/** Tells the manager that the session and its intercepts are over, so that agents drain at once. */
export async function depart(link: ManagerLink, clock: Clock, log: Logger): Promise<void> {
  const current = link.current;
  if (current === undefined) return;
  try {
    using limit = deadline(clock, departMs, "departing");
    await current.rpc.call("depart", {}, limit.signal);
  } catch (error) {
    log.warn("the manager did not confirm the departure", { error: String(error) });
  }
}
