// A pod and its callers, each in a network namespace of its own, with a cable between them:
//
//   callers 198.51.100.1, 2001:db8:1::1 ───── veth ───── 198.51.100.2, 2001:db8:1::2 pod
import { execFileSync, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { join } from "node:path";

export const ip = (...args: string[]): string => execFileSync("ip", args, { encoding: "utf8" });

export class PodNetwork {
  readonly pod: string;
  readonly callers: string;
  readonly #children: ChildProcess[] = [];

  constructor(name: string) {
    this.pod = `${name}-pod-${process.pid}`;
    this.callers = `${name}-callers-${process.pid}`;
  }

  open(): void {
    ip("netns", "add", this.pod);
    ip("netns", "add", this.callers);
    ip("-n", this.pod, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", this.callers);
    for (const [namespace, last] of [
      [this.pod, 2],
      [this.callers, 1],
    ] as const) {
      ip("-n", namespace, "link", "set", "lo", "up");
      ip("-n", namespace, "addr", "add", `198.51.100.${last}/30`, "dev", "eth0");
      ip("-n", namespace, "addr", "add", `2001:db8:1::${last}/64`, "dev", "eth0", "nodad");
      ip("-n", namespace, "link", "set", "eth0", "up");
    }
    ip("-n", this.pod, "route", "add", "default", "via", "198.51.100.1");
    ip("-n", this.pod, "route", "add", "default", "via", "2001:db8:1::1");
  }

  /** A script of this folder; `prefix` is the program that starts it. */
  start(where: "pod" | "callers", script: string, prefix: readonly string[] = []): ChildProcess {
    const args = [`--net=/run/netns/${this[where]}`, ...prefix, process.execPath, join(import.meta.dirname, script)];
    const child = spawn("nsenter", args, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    this.#children.push(child);
    return child;
  }

  inPod(...command: string[]): string {
    return execFileSync("nsenter", [`--net=/run/netns/${this.pod}`, ...command], { encoding: "utf8" });
  }
  ruleset(): string {
    return this.inPod("nft", "list", "ruleset");
  }

  async close(): Promise<void> {
    for (const child of this.#children.splice(0)) await kill(child);
    for (const namespace of [this.pod, this.callers]) ip("netns", "del", namespace);
  }
}

export async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await ended;
}
