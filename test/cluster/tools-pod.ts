// A pod of the cluster that does nothing by itself: for calls from inside, with `kubectl exec`.
import { apply, kubectl, toolsImage } from "./lab.ts";

/** Resolves when it takes commands. */
export async function startToolsPod(namespace: string, name: string): Promise<void> {
  const container = { name, image: toolsImage, imagePullPolicy: "IfNotPresent", command: ["sleep", "infinity"] };
  const spec = { terminationGracePeriodSeconds: 0, containers: [container] };
  await apply(namespace, { apiVersion: "v1", kind: "Pod", metadata: { name }, spec });
  await kubectl("wait", "-n", namespace, `pod/${name}`, "--for=condition=Ready", "--timeout=60s");
}
