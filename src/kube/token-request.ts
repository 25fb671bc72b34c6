// A ServiceAccount's token as a pod has it: for the audience and the time that the pod's volume names, and worth
// nothing any more when the pod is gone.
import type { Kube } from "./client.ts";
import type { Pod } from "./objects.ts";

export interface TokenWish {
  readonly audience: string | undefined;
  readonly expirationSeconds: number;
}

export interface IssuedToken {
  readonly token: string;
  readonly expiresAtMs: number;
}

/** Needs `create` on serviceaccounts/token. */
export async function requestToken(kube: Kube, pod: Pod, wish: TokenWish, signal: AbortSignal): Promise<IssuedToken> {
  const { name = "", namespace, uid } = pod.metadata;
  const body = {
    apiVersion: "authentication.k8s.io/v1",
    kind: "TokenRequest",
    spec: {
      ...(wish.audience === undefined ? {} : { audiences: [wish.audience] }),
      expirationSeconds: wish.expirationSeconds,
      boundObjectRef: { apiVersion: "v1", kind: "Pod", name, uid },
    },
  };
  const account = pod.spec.serviceAccountName ?? "default";
  const status = await kube.createToken({ namespace, name: account }, body, signal);
  return { token: status.token, expiresAtMs: Date.parse(status.expirationTimestamp) };
}
