// What is said of replacements only.
import type { ListedWorkload } from "#wire/control-api.ts";
import type { InterceptInfo } from "#wire/manager-api.ts";

export const isReplacement = ({ spec }: Pick<InterceptInfo, "spec">): boolean => spec.kind === "replace";

/** A replacement that nobody serves any more is seen in the cluster only. */
export function describeReplaced({ replaced, intercepts }: ListedWorkload): string | undefined {
  if (replaced === undefined) return undefined;
  const what = `container ${replaced.container} is replaced by ${replaced.by}`;
  return intercepts.some(isReplacement) ? what : `${what}, whose process is gone`;
}
