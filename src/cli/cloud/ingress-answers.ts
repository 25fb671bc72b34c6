// How requests come into each cluster, as this user has answered: remembered in the cache, read by nobody else. What
// cannot be read is as good as nothing, for it only saves questions.
import { readFile, rm } from "node:fs/promises";
import { z } from "zod";
import { previewIngress } from "#wire/cloud-api.ts";
import type { PreviewIngress } from "#wire/cloud-api.ts";

/** A file of the user's own. */
export interface AnswersFile {
  readonly path: string;
  /** In one piece, and nobody else may read it. */
  replace(text: string): Promise<void>;
}

/** By `<server>/<context>`. */
const schema = z.record(z.string(), previewIngress);
/** chosen: clusters of one person; the oldest go. */
const maxClusters = 200;

export async function readAnswer(file: AnswersFile, cluster: string): Promise<PreviewIngress | undefined> {
  return (await readAll(file))[cluster];
}

export async function rememberAnswer(file: AnswersFile, cluster: string, answer: PreviewIngress): Promise<void> {
  const { [cluster]: _older, ...others } = await readAll(file);
  const kept = Object.entries(others).slice(1 - maxClusters);
  await file.replace(`${JSON.stringify(Object.fromEntries([...kept, [cluster, answer]]), undefined, 2)}\n`);
}

export async function forgetAnswers({ path }: AnswersFile): Promise<void> {
  await rm(path, { force: true });
}

async function readAll({ path }: AnswersFile): Promise<z.infer<typeof schema>> {
  try {
    return schema.parse(JSON.parse(await readFile(path, "utf8")));
  } catch {
    return {};
  }
}
