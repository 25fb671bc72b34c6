// `why [NAME [METHOD PATH [HEADER:VALUE…]]]`: what became of the last requests to a workload, or what would become of one.
import { AppError } from "#base/error.ts";
import { connectIfNeeded } from "#cli/connection/connection.ts";
import type { CommandContext } from "#cli/context.ts";
import { suggestKnown } from "#cli/near-workload.ts";
import { readTargetName } from "#cli/flags/target-name.ts";
import { formatDecisions, formatVerdicts, whyToJson } from "#cli/texts/why.ts";
import type { SupposedRequest } from "#wire/why.ts";

/** chosen: every pod's agent is asked. */
const whyLimitMs = 60_000;
/** chosen: fits a terminal. */
const defaultLimit = 20;
/** protocol: as many as an agent remembers; spelt out here because schemas are loaded later. */
const maxLimit = 256;

export interface WhyFlags {
  readonly limit?: string;
}

export async function runWhy(context: CommandContext, words: readonly string[], flags: WhyFlags): Promise<number> {
  const [text, ...request] = words;
  const name = text === undefined ? undefined : readTargetName(text).name;
  const suppose = request.length === 0 ? undefined : readRequest(request);
  const limit = suppose === undefined ? readLimit(flags.limit) : 0;
  using connected = await connectIfNeeded(context);
  const { client } = connected.daemon;
  const { namespace, verbose } = context.flags;
  const { output } = context;
  output.progress("Asking the traffic-agents");
  const question = { name, namespace, limit, withQuery: verbose === true, suppose };
  const { workloads, warnings } = await client.call("why", question, whyLimitMs).catch((error: unknown) => {
    throw suggestKnown(error, name);
  });
  for (const warning of warnings) output.warn(warning);
  output.lines(suppose === undefined ? formatDecisions(workloads, limit) : formatVerdicts(workloads, suppose));
  output.data(whyToJson(workloads, limit));
  return 0;
}

function readLimit(text: string | undefined): number {
  const limit = text === undefined ? defaultLimit : Number(text);
  if (Number.isInteger(limit) && limit >= 1 && limit <= maxLimit) return limit;
  throw new AppError("usage", `--limit is "${text}", expected a number from 1 to ${maxLimit}`);
}

function readRequest([method = "", target, ...headers]: readonly string[]): SupposedRequest {
  if (target === undefined) throw new AppError("usage", "after the name expected METHOD PATH [HEADER:VALUE...]");
  if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(method)) {
    throw new AppError("usage", `the method is "${method}", expected one such as GET`);
  }
  if (!target.startsWith("/")) throw new AppError("usage", `the path is "${target}", expected one that begins with /`);
  return { method: method.toUpperCase(), target, headers: headers.map(readHeader) };
}

function readHeader(text: string): SupposedRequest["headers"][number] {
  const [, name, value = ""] = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*)$/s.exec(text) ?? [];
  if (name !== undefined) return { name, value };
  throw new AppError("usage", `the header is "${text}", expected NAME:VALUE`);
}
