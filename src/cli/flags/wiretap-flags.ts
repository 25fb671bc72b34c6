// The flags of `intercept` that mean nothing for a wiretap.
import { AppError } from "#base/error.ts";
import type { InterceptFlags } from "./intercept-flags.ts";

interface Meaningless {
  readonly flag: string;
  readonly key: keyof InterceptFlags;
  readonly because: string;
}

export const meaninglessForWiretaps: readonly Meaningless[] = [
  { flag: "--on-refused", key: "onRefused", because: "the application answers whatever becomes of the copy" },
  { flag: "--probes", key: "probes", because: "the application answers the kubelet's probes, which are not copied" },
  { flag: "--allow-overlap", key: "allowOverlap", because: "it takes no requests from anybody" },
];

export function refuseMeaningless(flags: InterceptFlags): void {
  const given = meaninglessForWiretaps.find(({ key }) => flags[key] !== undefined);
  if (given === undefined) return;
  throw new AppError("usage", `${given.flag} has no meaning for a wiretap: ${given.because}`, {
    hint: "leave it out",
  });
}
