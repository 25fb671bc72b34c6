// What people read about connections that an intercept's filter could not see into: they went by it.
import type { InterceptInfo } from "#wire/manager-api.ts";
import { printable } from "./filter.ts";

const counted = (count: number): string => `${count} connection${count === 1 ? "" : "s"}`;

/** A sentence for each kind; none where the filter saw everything. */
export function describeUnread({ spec, unreadConnections }: InterceptInfo): readonly string[] {
  if (unreadConnections === undefined) return [];
  const { tls, other, reason } = unreadConnections;
  const sentences: string[] = [];
  if (tls > 0) {
    const why = reason === undefined ? "" : `: ${printable(reason)}`;
    const what = spec.filter === undefined ? "could not be read" : "went by the filter";
    sentences.push(`${counted(tls)} spoke TLS and ${what}${why}`);
  }
  if (other > 0) sentences.push(`${counted(other)} spoke something other than HTTP and went by the filter`);
  return sentences;
}
