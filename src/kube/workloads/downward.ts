// Pure: what the downward API tells a container, worked out from the pod's object as a kubelet does.
import type { Pod, ResourceFieldRef } from "#kube/objects.ts";
import { parseAmount } from "#kube/quantity.ts";

/** Undefined for a field that cannot be seen in the pod's object. */
export function fieldValue(pod: Pod, fieldPath: string): string | undefined {
  const { metadata, spec, status } = pod;
  const [, list, key] = /^metadata\.(labels|annotations)\['(.*)'\]$/.exec(fieldPath) ?? [];
  if (list !== undefined) return metadata[list as "labels" | "annotations"]?.[key ?? ""] ?? "";
  const addresses = (items: readonly { readonly ip: string }[] | undefined, first: string | undefined): string =>
    items?.map(({ ip }) => ip).join(",") ?? first ?? "";
  const fields: Readonly<Record<string, () => string | undefined>> = {
    "metadata.name": () => metadata.name,
    "metadata.namespace": () => metadata.namespace,
    "metadata.uid": () => metadata.uid,
    "metadata.labels": () => formatMap(metadata.labels),
    "metadata.annotations": () => formatMap(metadata.annotations),
    "spec.nodeName": () => spec.nodeName,
    "spec.serviceAccountName": () => spec.serviceAccountName ?? "default",
    "status.hostIP": () => status?.hostIP,
    "status.hostIPs": () => addresses(status?.hostIPs, status?.hostIP),
    "status.podIP": () => status?.podIP,
    "status.podIPs": () => addresses(status?.podIPs, status?.podIP),
  };
  return Object.hasOwn(fields, fieldPath) ? fields[fieldPath]?.() : undefined;
}

/** `key="value"` a line, sorted, the value quoted as Go quotes texts. */
function formatMap(map: Readonly<Record<string, string>> = {}): string {
  return Object.keys(map)
    .toSorted()
    .map((key) => `${key}=${quote(map[key] ?? "")}`)
    .join("\n");
}

const escapes: Readonly<Record<string, string>> = {
  "\u0007": "\\a",
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\v": "\\v",
  '"': '\\"',
  "\\": "\\\\",
};

function quote(text: string): string {
  // oxlint-disable-next-line no-control-regex -- control characters are what this is about
  const escaped = text.replace(/[\u0000-\u001f"\\\u007f]/g, (character) => {
    const code = character.codePointAt(0) ?? 0;
    return escapes[character] ?? `\\x${code.toString(16).padStart(2, "0")}`;
  });
  return `"${escaped}"`;
}

/** Undefined where the container sets no such limit: the node's size counts then, which the pod does not show. */
export function resourceValue(pod: Pod, ownName: string, ref: ResourceFieldRef): string | undefined {
  const { resource, containerName = ownName, divisor = "1" } = ref;
  const container = pod.spec.containers.find(({ name }) => name === containerName);
  const [, list, name = ""] = /^(limits|requests)\.(.+)$/.exec(resource) ?? [];
  if (container === undefined || list === undefined) return undefined;
  const amount = parseAmount(container.resources?.[list as "limits" | "requests"]?.[name]);
  if (amount === undefined) return list === "requests" ? "0" : undefined;
  // The rounding keeps what binary fractions add from becoming one more.
  return String(Math.ceil(Number((amount / (parseAmount(divisor) || 1)).toFixed(6))));
}
