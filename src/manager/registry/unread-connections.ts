// What an intercept's agents say of connections that its filter could not see into, put together.
import type { InterceptInfo } from "#wire/manager-api.ts";
import type { AgentRecord } from "./agents.ts";
import type { InterceptRecord } from "./intercepts.ts";

/**
 * Undefined while there are none, and without a filter, which leaves nothing unread but a wiretap's TLS. The first reason
 * stands for all.
 */
export function sumUnread(
  { filter, spec }: InterceptRecord,
  serving: readonly AgentRecord[],
): InterceptInfo["unreadConnections"] {
  if (filter === undefined && spec.kind !== "wiretap") return undefined;
  const told = serving.flatMap((agent) => spec.ports.flatMap((port) => agent.unreadOf(port) ?? []));
  const tls = told.reduce((sum, port) => sum + port.tls, 0);
  const other = filter === undefined ? 0 : told.reduce((sum, port) => sum + port.other, 0);
  const reason = told.find((port) => port.reason !== undefined)?.reason;
  return tls + other === 0 ? undefined : { tls, other, ...(reason === undefined ? {} : { reason }) };
}
