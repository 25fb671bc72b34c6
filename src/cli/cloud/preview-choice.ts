// Whether an intercept gets a preview URL, and whether it takes only the requests with its own header: the matrix of the
// original. What follows from being logged in alone is for people at a terminal, who see it and can say otherwise; a
// script does the same as before somebody logged in.
import { AppError } from "#base/error.ts";
import { choosesRequests } from "#cli/flags/intercept-filter.ts";
import type { InterceptFlags } from "#cli/flags/intercept-flags.ts";

export interface PreviewChoice {
  readonly url: boolean;
  /** As with `--http-header auto`. */
  readonly personal: boolean;
  /** It follows from the login: nobody has said it. */
  readonly byLogin: boolean;
}

export interface Situation {
  readonly loggedIn: boolean;
  /** Somebody at a terminal can answer questions. */
  readonly canAsk: boolean;
}

export function choosePreview(flags: InterceptFlags, { loggedIn, canAsk }: Situation): PreviewChoice {
  const { attachment, mechanism, previewUrl } = flags;
  const takesAll = choosesRequests(flags) || mechanism === "tcp" || attachment === "replace";
  if (previewUrl === true) return { url: true, personal: !takesAll, byLogin: false };
  const byLogin = loggedIn && canAsk && attachment === undefined && !isUdpOnly(flags);
  return { url: byLogin && previewUrl !== false, personal: byLogin && !takesAll, byLogin };
}

function isUdpOnly({ port = [] }: InterceptFlags): boolean {
  return port.length > 0 && port.every((text) => /\/udp$/i.test(text));
}

/** What a preview cannot be of. */
export function refusePreview({ attachment, previewUrl }: InterceptFlags): void {
  if (previewUrl !== true || attachment !== "wiretap") return;
  throw new AppError("usage", "--preview-url has no meaning for a wiretap: the application answers", {
    hint: "leave it out",
  });
}
