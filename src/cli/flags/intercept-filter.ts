// The flags that choose requests, as one text of CEL. What is wrong in them fails here, before anything is started.
import { unknownSessionId } from "#wire/control-api.ts";
import type { InterceptFlags } from "./intercept-flags.ts";

/** Undefined takes everything. The text is whole but for the session's id, where the intercept's own stands in it. */
export async function readFilter(name: string, flags: InterceptFlags): Promise<string | undefined> {
  if (!choosesRequests(flags)) return undefined;
  const { compileFlags, matchAll } = await import("#filter/flags.ts");
  const httpHeader = [...(flags.httpHeader ?? []), ...(flags.httpMatch ?? [])];
  const text = compileFlags({ ...flags, httpHeader }, `${unknownSessionId}:${name}`);
  return text === matchAll ? undefined : text;
}

export function choosesRequests(flags: InterceptFlags): boolean {
  const { httpHeader, httpMatch, httpMethod, httpQuery, httpBody, grpcMethod, match } = flags;
  const path = flags.httpPathEqual ?? flags.httpPathPrefix ?? flags.httpPathRegex;
  return [httpHeader, httpMatch, httpMethod, httpQuery, httpBody, grpcMethod, match, path].some(
    (flag) => flag !== undefined,
  );
}
