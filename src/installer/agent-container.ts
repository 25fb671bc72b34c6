// Pure: the traffic-agent's container as an injection writes it.
import type { Container, ContainerPort, EnvFrom, EphemeralContainer, PodSpec } from "#kube/objects.ts";
import type { AgentConfig } from "#wire/agent-api.ts";
import { agentConfigVariable, agentContainerName, agentHealthPort } from "#wire/agent-api.ts";
import { repeatEnvironment, repeatMounts } from "./app-environment.ts";
import { certificateMounts } from "./certificate-volumes.ts";

export interface ImageChoice {
  readonly image: string;
  readonly pullPolicy?: "Always" | "IfNotPresent" | "Never" | undefined;
}

/** Covers the pod's ServiceAccount token in the agent's container: a mount at that path keeps Kubernetes' own away. */
export const maskVolumeName = "telepresence-no-token";
const tokenPath = "/var/run/secrets/kubernetes.io/serviceaccount";

/** User of the agent where the application's is root. Chosen: the customary "nonroot", which its image has as well. */
const nonRootUser = 65_532;

/** Chosen: measured 45–70 MB resident for an idle Node program, room for its stream buffers. No CPU limit: it throttles. */
const resources = {
  requests: { cpu: "10m", memory: "64Mi" },
  limits: { memory: "256Mi" },
};

export interface AgentContainerPlan {
  readonly config: AgentConfig;
  readonly declared: readonly ContainerPort[];
  readonly pod: PodSpec;
  readonly image: ImageChoice;
  /** As a native sidecar (`initContainers`). */
  readonly native: boolean;
}

export function buildAgentContainer(plan: AgentContainerPlan): Container {
  const { config, declared, pod, image, native } = plan;
  const app = pod.containers.find((container) => container.name === config.containerName);
  const mounts = app === undefined ? [] : repeatMounts(app, pod.volumes ?? []);
  const certificates = certificateMounts(config.certificateVolumes ?? []);
  const probe = { httpGet: { path: "/ready", port: agentHealthPort, scheme: "HTTP" }, timeoutSeconds: 2 };
  return {
    name: agentContainerName,
    image: image.image,
    ...(image.pullPolicy === undefined ? {} : { imagePullPolicy: image.pullPolicy }),
    ...(native ? { restartPolicy: "Always" } : {}),
    args: ["traffic-agent"],
    ports: declared,
    ...environment(config, app),
    volumeMounts: [...mounts, ...certificates, { name: maskVolumeName, mountPath: tokenPath, readOnly: true }],
    // No startup probe: the application starts beside the agent instead of after it, and readiness holds traffic back.
    readinessProbe: { ...probe, periodSeconds: 1, failureThreshold: 5 },
    resources,
    securityContext: securityContext(config, pod),
    terminationMessagePolicy: "FallbackToLogsOnError",
  } as Container;
}

export interface EphemeralAgentPlan {
  readonly name: string;
  readonly config: AgentConfig;
  readonly pod: PodSpec;
  readonly image: ImageChoice;
}

/** For a running pod: ports, probes, resources and parts of volumes are forbidden there. */
export function buildEphemeralAgent({ name, config, pod, image }: EphemeralAgentPlan): EphemeralContainer {
  const app = pod.containers.find((container) => container.name === config.containerName);
  const mounts = app === undefined ? [] : repeatMounts(app, pod.volumes ?? []);
  const whole = [
    ...mounts.filter((mount) => mount.subPath === undefined && mount.subPathExpr === undefined),
    ...certificateMounts(config.certificateVolumes ?? []),
  ];
  const { env, envFrom } = environment(config, app);
  const graceSeconds = pod.terminationGracePeriodSeconds ?? 30;
  return {
    name,
    image: image.image,
    ...(image.pullPolicy === undefined ? {} : { imagePullPolicy: image.pullPolicy }),
    args: ["traffic-agent"],
    // It is told to end at the same moment as the application, and must outlive it.
    env: [...env, { name: "TELEPRESENCE_DRAIN_SECONDS", value: String(Math.max(graceSeconds - 1, 1)) }],
    ...(envFrom === undefined ? {} : { envFrom }),
    ...(whole.length === 0 ? {} : { volumeMounts: whole }),
    securityContext: securityContext(config, pod),
    terminationMessagePolicy: "FallbackToLogsOnError",
  } as EphemeralContainer;
}

/** The application's variables under their prefix, our configuration, and the pod's fields. */
function environment(
  config: AgentConfig,
  app: Container | undefined,
): { readonly env: readonly object[]; readonly envFrom?: readonly EnvFrom[] } {
  const { env, envFrom } = app === undefined ? { env: [], envFrom: [] } : repeatEnvironment(app);
  return {
    // The application's first: what comes later in the list cannot be meant by its references.
    env: [
      ...env,
      { name: agentConfigVariable, value: JSON.stringify(config) },
      ...downward({
        TELEPRESENCE_POD_NAME: "metadata.name",
        TELEPRESENCE_POD_NAMESPACE: "metadata.namespace",
        TELEPRESENCE_POD_UID: "metadata.uid",
        TELEPRESENCE_POD_IPS: "status.podIPs",
      }),
    ],
    ...(envFrom.length === 0 ? {} : { envFrom }),
  };
}

/** Variables from the pod's own fields. */
export function downward(fields: Readonly<Record<string, string>>): readonly object[] {
  return Object.entries(fields).map(([name, fieldPath]) => ({ name, valueFrom: { fieldRef: { fieldPath } } }));
}

/** PSA `restricted` unless a port needs the redirect. */
function securityContext(config: AgentConfig, pod: PodSpec): object {
  const common = {
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    seccompProfile: { type: "RuntimeDefault" },
  };
  if (config.ports.some((port) => port.takeover === "redirect")) {
    // Capabilities reach only root without file capabilities; everything but NET_ADMIN is dropped.
    return {
      ...common,
      runAsUser: 0,
      runAsGroup: 0,
      runAsNonRoot: false,
      capabilities: { drop: ["ALL"], add: ["NET_ADMIN"] },
    };
  }
  const app = pod.containers.find((container) => container.name === config.containerName);
  // The application's own user can read its volumes.
  const user = userOf(app?.securityContext) ?? userOf((pod as { readonly securityContext?: object }).securityContext);
  return {
    ...common,
    // A cluster that gives each namespace users of its own refuses any other.
    ...(user === undefined ? {} : { runAsUser: user === 0 ? nonRootUser : user }),
    runAsNonRoot: true,
    capabilities: { drop: ["ALL"] },
  };
}

function userOf(context: object | undefined): number | undefined {
  const user = (context as { readonly runAsUser?: unknown } | undefined)?.runAsUser;
  return typeof user === "number" ? user : undefined;
}
