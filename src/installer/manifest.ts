// Pure: the traffic-manager's Deployment. It has no permission and no ServiceAccount token, and fits pod security
// level `restricted`. One replica, recreated: two managers would be a split brain.
import type { Workload } from "#kube/objects.ts";
import { managerAgentPort, managerHealthPort } from "#wire/manager-api.ts";
import type { ImageChoice } from "./agent-container.ts";
import { downward } from "./agent-container.ts";
import { managerName, managerSelector, nodeListKey, nodeListName } from "./marks.ts";

export interface ManagerManifestOptions {
  readonly namespace: string;
  readonly image: ImageChoice;
  /** Version of the software in the image. */
  readonly version: string;
  /** Further environment of the manager (`TELEPRESENCE_ALLOW_NODES` and the like). */
  readonly env: Readonly<Record<string, string>>;
}

/** Chosen: like the agent's, with room for many laptops' buffers. No CPU limit: it throttles every stream. */
const resources = { requests: { cpu: "20m", memory: "96Mi" }, limits: { memory: "512Mi" } };

const nodeListFolder = "/etc/telepresence";

export function buildManager({ namespace, image, version, env }: ManagerManifestOptions): Workload {
  const labels = { ...managerSelector, "app.kubernetes.io/version": labelValue(version) };
  const deployment = {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: { name: managerName, namespace, labels },
    spec: {
      replicas: 1,
      strategy: { type: "Recreate" },
      selector: { matchLabels: managerSelector },
      template: {
        metadata: { labels },
        spec: {
          automountServiceAccountToken: false,
          enableServiceLinks: false,
          terminationGracePeriodSeconds: 10,
          // Its user is the image's, or the cluster's choice: one that gives each namespace users of its own refuses others.
          securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
          containers: [buildContainer(image, env)],
          // Optional: who installs may not write it, and the next laptop brings it.
          volumes: [{ name: "nodes", configMap: { name: nodeListName, optional: true } }],
        },
      },
    },
  };
  return deployment as Workload;
}

function buildContainer(image: ImageChoice, env: Readonly<Record<string, string>>): object {
  return {
    name: managerName,
    image: image.image,
    ...(image.pullPolicy === undefined ? {} : { imagePullPolicy: image.pullPolicy }),
    args: [managerName],
    ports: [
      { name: "agents", containerPort: managerAgentPort, protocol: "TCP" },
      { name: "health", containerPort: managerHealthPort, protocol: "TCP" },
    ],
    env: [
      ...downward({
        TELEPRESENCE_POD_NAME: "metadata.name",
        TELEPRESENCE_POD_NAMESPACE: "metadata.namespace",
        TELEPRESENCE_POD_IPS: "status.podIPs",
        TELEPRESENCE_NODE_IPS: "status.hostIP",
      }),
      { name: "TELEPRESENCE_NODES_FILE", value: `${nodeListFolder}/${nodeListKey}` },
      ...Object.entries(env).map(([name, value]) => ({ name, value })),
    ],
    volumeMounts: [{ name: "nodes", mountPath: nodeListFolder, readOnly: true }],
    readinessProbe: {
      httpGet: { path: "/readyz", port: "health", scheme: "HTTP" },
      periodSeconds: 1,
      timeoutSeconds: 2,
      failureThreshold: 10,
    },
    resources,
    securityContext: {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      runAsNonRoot: true,
      capabilities: { drop: ["ALL"] },
    },
    terminationMessagePolicy: "FallbackToLogsOnError",
  };
}

/** A label's value allows less than a version does. */
function labelValue(version: string): string {
  return version.replace(/[^A-Za-z0-9._-]/g, "_").slice(0, 63);
}
