// The flags of `intercept` that mean nothing for a replacement: nobody else answers what it does not take.
import { AppError } from "#base/error.ts";
import type { InterceptFlags } from "./intercept-flags.ts";

export const meaninglessForReplacements: readonly string[] = ["--allow-overlap", "--existing", "--mechanism"];

export function refuseForReplacement(flags: InterceptFlags, isFiltered: boolean): void {
  if (flags.agent === "ephemeral" || flags.agent === "auto") {
    throw new AppError(
      "usage",
      `--agent ${flags.agent} cannot replace a container: an ephemeral agent cannot stop the application, which takes a rollout`,
      { hint: "leave it out" },
    );
  }
  const meaningless = [
    { flag: "a filter", given: isFiltered, because: "the application is not there for other requests" },
    { flag: "--allow-overlap", given: flags.allowOverlap !== undefined, because: "it takes all requests" },
    { flag: "--existing", given: flags.existing !== undefined, because: "the application's connections end with it" },
  ].find(({ given }) => given);
  if (meaningless === undefined) return;
  throw new AppError("usage", `${meaningless.flag} has no meaning for a replacement: ${meaningless.because}`, {
    hint: "leave it out",
  });
}
