// `version`: of the client and of whatever runs.
import { softwareVersion } from "#base/version.ts";
import type { CommandContext } from "#cli/context.ts";
import { formatVersion, versionToJson } from "#cli/texts/status.ts";
import { askAll } from "./status.ts";

export async function runVersion(context: CommandContext): Promise<number> {
  const { output } = context;
  const statuses = await askAll(context);
  const [only] = statuses;
  if (statuses.length > 1) {
    const all = statuses.map(({ name, status }) => [name, versionToJson(softwareVersion, status)] as const);
    output.lines(
      statuses.flatMap(({ name, status }) => [`Connection ${name}`, ...formatVersion(softwareVersion, status)]),
    );
    output.data({ ...all[0]?.[1], connections: Object.fromEntries(all) });
    return 0;
  }
  output.lines(formatVersion(softwareVersion, only?.status));
  output.data(versionToJson(softwareVersion, only?.status));
  return 0;
}
