// YAML as Kubernetes' own tools write and read it, which is 1.1: an `off` without quotes is false there, and 0644 octal.
// Imported late (the library costs more than the rest of the command line); a late import of the library itself has no
// names once it is bundled.
import { parseAllDocuments, stringify as write } from "yaml";
import type { CollectionTag, Document, ScalarTag, Tags } from "yaml";

export { parse } from "yaml";

/** Read alike by 1.1 and 1.2. Long lines stay whole: the agent's configuration is JSON in one of them. */
export function stringify(value: unknown): string {
  return write(value, { lineWidth: 0, compat: "yaml-1.1" });
}

/** Each document of a manifest, with what is wrong with it. */
export function parseManifests(text: string): readonly Document[] {
  return [...parseAllDocuments(text, { version: "1.1", customTags: withoutTimes })];
}

/** Go's library, which kubectl has, takes times and dates for texts. */
function withoutTimes(tags: Tags): Tags {
  return tags.filter((tag) => typeof tag === "string" || !isTime(tag));
}

const isTime = ({ tag, format }: (CollectionTag & { readonly format?: string }) | ScalarTag): boolean =>
  format === "TIME" || tag === "tag:yaml.org,2002:timestamp";
