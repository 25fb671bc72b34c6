// Which of the two ways a streaming call takes: a WebSocket, or SPDY where the server refuses that. What worked is
// taken first the next time.
import { isAppError } from "#base/error.ts";
import type { AppError } from "#base/error.ts";
import type { Kube } from "#kube/client.ts";
import type { KubeAction } from "#kube/status.ts";
import { forbiddenBoth, isMissingPermission } from "#kube/status.ts";

export interface StreamingWays<T> {
  readonly webSocket: () => Promise<T>;
  readonly spdy: () => Promise<T>;
}

/** Answers of servers, and of proxies before them, that know no WebSocket there. */
const unknownThere = new Set<unknown>([400, 405, 426, 501]);
/** What is done over SPDY, by client: permissions are a namespace's. */
const bySpdy = new WeakMap<Kube, Set<string>>();

/** `action` is the WebSocket's. */
export async function chooseWay<T>(kube: Kube, action: KubeAction, ways: StreamingWays<T>): Promise<T> {
  const known = bySpdy.get(kube) ?? new Set();
  bySpdy.set(kube, known);
  const key = `${action.subresource} ${action.namespace}`;
  if (known.has(key)) {
    const answer = await refused(ways.spdy());
    if (!("error" in answer)) return answer.value;
    known.delete(key); // permissions have changed
  }
  const first = await refused(ways.webSocket());
  if (!("error" in first)) return first.value;
  const second = await settle(ways.spdy());
  if ("error" in second) throw worse(kube, action, first.error, second.error);
  known.add(key);
  return second.value;
}

type Answer<T> = { readonly value: T } | { readonly error: AppError };

/** Throws what the other way would not change. */
async function refused<T>(opening: Promise<T>): Promise<Answer<T>> {
  const answer = await settle(opening);
  if (!("error" in answer) || isMissingPermission(answer.error)) return answer;
  const { error } = answer;
  if (error.code !== "unsupported" && !unknownThere.has(error.fields["httpStatus"])) throw error;
  return answer;
}

async function settle<T>(opening: Promise<T>): Promise<Answer<T>> {
  try {
    return { value: await opening };
  } catch (error) {
    if (isAppError(error)) return { error };
    throw error;
  }
}

function worse(kube: Kube, action: KubeAction, ofWebSocket: AppError, ofSpdy: AppError): AppError {
  if (!isMissingPermission(ofWebSocket)) return ofWebSocket;
  return isMissingPermission(ofSpdy) ? forbiddenBoth(kube.target, action, ofSpdy) : ofSpdy;
}
