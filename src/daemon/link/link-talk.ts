// What a session hears over its link, and the last thing it says.
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import type { Inspector } from "#daemon/inspector/inspector.ts";
import type { Intercepts } from "#daemon/intercepts/intercepts.ts";
import { acceptInbound } from "#daemon/inbound/accept.ts";
import type { ManagerConnection, ManagerLink } from "./manager-link.ts";

/** chosen: agents confirm within 2 s; a manager that does not answer must not hold up `quit`. */
const departMs = 4000;

/** What comes over a new link, from agents and from the manager. */
export function listenTo(
  { session, rpc }: ManagerConnection,
  { intercepts, inspector: { recorder }, log }: { intercepts: Intercepts; inspector: Inspector; log: Logger },
): void {
  const findPort: typeof intercepts.findPort = (id, port, protocol) => intercepts.findPort(id, port, protocol);
  session.onIncoming((incoming) => acceptInbound(incoming, { findPort, recorder, log }));
  rpc.onNotification("intercepts.changed", ({ intercepts: infos }) => intercepts.onChanged(infos));
  rpc.onNotification("intercept.ended", (ended) => intercepts.onEnded(ended));
  rpc.onNotification("agent.lost", ({ podUid }) => intercepts.reintroduce(podUid));
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
