// A namespace that is misspelled gives a connection in which no name is found, and an empty list: said
// where it can be seen.
import { deadline } from "#base/abort.ts";
import { AppError } from "#base/error.ts";
import type { Kube } from "#kube/client.ts";
import { namespaces } from "#kube/objects.ts";

/** chosen: a word of help must not hold `connect` up. */
const lookMs = 5000;
/** chosen: questions at one time; who maps more namespaces did not type them. */
const maxNames = 50;

/** A line for each that the cluster says it does not have. What may not be asked, or is not answered, is left out. */
export async function warnOfMissingNamespaces(
  kube: Kube,
  names: readonly string[],
  signal: AbortSignal,
): Promise<readonly string[]> {
  using limit = deadline(kube.clock, lookMs, "looking at the namespaces", signal);
  const wanted = [...new Set(names)].slice(0, maxNames);
  const known = await Promise.all(
    wanted.map((name) =>
      kube.find(namespaces, { name }, limit.signal).then(
        (found) => found !== undefined,
        () => true,
      ),
    ),
  );
  return wanted.filter((_, index) => known[index] === false).map((name) => `namespace ${name} does not exist`);
}

/** For a list that came back empty, which is what the cluster answers for a namespace that it does not have, too. */
export async function requireNamespace(kube: Kube, name: string, signal: AbortSignal): Promise<void> {
  const [missing] = await warnOfMissingNamespaces(kube, [name], signal);
  if (missing === undefined) return;
  throw new AppError("namespace_missing", missing, { hint: "`kubectl get namespaces` shows those there are" });
}
