// Pure: what of a pod may hold the certificate that its application shows, so that an agent can read TLS as the
// application would. The agent mounts the very volumes: a key never leaves its pod, and a renewed one arrives by itself.
import type { PodSpec, PodTemplate, Volume, VolumeMount } from "#kube/objects.ts";
import type { CertificateVolume } from "#wire/agent-api.ts";
import type { CertificateChoice } from "#wire/intercept-tls.ts";
import { parseCertificateChoice } from "#wire/intercept-tls.ts";

/** They appear below this in the agent's container, whole: a part of a volume (subPath) would never change. */
const mountRoot = "/tel_app_tls";
/** protocol: bound of the agent's configuration. */
const maxVolumes = 256;

/** In the pod's order, so that everybody's plan is the same. */
export function certificateVolumes({ containers, volumes = [] }: PodSpec): CertificateVolume[] {
  const mounted = new Set(containers.flatMap(({ volumeMounts = [] }) => volumeMounts.map(({ name }) => name)));
  return volumes
    .filter((volume) => mounted.has(volume.name) && mayHoldKey(volume))
    .slice(0, maxVolumes)
    .map((volume) => {
      const secret = secretOf(volume);
      return { name: volume.name, ...(secret === undefined ? {} : { secret }), path: `${mountRoot}/${volume.name}` };
    });
}

export function certificateMounts(volumes: readonly CertificateVolume[]): readonly VolumeMount[] {
  return volumes.map(({ name, path }) => ({ name, mountPath: path, readOnly: true }));
}

/** Secrets, what drivers bring, and memory that a helper of the pod writes to; never a ServiceAccount's token. */
function mayHoldKey(volume: Volume): boolean {
  if (volume.secret !== undefined || "csi" in volume) return true;
  const sources = volume.projected?.sources;
  if (sources !== undefined) return sources.every((source) => source.serviceAccountToken === undefined);
  return (volume.emptyDir as { readonly medium?: string } | undefined)?.medium === "Memory";
}

function secretOf({ secret, projected }: Volume): string | undefined {
  const sources = (projected?.sources ?? []) as readonly { readonly secret?: { readonly name?: string } }[];
  return secret?.secretName ?? sources.find((source) => source.secret?.name !== undefined)?.secret?.name;
}

const ownAnnotation = "telepresence.io/tls-certificate";
/** The original's: the name of a Secret, for one port or for all. */
const portAnnotations = ["telepresence.io/downstream-tls-secret."];
const olderAnnotations = [
  "telepresence.getambassador.io/inject-terminating-tls-secret",
  "getambassador.io/inject-terminating-tls-secret",
];

/** What the workload's owner says that this port's certificate is; `text` alone when it cannot be understood. */
export function annotatedCertificate(
  { metadata }: PodTemplate,
  containerPort: number,
): { readonly annotation: string; readonly text: string; readonly choice: CertificateChoice | undefined } | undefined {
  const annotations = metadata?.annotations ?? {};
  const names = [...portAnnotations.map((prefix) => `${prefix}${containerPort}`), ownAnnotation, ...olderAnnotations];
  for (const annotation of names) {
    const text = annotations[annotation];
    if (text !== undefined) return { annotation, text, choice: parseCertificateChoice(text) };
  }
  return undefined;
}
