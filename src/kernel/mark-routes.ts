// Delivers marked packets in this network namespace, whatever their destination. Unlike a table of nft this outlives a
// process that is killed; nothing sets the mark then, so nothing takes the route, and the next opening finds it.
// Needs NET_ADMIN.
import { isAppError } from "#base/error.ts";
import { encodeLocalRoute, encodeMarkRule } from "./mark-route-messages.ts";
import type { MarkRoute, RouteChange } from "./mark-route-messages.ts";
import { NetlinkSocket } from "./netlink-socket.ts";

const netlinkRoute = 0;

/** In force until disposed. What is there already stays, and is taken over. */
export function openMarkRoutes(routes: readonly MarkRoute[]): Disposable {
  const close = (): void => {
    for (const route of routes) change("delete", route);
  };
  try {
    for (const route of routes) change("add", route);
  } catch (error) {
    close();
    throw error;
  }
  return { [Symbol.dispose]: close };
}

/** A socket for each change: they are rare and would hold one open for a pod's whole life. */
function change(what: RouteChange, route: MarkRoute): void {
  using socket = new NetlinkSocket(netlinkRoute, "unsupported");
  // The route first and last: a rule without it would send marked packets on to the next rule.
  const steps = [encodeLocalRoute, encodeMarkRule];
  if (what === "delete") steps.reverse();
  for (const encode of steps) {
    const sequence = socket.nextSequence();
    try {
      const text = `${what === "add" ? "adding" : "removing"} the route for marked packets`;
      socket.exchange(encode(sequence, what, route), new Set([sequence]), text);
    } catch (error) {
      if (!isSettled(what, error)) throw error;
    }
  }
}

function isSettled(what: RouteChange, error: unknown): boolean {
  const errno = isAppError(error) ? error.fields["errno"] : undefined;
  return what === "add" ? errno === "EEXIST" : errno === "ESRCH" || errno === "ENOENT" || errno === "EAFNOSUPPORT";
}
