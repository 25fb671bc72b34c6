// Which requests an intercept takes, for people. Filters come from other people's laptops as well: nothing in them may
// move the cursor or turn the direction of writing.
import type { InterceptInfo } from "#wire/manager-api.ts";
import type { KeyValue } from "./key-values.ts";

type Overlap = NonNullable<InterceptInfo["overlaps"]>[number];

export function filterPairs({ spec, overlaps = [] }: InterceptInfo): readonly KeyValue[] {
  const key = spec.kind === "wiretap" ? "Copying" : "Intercepting";
  const pairs: KeyValue[] = [];
  if (spec.filter !== undefined) {
    const below = spec.filter.split("\n").map((line) => printable(line));
    pairs.push({ key, value: "HTTP requests that match", below });
    const id = personalId(spec.filter);
    if (id !== undefined) pairs.push({ key: "Header to send", value: `x-telepresence-intercept-id: ${printable(id)}` });
  }
  for (const other of overlaps) {
    pairs.push({
      key: "Shared with",
      value: `${formatOther(other)}, asked ${other.first ? "before" : "after"} this one`,
    });
  }
  return pairs;
}

/** In one line; nothing for one that takes everything. */
export function formatFilter(filter: string | undefined): string {
  return filter === undefined ? "" : `HTTP requests that match ${printable(filter)}`;
}

/** After `--allow-overlap`. */
export function overlapWarnings({ overlaps = [] }: InterceptInfo): readonly string[] {
  return overlaps.map((other) => {
    const since = new Date(other.createdAtMs).toISOString();
    const turn = other.first ? "which is asked first" : "which is asked after this one";
    return `the same requests may be taken by ${formatOther(other)} since ${since}, ${turn}`;
  });
}

function formatOther({ client, name, filter }: Overlap): string {
  const which = filter === undefined ? "every request" : formatFilter(filter);
  return `${printable(client)} (intercept ${printable(name)}: ${which})`;
}

/** Of a personal intercept: the value that `--http-header auto` stands for. */
function personalId(filter: string): string | undefined {
  return /request\.headers\["x-telepresence-intercept-id"\] == "((?:[^"\\]|\\.)+)" \|\| request\.baggage\[/.exec(
    filter,
  )?.[1];
}

export function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, " ");
}
