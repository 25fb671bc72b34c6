// One mount of a container as files of the laptop: what Kubernetes' objects say, or, where those may not be read, what
// exec finds in the container.
import { posix } from "node:path";
import { AtomicFolder, replaceFile, type FileContent } from "#host/atomic-folder.ts";
import type { Kube } from "#kube/client.ts";
import type { ContainerMount } from "#kube/workloads/container-volumes.ts";
import { readArchive, type ContainerPlace } from "./pod-archive.ts";

export type MountContent = ReadonlyMap<string, FileContent>;

/** protocol: a ConfigMap or a Secret is 1 MiB at most; a projected volume joins some. */
const snapshotBytes = 16 * 1024 * 1024;

export class MountCopy {
  readonly mount: ContainerMount;
  readonly #path: string;
  readonly #folder: AtomicFolder;
  #written = false;

  /** `covered`: names in it that are other mounts'. */
  constructor(mount: ContainerMount, root: string, covered: ReadonlySet<string>) {
    this.mount = mount;
    this.#path = placeOf(root, mount);
    this.#folder = new AtomicFolder(this.#path, covered);
  }

  /** Of the whole volume. */
  async write(content: MountContent): Promise<void> {
    const { subPath } = this.mount;
    // Kubernetes never renews a part of a volume in a container that runs.
    if (subPath !== undefined && this.#written) return;
    const file = subPath === undefined ? undefined : content.get(subPath);
    if (file !== undefined) await replaceFile(this.#path, file);
    else await this.#folder.write(subPath === undefined ? content : below(content, subPath));
    this.#written = true;
  }

  /** The same from the container. */
  async read(kube: Kube, place: ContainerPlace, signal: AbortSignal): Promise<void> {
    const { mountPath, subPath } = this.mount;
    const files = new Map<string, { readonly parts: Buffer[]; readonly executable: boolean }>();
    let current: Buffer[] | undefined;
    // Behind `..data` is one version of the files, whatever a kubelet does meanwhile.
    const [folder, name] = subPath === undefined ? [`${mountPath}/..data`, "."] : splitPath(mountPath);
    await readArchive(kube, {
      place,
      folder,
      name,
      limitBytes: snapshotBytes,
      onEvent: (event) => {
        if (event.type === "data") current?.push(event.data);
        if (event.type !== "entry") return;
        const { kind, mode } = event.entry;
        current = kind === "file" ? [] : undefined;
        const path = innerPath(event.entry.name, name);
        if (current !== undefined)
          files.set(path, { parts: current, executable: (mode & 0o111) !== 0 && !this.#isSecret });
      },
      signal,
    });
    const entries = [...files].map(([path, { parts, executable }]) => [
      path,
      { data: Buffer.concat(parts), executable },
    ]);
    const content: MountContent = new Map(entries as [string, FileContent][]);
    const lone = content.get("");
    if (lone !== undefined) await replaceFile(this.#path, lone);
    else await this.#folder.write(content);
    this.#written = true;
  }

  get #isSecret(): boolean {
    return this.mount.parts?.some((part) => part.part !== "object" || part.kind === "Secret") === true;
  }
}

/** Below the root, whatever the path says. */
export function placeOf(root: string, { mountPath }: Pick<ContainerMount, "mountPath">): string {
  return posix.join(root, posix.normalize(`/${mountPath}`));
}

/** A folder and the name in it. */
export function splitPath(path: string): readonly [string, string] {
  const clean = posix.normalize(`/${path}`).replace(/\/+$/, "");
  return [posix.dirname(clean), posix.basename(clean)];
}

function below(content: MountContent, folder: string): MountContent {
  const inside = [...content].filter(([path]) => path.startsWith(`${folder}/`));
  return new Map(inside.map(([path, file]) => [path.slice(folder.length + 1), file]));
}

/** `./NAME/a` as `a`, `./a` of `.` as `a`. */
function innerPath(path: string, name: string): string {
  const clean = path.replace(/^(\.\/)+/, "");
  if (name === ".") return clean;
  return clean === name ? "" : clean.slice(name.length + 1);
}
