// Pure: what a container mounts, and the files that a kubelet would make of the objects behind it.
import { expandReferences, type FoundObjects, type NeededObject } from "./container-environment.ts";
import { fieldValue, resourceValue } from "./downward.ts";
import type {
  ConfigMap,
  Container,
  DownwardFile,
  KeyToPath,
  Pod,
  ProjectedSource,
  Secret,
  Volume,
} from "#kube/objects.ts";

export interface ObjectPart extends NeededObject {
  readonly part: "object";
  /** All keys when left out. */
  readonly items?: readonly KeyToPath[] | undefined;
  readonly defaultMode: number;
}
export interface TokenPart {
  readonly part: "token";
  readonly audience: string | undefined;
  readonly expirationSeconds: number;
  readonly path: string;
}
interface DownwardPart {
  readonly part: "downward";
  readonly items: readonly DownwardFile[];
}
/** A source that this version does not know. */
interface UnknownPart {
  readonly part: "unknown";
}
export type VolumePart = ObjectPart | TokenPart | DownwardPart | UnknownPart;

export interface ContainerMount {
  readonly volume: string;
  readonly mountPath: string;
  /** What of the volume is mounted, without leading and trailing slashes; the whole when left out. */
  readonly subPath?: string;
  /** Left out: whatever the volume's files come from, Kubernetes does not know it. */
  readonly parts?: readonly VolumePart[];
}

/** In the order in which one may hide another. */
export function containerMounts(
  pod: Pod,
  container: Container,
  variables: Readonly<Record<string, string>>,
): readonly ContainerMount[] {
  const volumes = new Map(pod.spec.volumes?.map((volume) => [volume.name, volume]));
  const mounts = (container.volumeMounts ?? []).map(({ name, mountPath, subPath, subPathExpr }): ContainerMount => {
    const given = subPathExpr === undefined ? subPath : expandReferences(subPathExpr, (key) => variables[key]);
    const part = given?.replace(/^\/+|\/+$/g, "");
    const volume = volumes.get(name);
    const parts = volume === undefined ? undefined : volumeParts(volume);
    return {
      volume: name,
      mountPath,
      ...(part === undefined || part === "" ? {} : { subPath: part }),
      ...(parts === undefined ? {} : { parts }),
    };
  });
  return mounts.toSorted((a, b) => depth(a.mountPath) - depth(b.mountPath));
}

const depth = (path: string): number => path.split("/").filter(Boolean).length;

const ordinaryMode = 0o644;

function volumeParts(volume: Volume): readonly VolumePart[] | undefined {
  const { configMap, secret, downwardAPI, projected } = volume;
  if (configMap !== undefined) return [objectPart("ConfigMap", configMap, configMap.defaultMode)];
  if (secret !== undefined) return [objectPart("Secret", { ...secret, name: secret.secretName }, secret.defaultMode)];
  if (downwardAPI !== undefined) return [{ part: "downward", items: downwardAPI.items ?? [] }];
  return projected?.sources?.map((source) => projectedPart(source, projected.defaultMode));
}

function objectPart(
  kind: NeededObject["kind"],
  ref: {
    readonly name?: string | undefined;
    readonly optional?: boolean | undefined;
    readonly items?: readonly KeyToPath[] | undefined;
  },
  defaultMode = ordinaryMode,
): ObjectPart {
  const { name = "", optional = false, items } = ref;
  return { part: "object", kind, name, optional, defaultMode, ...(items === undefined ? {} : { items }) };
}

function projectedPart(source: ProjectedSource, defaultMode: number | undefined): VolumePart {
  const { configMap, secret, downwardAPI, serviceAccountToken: token } = source;
  if (configMap !== undefined) return objectPart("ConfigMap", configMap, defaultMode);
  if (secret !== undefined) return objectPart("Secret", secret, defaultMode);
  if (downwardAPI !== undefined) return { part: "downward", items: downwardAPI.items ?? [] };
  if (token === undefined) return { part: "unknown" };
  const { audience, expirationSeconds = 3600, path = "token" } = token;
  return { part: "token", audience, expirationSeconds, path };
}

export interface VolumeFile {
  readonly data: Buffer;
  readonly executable: boolean;
}
/** By path inside the volume. */
export type VolumeFiles = ReadonlyMap<string, VolumeFile>;

export interface VolumeSources extends FoundObjects {
  readonly pod: Pod;
  readonly containerName: string;
  /** Undefined while there is none. */
  readonly token: (part: TokenPart) => string | undefined;
}

/** The files of one mount; a later part wins, as in a projected volume. */
export function mountFiles(mount: ContainerMount, sources: VolumeSources): VolumeFiles {
  const files = new Map<string, VolumeFile>();
  for (const part of mount.parts ?? []) {
    for (const [path, file] of partFiles(part, sources)) files.set(path, file);
  }
  return files;
}

function partFiles(part: VolumePart, sources: VolumeSources): readonly (readonly [string, VolumeFile])[] {
  switch (part.part) {
    case "object":
      return objectFiles(part, sources.find(part.kind, part.name));
    case "downward":
      return part.items.flatMap((item) => downwardFile(item, sources));
    case "token": {
      const token = sources.token(part);
      return token === undefined ? [] : [[part.path, { data: Buffer.from(token), executable: false }]];
    }
    case "unknown":
      return [];
  }
}

const isExecutable = (mode: number): boolean => (mode & 0o111) !== 0;

function objectFiles(
  part: ObjectPart,
  object: ConfigMap | Secret | undefined,
): readonly (readonly [string, VolumeFile])[] {
  if (object === undefined) return [];
  const content = new Map<string, Buffer>();
  const encoding = part.kind === "Secret" ? "base64" : "utf8";
  for (const [key, value] of Object.entries(object.data ?? {})) content.set(key, Buffer.from(value, encoding));
  const binary = "binaryData" in object ? object.binaryData : undefined;
  for (const [key, value] of Object.entries(binary ?? {})) content.set(key, Buffer.from(value, "base64"));
  const items: readonly KeyToPath[] = part.items ?? [...content.keys()].map((key) => ({ key, path: key }));
  return items.flatMap(({ key, path, mode = part.defaultMode }) => {
    const data = content.get(key);
    // A secret is never more than its owner's to read.
    return data === undefined ? [] : [[path, { data, executable: part.kind === "ConfigMap" && isExecutable(mode) }]];
  });
}

function downwardFile(item: DownwardFile, { pod, containerName }: VolumeSources): readonly [string, VolumeFile][] {
  const { fieldRef, resourceFieldRef } = item;
  const value =
    fieldRef === undefined
      ? resourceFieldRef && resourceValue(pod, containerName, resourceFieldRef)
      : fieldValue(pod, fieldRef.fieldPath);
  return value === undefined ? [] : [[item.path, { data: Buffer.from(value), executable: false }]];
}
