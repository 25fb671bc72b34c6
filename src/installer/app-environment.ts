// Pure: the application's environment and volumes as the agent's container repeats them, to be read by exec. Names get
// a prefix so that they do not become the agent's own; references follow the prefix.
import type { Container, EnvFrom, EnvVar, Volume, VolumeMount } from "#kube/objects.ts";
import { appEnvironmentPrefix } from "#wire/agent-api.ts";

/** The application's mounts appear below this in the agent's container, read-only. */
export const appMountRoot = "/tel_app_mounts";
/** Where Kubernetes puts a pod's ServiceAccount token, and its path without the symbolic link. */
const tokenPaths = ["/var/run/secrets/kubernetes.io/serviceaccount", "/run/secrets/kubernetes.io/serviceaccount"];

export function repeatEnvironment(container: Container): {
  readonly env: readonly EnvVar[];
  readonly envFrom: readonly EnvFrom[];
} {
  const env: EnvVar[] = [];
  const known = new Set<string>();
  const anySource = (container.envFrom ?? []).length > 0;
  for (const variable of container.env ?? []) {
    env.push(repeatVariable(variable, container.name, known, anySource));
    known.add(variable.name);
  }
  const envFrom = (container.envFrom ?? []).map((source) => ({
    ...source,
    prefix: `${appEnvironmentPrefix}${source.prefix ?? ""}`,
  }));
  return { env, envFrom };
}

function repeatVariable(
  variable: EnvVar,
  containerName: string,
  known: ReadonlySet<string>,
  anySource: boolean,
): EnvVar {
  const name = `${appEnvironmentPrefix}${variable.name}`;
  if (variable.value !== undefined) {
    return { ...variable, name, value: prefixReferences(variable.value, known, anySource) };
  }
  const field = variable.valueFrom?.resourceFieldRef;
  if (field === undefined || field.containerName !== undefined) return { ...variable, name };
  return { ...variable, name, valueFrom: { ...variable.valueFrom, resourceFieldRef: { ...field, containerName } } };
}

/** Variables that Kubernetes itself sets for services; the agent's container has them under the same names. */
const serviceVariable =
  /^[A-Z0-9_]+_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$/;

/**
 * `$(NAME)` as `$(_TEL_APP_NAME)` where NAME is the application's own: defined earlier in the list, or possibly by a
 * ConfigMap or Secret whose keys cannot be seen from here. `$$(NAME)` is an escaped text and stays.
 */
export function prefixReferences(value: string, known: ReadonlySet<string>, anySource: boolean): string {
  return value.replace(/\$\$|\$\(([^()]+)\)/g, (text, name: string | undefined) => {
    if (name === undefined) return text;
    const ours = known.has(name) || (anySource && !serviceVariable.test(name));
    return ours ? `$(${appEnvironmentPrefix}${name})` : text;
  });
}

/** Read-only repeats of the mounts, without whatever holds a ServiceAccount token. */
export function repeatMounts(container: Container, volumes: readonly Volume[]): readonly VolumeMount[] {
  const tokens = new Set(volumes.filter(holdsToken).map((volume) => volume.name));
  const known = new Set((container.env ?? []).map((variable) => variable.name));
  const anySource = (container.envFrom ?? []).length > 0;
  return (container.volumeMounts ?? [])
    .filter((mount) => !tokens.has(mount.name) && !tokenPaths.some((path) => isWithin(mount.mountPath, path)))
    .map(({ name, mountPath, subPath, subPathExpr }) => ({
      name,
      mountPath: `${appMountRoot}/${mountPath.replace(/^\/+/, "")}`,
      readOnly: true,
      ...(subPath === undefined ? {} : { subPath }),
      ...(subPathExpr === undefined ? {} : { subPathExpr: prefixReferences(subPathExpr, known, anySource) }),
    }));
}

function holdsToken(volume: Volume): boolean {
  return volume.projected?.sources?.some((source) => source.serviceAccountToken !== undefined) === true;
}

function isWithin(path: string, root: string): boolean {
  const clean = path.replace(/\/+$/, "");
  return clean === root || clean.startsWith(`${root}/`);
}
