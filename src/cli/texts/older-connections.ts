// What people read about connections older than an intercept: they still go to the pod.
import type { InterceptInfo } from "#wire/manager-api.ts";

const counted = (count: number, word: string): string => `${count} ${word}${count === 1 ? "" : "s"}`;

/** `7 older connections from 2 callers`; undefined when there are none, or nobody has counted. */
export function countOlder({ olderConnections }: InterceptInfo): string | undefined {
  if (olderConnections === undefined || olderConnections.connections === 0) return undefined;
  const { connections, callers } = olderConnections;
  return `${counted(connections, "older connection")} from ${counted(callers, "caller")}`;
}

/** What the person who attaches should know; none when every connection comes to the laptop. */
export function olderWarnings(info: InterceptInfo): readonly string[] {
  const count = countOlder(info);
  const reason = info.olderConnections?.reason;
  if (count === undefined) return reason === undefined ? [] : [`older connections may still go to the pod: ${reason}`];
  const verb = info.olderConnections?.connections === 1 ? "goes" : "go";
  const fact = `${count} still ${verb} to the pod`;
  if (reason !== undefined) return [`${fact}: ${reason}`];
  if (info.spec.existing === "drain") return [`${fact}; each is closed when it is idle, see \`telepresence status\``];
  return [`${fact}; \`--existing drain\` closes them when idle`];
}
