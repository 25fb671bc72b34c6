// Pure: the cloud server as Kubernetes has it. It fits pod security level `restricted`, has no permission and no
// ServiceAccount token. One replica: managers' tunnels are in its memory.
import type { Container, KubeObject } from "#kube/objects.ts";
import type { CloudInstallation, CloudSecretKey } from "#wire/cloud-install.ts";
import type { ImageChoice } from "./agent-container.ts";

export const cloudName = "telepresence-cloud";
export const cloudSelector: Readonly<Record<string, string>> = {
  "app.kubernetes.io/name": cloudName,
  "app.kubernetes.io/managed-by": "telepresence",
};

/** As written: with apiVersion and kind, and a namespace where the kind has one. */
export interface Manifest extends KubeObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly labels: Readonly<Record<string, string>>;
  };
}

/** Chosen: a few hundred people; a preview's bytes pass through without being kept. No CPU limit: it throttles streams. */
const resources = { requests: { cpu: "50m", memory: "128Mi" }, limits: { memory: "768Mi" } };
const [port, dataFolder, secretFolder] = [8443, "/data", "/etc/telepresence-cloud"];
/** The image's user; a volume is made its group's. */
const userId = 65_532;

export function buildCloud(wish: CloudInstallation, image: ImageChoice): readonly Manifest[] {
  const meta = { name: cloudName, namespace: wish.namespace, labels: cloudSelector };
  const objects: Manifest[] = [];
  if ("values" in wish.secret && Object.keys(wish.secret.values).length > 0) {
    objects.push({
      apiVersion: "v1",
      kind: "Secret",
      metadata: meta,
      type: "Opaque",
      stringData: wish.secret.values,
    } as Manifest);
  }
  if (keepsFile(wish) && wish.storage !== "none") {
    const { size, class: storageClassName } = wish.storage;
    const spec = {
      accessModes: ["ReadWriteOnce"],
      resources: { requests: { storage: size } },
      ...(storageClassName === undefined ? {} : { storageClassName }),
    };
    objects.push({ apiVersion: "v1", kind: "PersistentVolumeClaim", metadata: meta, spec } as Manifest);
  }
  const service = { selector: cloudSelector, ports: [{ name: "http", port: 80, targetPort: "http", protocol: "TCP" }] };
  objects.push({ apiVersion: "v1", kind: "Service", metadata: meta, spec: service } as Manifest);
  objects.push({
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: meta,
    spec: buildDeployment(wish, image),
  } as Manifest);
  if (wish.ingress !== undefined) objects.push(buildIngress(wish, meta));
  return objects;
}

function secretOf({ secret }: CloudInstallation): { readonly name: string; readonly keys: readonly CloudSecretKey[] } {
  if ("name" in secret) return secret;
  return { name: cloudName, keys: Object.keys(secret.values) as CloudSecretKey[] };
}

/** SQLite: no other database is named. */
export function keepsFile(wish: CloudInstallation): boolean {
  return !secretOf(wish).keys.includes("database");
}

function buildDeployment(wish: CloudInstallation, image: ImageChoice): object {
  const { name: secretName, keys } = secretOf(wish);
  const files = keys.filter((key) => key !== "database");
  const hasFile = keepsFile(wish);
  const claim = wish.storage === "none" ? { emptyDir: {} } : { persistentVolumeClaim: { claimName: cloudName } };
  const secretFiles = { secretName, defaultMode: 0o440, items: files.map((key) => ({ key, path: key })) };
  return {
    replicas: 1,
    // a file has one writer, and a name in DNS one server that knows the tunnels
    strategy: { type: "Recreate" },
    selector: { matchLabels: cloudSelector },
    template: {
      metadata: { labels: cloudSelector },
      spec: {
        automountServiceAccountToken: false,
        enableServiceLinks: false,
        securityContext: {
          runAsNonRoot: true,
          fsGroup: userId,
          fsGroupChangePolicy: "OnRootMismatch",
          seccompProfile: { type: "RuntimeDefault" },
        },
        containers: [buildContainer(wish, image, { secretName, keys })],
        volumes: [
          ...(hasFile ? [{ name: "data", ...claim }] : []),
          ...(files.length === 0 ? [] : [{ name: "secret", secret: secretFiles }]),
        ],
      },
    },
  };
}

