// The volumes of one intercepted container as files of the laptop, below one folder: those that come from Kubernetes'
// objects kept in step, others copied once where that is asked for. All of it goes with the intercept.
import { linkSignals } from "#base/abort.ts";
import { AppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { Scope } from "#base/scope.ts";
import { openVolumeFolder } from "#host/volume-folder.ts";
import type { Kube } from "#kube/client.ts";
import { computeEnvironment } from "#kube/workloads/container-environment.ts";
import {
  containerMounts,
  mountFiles,
  type ContainerMount,
  type VolumePart,
} from "#kube/workloads/container-volumes.ts";
import { followObject } from "#kube/follow-object.ts";
import { pods, type Container, type Pod } from "#kube/objects.ts";
import { copyOnce } from "./copy-once.ts";
import { MountCopy } from "./mount-copy.ts";
import { ObjectFeeds } from "./object-feeds.ts";
import type { ContainerPlace } from "./pod-archive.ts";
import { PodTokens } from "./pod-tokens.ts";

/** What is wanted of the volumes. */
export interface VolumeWish {
  /** Where they go; a folder of our own when left out. */
  readonly path?: string | undefined;
  /** Names or mount paths of those that are copied once. */
  readonly copy: readonly string[];
  /** Of one such copy. */
  readonly limitBytes: number;
}

export interface VolumeTarget {
  readonly interceptName: string;
  readonly namespace: string;
  readonly containerName: string;
  /** A pod to take them from, and its agent's container; another one when that is gone. */
  readonly pod: () => { readonly name: string; readonly agent?: string | undefined } | undefined;
}

export interface VolumeOptions {
  readonly kube: Kube;
  /** The user's directory for sockets. */
  readonly runtime: string;
  readonly log: Logger;
}

/** What a program on the laptop is told. */
export interface CopiedVolumes extends AsyncDisposable {
  readonly root: string;
  readonly mounts: readonly string[];
  readonly warnings: readonly string[];
}

/** chosen: kubelets take about that long to bring a change into a pod. */
const rereadMs = 30_000;
/** chosen: until a pod is there in place of one that is gone. */
const newPodMs = 1000;

/** Undefined when the container has no volume that would be copied. */
export async function copyVolumes(
  options: VolumeOptions,
  { target, wish, progress }: { target: VolumeTarget; wish: VolumeWish; progress: (text: string) => void },
  signal: AbortSignal,
): Promise<CopiedVolumes | undefined> {
  const { kube, runtime, log } = options;
  const { namespace, containerName, interceptName } = target;
  const name = target.pod()?.name ?? "";
  const pod = await findPod(kube, namespace, name, signal);
  const container = pod.spec.containers.find((item) => item.name === containerName);
  const mounts = container === undefined ? [] : mountsOf(pod, container);
  checkAsked(wish.copy, mounts, containerName);
  const present = mounts.filter((mount) => mount.parts !== undefined || isAsked(mount, wish.copy));
  if (present.length === 0) return undefined;
  const kept = present.filter((mount) => mount.parts !== undefined);
  const folder = await openVolumeFolder({ runtime, name: interceptName, path: wish.path });
  const scope = new Scope(log);
  const copies = new VolumeCopies({ kube, target, log, scope, pod, root: folder.path, mounts });
  const end = async (): Promise<void> => {
    await scope[Symbol.asyncDispose]();
    await copies.rewritten;
    await folder[Symbol.asyncDispose]();
  };
  try {
    const once = { root: folder.path, limitBytes: wish.limitBytes, others: mounts.map((mount) => mount.mountPath) };
    const warnings = await copies.keep(kept, signal);
    for (const mount of present.filter(({ parts }) => parts === undefined)) {
      progress(`Copying volume ${mount.volume}`);
      warnings.push(...(await copyOnce(kube, { ...once, mount, place: copies.place, progress, signal })));
    }
    return {
      root: folder.path,
      mounts: present.filter((mount) => !copies.failed.has(mount)).map((mount) => mount.mountPath),
      warnings,
      [Symbol.asyncDispose]: end,
    };
  } catch (error) {
    await end();
    throw error;
  }
}

interface CopiesOptions {
  readonly kube: Kube;
  readonly target: VolumeTarget;
  readonly log: Logger;
  readonly scope: Scope;
  readonly pod: Pod;
  readonly root: string;
  readonly mounts: readonly ContainerMount[];
}

class VolumeCopies {
  /** Mounts of which there is nothing. */
  readonly failed = new Set<ContainerMount>();
  readonly #options: CopiesOptions;
  readonly #feeds: ObjectFeeds;
  readonly #tokens: PodTokens;
  #pod: Pod;
  #fromObjects: MountCopy[] = [];
  #rewriting: Promise<void> | undefined;
  #changed = false;

  constructor(options: CopiesOptions) {
    const { kube, target, scope, log } = options;
    const onChange = (): void => this.#onChange();
    this.#options = options;
    this.#pod = options.pod;
    this.#feeds = new ObjectFeeds({ kube, namespace: target.namespace, onChange, scope, log });
    this.#tokens = new PodTokens({ kube, pod: () => this.#pod, onChange, scope, log });
  }

  /** The pod that counts now. */
  get place(): ContainerPlace {
    const { namespace, containerName, pod } = this.#options.target;
    const name = this.#pod.metadata.name ?? "";
    const found = pod();
    const agent = found?.name === name ? found.agent : undefined;
    return { namespace, pod: name, container: containerName, agent };
  }

  /** Resolves when no change is being written. */
  get rewritten(): Promise<void> {
    return this.#rewriting ?? Promise.resolve();
  }

  /** Lays them down and keeps them in step. Warnings. */
  async keep(mounts: readonly ContainerMount[], signal: AbortSignal): Promise<string[]> {
    const parts = mounts.flatMap((mount) => mount.parts ?? []);
    await Promise.all([
      this.#feeds.follow(
        parts.filter((part) => part.part === "object"),
        signal,
      ),
      this.#tokens.keep(
        parts.filter((part) => part.part === "token"),
        signal,
      ),
    ]);
    // To the end of each, also when one fails: nothing may be written once the folder is gone.
    const laid = await Promise.allSettled(mounts.map((mount) => this.#lay(mount, signal)));
    const failed = laid.find((outcome) => outcome.status === "rejected");
    if (failed !== undefined) throw failed.reason;
    const refusals = laid.map((outcome) => (outcome.status === "fulfilled" ? outcome.value : undefined));
    this.#onChange(); // what changed before all of them were there
    if (parts.some(({ part }) => part === "downward" || part === "token")) {
      this.#options.scope.background("pod of the volumes", this.#followPod());
    }
    return summarize(refusals.filter((refusal) => refusal !== undefined));
  }

  async #lay(mount: ContainerMount, signal: AbortSignal): Promise<Refusal | undefined> {
    const { kube, root, mounts, scope } = this.#options;
    const copy = new MountCopy(mount, root, namesInside(mount, mounts));
    const missing = (mount.parts ?? []).map((part) => this.#whyMissing(part)).find((why) => why !== undefined);
    if (missing === undefined) {
      await copy.write(this.#content(mount));
      this.#fromObjects.push(copy);
      return undefined;
    }
    try {
      await copy.read(kube, this.place, signal);
      scope.background("volume by exec", this.#reread(copy));
      return undefined;
    } catch (error) {
      if (signal.aborted) throw error;
      const content = this.#content(mount);
      if (content.size === 0) this.failed.add(mount);
      else {
        await copy.write(content);
        this.#fromObjects.push(copy);
      }
      return { path: mount.mountPath, partly: content.size > 0, reasons: [missing, toAppError(error)] };
    }
  }

  #whyMissing(part: VolumePart): AppError | undefined {
    if (part.part === "object") return this.#feeds.failure(part);
    if (part.part === "token") return this.#tokens.failure(part);
    return part.part === "unknown"
      ? new AppError("unsupported", "it has a source of a kind that is not known")
      : undefined;
  }

  #content(mount: ContainerMount): ReturnType<typeof mountFiles> {
    return mountFiles(mount, {
      pod: this.#pod,
      containerName: this.#options.target.containerName,
      find: (kind, name) => this.#feeds.find(kind, name),
      token: (part) => this.#tokens.find(part),
    });
  }

  /** One round after the other; what changes meanwhile is in the next. */
  #onChange(): void {
    this.#changed = true;
    this.#rewriting ??= this.#rewrite().finally(() => (this.#rewriting = undefined));
  }

  async #rewrite(): Promise<void> {
    const { log, scope } = this.#options;
    while (this.#changed && !scope.signal.aborted) {
      this.#changed = false;
      for (const copy of this.#fromObjects) {
        try {
          await copy.write(this.#content(copy.mount));
        } catch (error) {
          log.warn("a volume could not be kept in step", { path: copy.mount.mountPath, error: String(error) });
        }
      }
    }
  }

  async #reread(copy: MountCopy): Promise<void> {
    const { kube, scope, log } = this.#options;
    for (;;) {
      await kube.clock.sleep(rereadMs, scope.signal).catch(() => undefined);
      if (scope.signal.aborted) return;
      try {
        await copy.read(kube, this.place, scope.signal);
      } catch (error) {
        log.warn("a volume could not be read again", { path: copy.mount.mountPath, error: String(error) });
      }
    }
  }

  /** Labels change, and pods are replaced: a token is worth nothing without its pod. */
  async #followPod(): Promise<void> {
    const { kube, target, scope, log } = this.#options;
    const { signal } = scope;
    while (!signal.aborted) {
      const { name = "", namespace } = this.#pod.metadata;
      const gone = new AbortController();
      using either = linkSignals(signal, gone.signal);
      const onObject = (pod: Pod | undefined): void => {
        if (pod === undefined) gone.abort();
        else this.#pod = pod;
        this.#onChange();
      };
      try {
        await followObject(kube, pods, { namespace, name }, { onObject, signal: either.signal });
        const next = await this.#nextPod(name);
        if (next === undefined) return;
        this.#pod = next;
        this.#tokens.renew();
        this.#onChange();
      } catch (error) {
        if (signal.aborted) return;
        log.warn("the pod of the volumes could not be followed", { pod: name, target, error: String(error) });
        await kube.clock.sleep(newPodMs, signal).catch(() => undefined);
      }
    }
  }

  async #nextPod(gone: string): Promise<Pod | undefined> {
    const { kube, target, scope } = this.#options;
    while (!scope.signal.aborted) {
      const name = target.pod()?.name;
      if (name !== undefined && name !== gone) return await findPod(kube, target.namespace, name, scope.signal);
      await kube.clock.sleep(newPodMs, scope.signal).catch(() => undefined);
    }
    return undefined;
  }
}

