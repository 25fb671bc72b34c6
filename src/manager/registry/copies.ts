// What the agents of a wiretap have counted, in all.
import type { InterceptInfo } from "#wire/manager-api.ts";

type Copies = NonNullable<InterceptInfo["copies"]>;

export function addCopies(before: Copies | undefined, counts: Copies): Copies {
  const { copied = 0, cut = 0, reason } = before ?? {};
  const why = counts.reason ?? reason;
  return {
    copied: Math.min(copied + counts.copied, Number.MAX_SAFE_INTEGER),
    cut: Math.min(cut + counts.cut, Number.MAX_SAFE_INTEGER),
    ...(why === undefined ? {} : { reason: why }),
  };
}
