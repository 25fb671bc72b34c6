// When the pods of an application became ready and when their end began, as an API watch told it, which is what the
// product itself can know of them; and the processes of their containers.
import { readFileSync } from "node:fs";
import { listPids } from "#testbed/processes.ts";
import { Lab, field, kubectl, until, type Running } from "./lab.ts";

export interface PodLife {
  readonly name: string;
  /** Told at this time of the wall clock; undefined: not yet. */
  readyMs?: number;
  endingMs?: number;
  goneMs?: number;
}

/** From the other laptop, so that nothing a test does to the first one's network matters. */
const watcher = new Lab({ laptop: 2 });

export class PodWatch implements AsyncDisposable {
  readonly #running: Running;
  readonly #pods = new Map<string, PodLife>();
  #rest = "";

  private constructor(running: Running) {
    this.#running = running;
    running.child.stdout?.on("data", (text: string) => this.#read(text));
  }

  /** Resolves when it has told of the pods there are. */
  static async start(namespace: string, selector: string): Promise<PodWatch> {
    const facts = "{.object.metadata.name}|{.object.metadata.deletionTimestamp}|{.type}";
    const line = `${facts}|{.object.status.conditions[?(@.type=="Ready")].status}{"\\n"}`;
    const words = ["get", "pods", "-n", namespace, "-l", selector, "--watch", "--output-watch-events"];
    const watch = new PodWatch(watcher.spawn(["kubectl", ...words, "-o", `jsonpath=${line}`]));
    const names = (await kubectl("get", "pods", "-n", namespace, "-l", selector, "-o", "name")).trim();
    const count = names === "" ? 0 : names.split("\n").length;
    await watch.until("the pods there are", (pods) => pods.length >= count);
    return watch;
  }

  get pods(): readonly PodLife[] {
    return [...this.#pods.values()];
  }

  /** Ready pods that are not ending. */
  get ready(): readonly PodLife[] {
    return this.pods.filter((pod) => pod.readyMs !== undefined && pod.endingMs === undefined);
  }

  get gone(): readonly PodLife[] {
    return this.pods.filter((pod) => pod.goneMs !== undefined);
  }

  async until<T>(what: string, find: (pods: readonly PodLife[]) => T | undefined | false): Promise<T> {
    return await until(what, () => find(this.pods), { everyMs: 20 });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#running[Symbol.asyncDispose]();
  }

  #read(text: string): void {
    const lines = `${this.#rest}${text}`.split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) {
      const [name = "", ending, event, ready] = line.split("|");
      const pod: PodLife = this.#pods.get(name) ?? { name };
      this.#pods.set(name, pod);
      const nowMs = Date.now();
      if (ready === "True") pod.readyMs ??= nowMs;
      if (ending !== "") pod.endingMs ??= nowMs;
      if (event === "DELETED") pod.goneMs ??= nowMs;
    }
  }
}

/** A container's first process, as the machine counts them; `kind` as in the pod's status. */
export async function containerPid(
  namespace: string,
  pod: string,
  container: string,
  kind: "containerStatuses" | "initContainerStatuses" = "containerStatuses",
): Promise<number> {
  return await until(`a process of ${container}`, async () => {
    const id = await field(namespace, `pod/${pod}`, `.status.${kind}[?(@.name=="${container}")].containerID`);
    const short = id.replace("containerd://", "");
    return listPids().find((pid) => {
      try {
        return short !== "" && readFileSync(`/proc/${pid}/cgroup`, "utf8").includes(short);
      } catch {
        return false; // it has just ended
      }
    });
  });
}
