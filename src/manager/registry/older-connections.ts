// What an intercept's agents say of connections that are older than it, put together.
import type { OlderConnectionsOfPort } from "#wire/agent-api.ts";
import type { InterceptInfo } from "#wire/manager-api.ts";

/**
 * Undefined while no agent has told. A caller of several pods counts once as far as its address was named; the first
 * reason stands for all.
 */
export function sumOlder(told: readonly OlderConnectionsOfPort[]): InterceptInfo["olderConnections"] {
  if (told.length === 0) return undefined;
  const named = new Set(told.flatMap(({ addresses }) => addresses));
  const sum = (of: (port: OlderConnectionsOfPort) => number): number => told.reduce((total, one) => total + of(one), 0);
  const reason = told.find((port) => port.reason !== undefined)?.reason;
  return {
    connections: sum(({ connections }) => connections),
    callers: named.size + sum(({ callers, addresses }) => Math.max(0, callers - addresses.length)),
    ...(reason === undefined ? {} : { reason }),
  };
}
