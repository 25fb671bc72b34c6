// One object as it changes, with whatever right there is: a watch needs `list`, asking again and again only `get`.
import { isAppError } from "#base/error.ts";
import type { Kube, ObjectRef } from "./client.ts";
import type { KubeObject, Resource } from "./objects.ts";
import { watch } from "./watch.ts";

/** chosen: kubelets take up to a minute to bring a change into a pod. */
const askAgainMs = 10_000;

/**
 * Calls back at once and after each change, with undefined when there is none. Returns when the signal aborts, throws
 * when it may not be read.
 */
export async function followObject<T extends KubeObject>(
  kube: Kube,
  kind: Resource<T>,
  ref: ObjectRef,
  { onObject, signal }: { readonly onObject: (object: T | undefined) => void; readonly signal: AbortSignal },
): Promise<void> {
  const query = { namespace: ref.namespace, fieldSelector: `metadata.name=${ref.name}` };
  try {
    for await (const event of watch(kube, kind, query, signal)) {
      if (event.type === "reset") onObject(event.items[0]);
      else onObject(event.type === "changed" ? event.object : undefined);
    }
  } catch (error) {
    if (!isAppError(error, "forbidden") || signal.aborted) throw error;
    await ask(kube, kind, ref, { onObject, signal });
  }
}

async function ask<T extends KubeObject>(
  kube: Kube,
  kind: Resource<T>,
  ref: ObjectRef,
  { onObject, signal }: { readonly onObject: (object: T | undefined) => void; readonly signal: AbortSignal },
): Promise<void> {
  let last: string | undefined;
  for (;;) {
    const object = await kube.find(kind, ref, signal);
    const version = object?.metadata.resourceVersion ?? "none";
    if (version !== last) onObject(object);
    last = version;
    await kube.clock.sleep(askAgainMs, signal).catch(() => undefined); // aborted: told by the next line
    if (signal.aborted) return;
  }
}
