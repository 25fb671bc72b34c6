// What is said of wiretaps only: how many copies the laptop has got, and why some were cut short.
import type { InterceptInfo } from "#wire/manager-api.ts";
import { printable } from "./filter.ts";
import type { KeyValue } from "./key-values.ts";

export const isWiretap = ({ spec }: Pick<InterceptInfo, "spec">): boolean => spec.kind === "wiretap";

/** `12 copied, 3 cut short or left out (the laptop did not keep up)`. */
export function formatCopies({ copied, cut, reason }: NonNullable<InterceptInfo["copies"]>): string {
  if (cut === 0) return `${copied} copied`;
  return `${copied} copied, ${cut} cut short or left out${reason === undefined ? "" : ` (${printable(reason)})`}`;
}

export function copyPairs({ copies }: InterceptInfo): readonly KeyValue[] {
  return copies === undefined ? [] : [{ key: "Copies", value: formatCopies(copies) }];
}