/** Throws when it is gone. */
export async function findPod(kube: Kube, namespace: string, name: string, signal: AbortSignal): Promise<Pod> {
  const pod = await kube.findListed(pods, { namespace, name }, signal);
  if (pod !== undefined) return pod;
  throw new AppError("not_found", `pod ${name} of namespace ${namespace} is gone`, { hint: "try again" });
}

function mountsOf(pod: Pod, container: Container): readonly ContainerMount[] {
  // Sub-paths may name variables; those that need another object are left as they are.
  const { values } = computeEnvironment({ pod, container, services: [], find: () => undefined });
  return containerMounts(pod, container, values);
}

const isAsked = ({ volume, mountPath }: ContainerMount, names: readonly string[]): boolean =>
  names.includes(volume) || names.includes(mountPath);

function checkAsked(names: readonly string[], mounts: readonly ContainerMount[], containerName: string): void {
  const unknown = names.find((name) => !mounts.some((mount) => isAsked(mount, [name])));
  if (unknown === undefined) return;
  const known = mounts.map(({ volume, mountPath }) => `${volume} (${mountPath})`).join(", ");
  throw new AppError("not_found", `container ${containerName} has no volume ${unknown} mounted`, {
    hint: known === "" ? "it has no volumes" : `--copy-volume takes ${known}`,
  });
}

/** First names of other mounts that lie inside. */
function namesInside(mount: ContainerMount, mounts: readonly ContainerMount[]): ReadonlySet<string> {
  const root = `${mount.mountPath.replace(/\/+$/, "")}/`;
  const inside = mounts.filter((other) => other.mountPath.startsWith(root));
  return new Set(inside.map((other) => other.mountPath.slice(root.length).split("/")[0] ?? ""));
}

interface Refusal {
  readonly path: string;
  readonly partly: boolean;
  readonly reasons: readonly AppError[];
}

/** One sentence for all that have the same reasons. */
function summarize(refusals: readonly Refusal[]): string[] {
  const byReason = new Map<string, string[]>();
  for (const { path, partly, reasons } of refusals) {
    const why = [
      ...new Set(reasons.map(({ message, hint }) => (hint === undefined ? message : `${message} (${hint})`))),
    ];
    const text = `could ${partly ? "only in part" : "not"} be copied: ${why.join("; ")}`;
    byReason.set(text, [...(byReason.get(text) ?? []), path]);
  }
  return [...byReason].map(([text, paths]) => `the files of ${paths.join(", ")} ${text}`);
}