function buildContainer(
  wish: CloudInstallation,
  image: ImageChoice,
  { secretName, keys }: { readonly secretName: string; readonly keys: readonly CloudSecretKey[] },
): object {
  const probe = (path: string): object => ({ httpGet: { path, port: "http" }, timeoutSeconds: 5 });
  const files = keys.filter((key) => key !== "database");
  return {
    name: cloudName,
    image: image.image,
    ...(image.pullPolicy === undefined ? {} : { imagePullPolicy: image.pullPolicy }),
    args: ["cloud", "serve"],
    ports: [{ name: "http", containerPort: port, protocol: "TCP" }],
    env: [
      ...Object.entries(settingsOf(wish, files)).map(([name, value]) => ({ name: variable(name), value })),
      ...(keys.includes("database")
        ? [{ name: variable("database"), valueFrom: { secretKeyRef: { name: secretName, key: "database" } } }]
        : []),
      // Node's own variable: beside the authorities that it has
      ...(keys.includes("extra-ca") ? [{ name: "NODE_EXTRA_CA_CERTS", value: `${secretFolder}/extra-ca` }] : []),
    ],
    volumeMounts: [
      ...(keepsFile(wish) ? [{ name: "data", mountPath: dataFolder }] : []),
      ...(files.length === 0 ? [] : [{ name: "secret", mountPath: secretFolder, readOnly: true }]),
    ],
    readinessProbe: { ...probe("/readyz"), periodSeconds: 2, failureThreshold: 3 },
    livenessProbe: { ...probe("/healthz"), periodSeconds: 10, failureThreshold: 6 },
    startupProbe: { ...probe("/healthz"), periodSeconds: 1, failureThreshold: 60 },
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

const variable = (flag: string): string => `TELEPRESENCE_CLOUD_${flag.toUpperCase().replaceAll("-", "_")}`;

/** Of a container: its database is named in a Secret, so it is not SQLite's file. */
export function namesDatabase({ env = [] }: Pick<Container, "env">): boolean {
  return env.some(({ name, valueFrom }) => name === variable("database") && valueFrom !== undefined);
}

/** By the server's flags. */
function settingsOf(wish: CloudInstallation, files: readonly CloudSecretKey[]): Readonly<Record<string, string>> {
  const { url, previewDomain, trustedProxies, oidc } = wish;
  const given: Readonly<Record<string, string | undefined>> = {
    listen: `:${port}`,
    url,
    "preview-domain": previewDomain,
    "trusted-proxies": trustedProxies,
    database: keepsFile(wish) ? `sqlite:${dataFolder}/cloud.sqlite` : undefined,
    "oidc-issuer": oidc?.issuer,
    "oidc-client-id": oidc?.clientId,
    "oidc-groups-claim": oidc?.groupsClaim,
    "oidc-admin-group": oidc?.adminGroup,
    "oidc-client-secret-file": files.includes("oidc-client-secret") ? `${secretFolder}/oidc-client-secret` : undefined,
    "metrics-token-file": files.includes("metrics-token") ? `${secretFolder}/metrics-token` : undefined,
  };
  return Object.fromEntries(
    Object.entries(given).filter((entry): entry is [string, string] => entry[1] !== undefined && entry[1] !== ""),
  );
}

/** Uploads of any size, and streams that are quiet for long: what ingress-nginx has to be told, and others ignore. */
const annotations = {
  "nginx.ingress.kubernetes.io/proxy-body-size": "0",
  "nginx.ingress.kubernetes.io/proxy-request-buffering": "off",
  "nginx.ingress.kubernetes.io/proxy-buffering": "off",
  "nginx.ingress.kubernetes.io/proxy-read-timeout": "3600",
  "nginx.ingress.kubernetes.io/proxy-send-timeout": "3600",
};

function buildIngress({ url, previewDomain, ingress }: CloudInstallation, meta: Manifest["metadata"]): Manifest {
  const own = new URL(url).hostname;
  const hosts = [own, ...(previewDomain === undefined ? [] : [`*.${previewDomain}`])];
  const backend = { service: { name: cloudName, port: { name: "http" } } };
  const secrets = [ingress?.tlsSecret, ingress?.previewTlsSecret];
  const tls = hosts.flatMap((host, at) => {
    const secretName = secrets[at];
    return secretName === undefined ? [] : [{ hosts: [host], secretName }];
  });
  const spec = {
    ...(ingress?.class === undefined ? {} : { ingressClassName: ingress.class }),
    ...(tls.length === 0 ? {} : { tls }),
    rules: hosts.map((host) => ({ host, http: { paths: [{ path: "/", pathType: "Prefix", backend }] } })),
  };
  return { apiVersion: "networking.k8s.io/v1", kind: "Ingress", metadata: { ...meta, annotations }, spec } as Manifest;
}
