// Pure: the environment that a kubelet gives a container, worked out from the pod and the objects that it names. What
// the image itself sets is not in there. Trap 50: sources, references and prefixes that were forgotten.
import { fieldValue, resourceValue } from "./downward.ts";
import type { ConfigMap, Container, EnvFrom, EnvVar, Pod, Secret, Service, ServicePort } from "#kube/objects.ts";

/** A ConfigMap or Secret that a container needs. */
export interface NeededObject {
  readonly kind: "ConfigMap" | "Secret";
  readonly name: string;
  readonly optional: boolean;
}

export type FoundObjects = {
  /** Undefined when there is none, or it may not be read. */
  readonly find: (kind: NeededObject["kind"], name: string) => ConfigMap | Secret | undefined;
};

export function neededForEnvironment(container: Container): readonly NeededObject[] {
  const needed: NeededObject[] = [];
  const add = (
    kind: NeededObject["kind"],
    ref: { readonly name?: string; readonly optional?: boolean } | undefined,
  ): void => {
    if (ref?.name !== undefined) needed.push({ kind, name: ref.name, optional: ref.optional === true });
  };
  for (const { configMapRef, secretRef } of container.envFrom ?? []) {
    add("ConfigMap", configMapRef);
    add("Secret", secretRef);
  }
  for (const { valueFrom } of container.env ?? []) {
    add("ConfigMap", valueFrom?.configMapKeyRef);
    add("Secret", valueFrom?.secretKeyRef);
  }
  return needed;
}

export interface ComputedEnvironment {
  readonly values: Readonly<Record<string, string>>;
  /** Names whose value cannot be known from what was found. */
  readonly missing: readonly string[];
}

export interface EnvironmentSources extends FoundObjects {
  readonly pod: Pod;
  readonly container: Container;
  /** Those that it is told of: there when it started. */
  readonly services: readonly Service[];
}

export function computeEnvironment(sources: EnvironmentSources): ComputedEnvironment {
  const links = serviceVariables(sources.services);
  const values: Record<string, string> = {};
  const missing: string[] = [];
  for (const source of sources.container.envFrom ?? []) Object.assign(values, allOf(source, sources));
  const lookup = (name: string): string | undefined => values[name] ?? links[name];
  for (const variable of sources.container.env ?? []) {
    const { name, value = "", valueFrom } = variable;
    const known = valueFrom === undefined ? expandReferences(value, lookup) : referenced(valueFrom, sources);
    if (known !== undefined) values[name] = known;
    else if (!isOptional(variable)) missing.push(name);
  }
  return { values: { ...links, ...values }, missing };
}

function isOptional({ valueFrom }: EnvVar): boolean {
  return valueFrom?.configMapKeyRef?.optional === true || valueFrom?.secretKeyRef?.optional === true;
}

function allOf({ prefix = "", configMapRef, secretRef }: EnvFrom, { find }: FoundObjects): Record<string, string> {
  const name = configMapRef?.name;
  const object = name === undefined ? find("Secret", secretRef?.name ?? "") : find("ConfigMap", name);
  const entries = Object.entries(object?.data ?? {});
  return Object.fromEntries(
    entries.map(([key, value]) => [`${prefix}${key}`, name === undefined ? decode(value) : value]),
  );
}

function referenced(from: NonNullable<EnvVar["valueFrom"]>, sources: EnvironmentSources): string | undefined {
  const { fieldRef, resourceFieldRef } = from;
  const { pod, container, find } = sources;
  if (fieldRef !== undefined) return fieldValue(pod, fieldRef.fieldPath);
  if (resourceFieldRef !== undefined) return resourceValue(pod, container.name, resourceFieldRef);
  const [kind, ref] =
    from.configMapKeyRef === undefined
      ? (["Secret", from.secretKeyRef] as const)
      : (["ConfigMap", from.configMapKeyRef] as const);
  const text = find(kind, ref?.name ?? "")?.data?.[ref?.key ?? ""];
  return text === undefined || kind === "ConfigMap" ? text : decode(text);
}

const decode = (base64: string): string => Buffer.from(base64, "base64").toString("utf8");

/** `$(NAME)` by its value, unknown names as they stand, `$$` for one `$`. */
export function expandReferences(text: string, lookup: (name: string) => string | undefined): string {
  return text.replace(/\$\$|\$\(([^)]*)\)/g, (whole, name: string | undefined) =>
    name === undefined ? "$" : (lookup(name) ?? whole),
  );
}

/** What kubelets tell containers of each service with an address of its own. */
export function serviceVariables(services: readonly Service[]): Readonly<Record<string, string>> {
  const own = services.filter(({ spec }) => !["", "None", undefined].includes(spec.clusterIP));
  return Object.assign({}, ...own.map(variablesOfService)) as Readonly<Record<string, string>>;
}

function variablesOfService({ metadata, spec: { clusterIP = "", ports = [] } }: Service): Record<string, string> {
  const [first] = ports;
  if (first === undefined) return {};
  const name = variableName(metadata.name ?? "");
  const host = clusterIP.includes(":") ? `[${clusterIP}]` : clusterIP;
  const url = ({ port, protocol = "TCP" }: ServicePort): string => `${protocol.toLowerCase()}://${host}:${port}`;
  const values: Record<string, string> = {
    [`${name}_SERVICE_HOST`]: clusterIP,
    [`${name}_SERVICE_PORT`]: String(first.port),
    [`${name}_PORT`]: url(first),
  };
  for (const port of ports) {
    if (port.name !== undefined) values[`${name}_SERVICE_PORT_${variableName(port.name)}`] = String(port.port);
    const { protocol = "TCP" } = port;
    const stem = `${name}_PORT_${port.port}_${protocol}`;
    values[stem] = url(port);
    values[`${stem}_PROTO`] = protocol.toLowerCase();
    values[`${stem}_PORT`] = String(port.port);
    values[`${stem}_ADDR`] = clusterIP;
  }
  return values;
}

const variableName = (text: string): string => text.toUpperCase().replaceAll("-", "_");
