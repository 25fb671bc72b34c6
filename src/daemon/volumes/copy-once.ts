// Volumes whose content only the container has (emptyDir, claims, the node's folders): copied once, on request, with a
// bound and a word on how far it is.
import { Unpacker } from "#host/unpack.ts";
import type { Kube } from "#kube/client.ts";
import type { ContainerMount } from "#kube/workloads/container-volumes.ts";
import { placeOf, splitPath } from "./mount-copy.ts";
import { formatMebibytes, readArchive, type ContainerPlace } from "./pod-archive.ts";

/** chosen: how often a person is told. */
const tellMs = 500;

export interface CopyOnce {
  readonly mount: ContainerMount;
  readonly place: ContainerPlace;
  readonly root: string;
  readonly limitBytes: number;
  /** Paths of other mounts. */
  readonly others: readonly string[];
  readonly progress: (text: string) => void;
  readonly signal: AbortSignal;
}

/** Warnings. */
export async function copyOnce(kube: Kube, copy: CopyOnce): Promise<readonly string[]> {
  const { mount, place, root, limitBytes, progress, signal } = copy;
  const { mountPath, volume } = mount;
  const covered = copy.others
    .filter((other) => other.startsWith(`${mountPath}/`))
    .map((other) => other.slice(mountPath.length + 1));
  await using unpacker = new Unpacker({ target: placeOf(root, mount), mountPath, covered: new Set(covered) });
  let bytes = 0;
  let toldMs = Number.NEGATIVE_INFINITY;
  const [folder, name] = splitPath(mountPath);
  const said = await readArchive(kube, {
    place,
    folder,
    name,
    limitBytes,
    onEvent: async (event) => {
      if (event.type === "entry") await unpacker.entry(event.entry);
      if (event.type !== "data") return;
      await unpacker.data(event.data);
      bytes += event.data.length;
      if (kube.clock.now() - toldMs < tellMs) return;
      toldMs = kube.clock.now();
      progress(`Copying volume ${volume}: ${formatMebibytes(bytes)} in ${unpacker.files} files`);
    },
    signal,
  });
  const { skipped } = unpacker;
  return [
    ...(skipped === 0
      ? []
      : [`${skipped} entries of volume ${volume} were not copied: devices, sockets, or names that lead out of it`]),
    ...(said === undefined ? [] : [`not all of volume ${volume} could be read: ${said}`]),
  ];
}
