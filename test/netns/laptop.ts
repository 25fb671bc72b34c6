// A laptop for these tests, in two network namespaces that are removed again. The test itself stays outside; what it
// starts inside sees the laptop's network and its own /etc/resolv.conf.
//
//   laptop                                      lan
//   eth0 192.0.2.10/24  ──────── veth ────────  192.0.2.1/24 (gateway), 192.0.2.53 (nameserver)
//        2001:db8:2::10/64                      2001:db8:2::1/64 (gateway), 2001:db8:2::53
import { execFile, execFileSync, spawn } from "node:child_process";
import type { ChildProcess, StdioOptions } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const node = process.execPath;
const root = join(import.meta.dirname, "..", "..");
let counter = 0;

export const gateway = "192.0.2.1";
export const laptopAddress = "192.0.2.10";
export const nameservers = ["192.0.2.53", "2001:db8:2::53"] as const;

export class Laptop implements AsyncDisposable {
  readonly directory = mkdtempSync(join(tmpdir(), "laptop-"));
  readonly name: string;
  readonly lan: string;
  readonly #children = new Set<ChildProcess>();

  /** Shell text that each program's mount namespace is prepared with, beside the resolver's file. */
  prepare = ":";

  constructor() {
    const suffix = `${process.pid}-${++counter}`;
    this.name = `laptop-${suffix}`;
    this.lan = `lan-${suffix}`;
    writeFileSync(join(this.directory, "resolv.conf"), nameservers.map((each) => `nameserver ${each}\n`).join(""));
    ip(["netns", "add", this.name]);
    ip(["netns", "add", this.lan]);
    ip(["-n", this.name, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", this.lan]);
    for (const [namespace, addresses] of [
      [this.name, [`${laptopAddress}/24`, "2001:db8:2::10/64"]],
      [this.lan, [`${gateway}/24`, "192.0.2.53/24", "2001:db8:2::1/64", "2001:db8:2::53/64"]],
    ] as const) {
      ip(["-n", namespace, "link", "set", "lo", "up"]);
      // An address of the kernel's own appears a second later, in the middle of a comparison.
      ip(["-n", namespace, "link", "set", "eth0", "addrgenmode", "none"]);
      ip(["-n", namespace, "link", "set", "eth0", "up"]);
      for (const address of addresses) {
        ip(["-n", namespace, "addr", "add", address, "dev", "eth0", ...(address.includes(":") ? ["nodad"] : [])]);
      }
    }
    ip(["-n", this.name, "route", "add", "default", "via", gateway]);
    ip(["-n", this.name, "-6", "route", "add", "default", "via", "2001:db8:2::1"]);
  }

  /** Everything of the laptop's that the product may touch, for comparing. */
  snapshot(): string {
    const inside = (...args: readonly string[]): string => this.run(["sh", "-c", args.join(" ")]);
    return [
      inside("ip -o link show | cut -d: -f2"),
      ip(["-n", this.name, "route", "show", "table", "all"]),
      ip(["-n", this.name, "-6", "route", "show", "table", "all"]),
      ip(["-n", this.name, "rule", "show"]),
      ip(["-n", this.name, "-6", "rule", "show"]),
      inside("nft list ruleset"),
      inside("cat /etc/resolv.conf"),
    ].join("\n--\n");
  }

  ip(...args: readonly string[]): string {
    return ip(["-n", this.name, ...args]);
  }
  /** Runs a program inside to its end and gives its output. */
  run(command: readonly string[]): string {
    const [file = "", ...args] = this.#inside(this.name, command);
    return execFileSync(file, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], timeout: 20_000 });
  }

  /** The same while this process goes on, for what it has to answer itself. */
  async exec(command: readonly string[]): Promise<string> {
    const [file = "", ...args] = this.#inside(this.name, command);
    const { stdout } = await promisify(execFile)(file, args, { encoding: "utf8", timeout: 20_000 });
    return stdout;
  }

  /** Starts a script of `fixtures/` and resolves when it has printed its first line. */
  async fixture(where: "laptop" | "lan", script: string, args: readonly string[] = []): Promise<Fixture> {
    const path = join(import.meta.dirname, "fixtures", script);
    const child = this.start(where, [node, path, ...args], ["ignore", "pipe", "inherit"]);
    const line = await new Promise<string>((resolve, reject) => {
      let text = "";
      child.stdout?.on("data", (chunk: Buffer) => {
        text += chunk.toString();
        if (text.includes("\n")) resolve(text.slice(0, text.indexOf("\n")));
      });
      child.once("exit", (code) => reject(new Error(`${script} ended with ${code} before it was ready`)));
    });
    return { child, line };
  }

  /** The real helper, with a connection to `socketPath` as standard input. */
  async startHelper(socketPath: string, env: Readonly<Record<string, string>> = {}): Promise<HelperProcess> {
    const socket = connect(socketPath);
    await new Promise<void>((resolve, reject) => socket.once("connect", () => resolve()).once("error", reject));
    const command = ["env", ...Object.entries(env).map(([name, value]) => `${name}=${value}`), node];
    const child = this.start("laptop", [...command, join(root, "src/helper/main.ts")], [socket, "ignore", "pipe"]);
    let log = "";
    child.stderr?.on("data", (chunk: Buffer) => (log += chunk.toString()));
    const ended = new Promise<number | string>((resolve) => {
      child.once("exit", (code, signal) => resolve(code ?? signal ?? "?"));
    });
    await new Promise<void>((resolve) => child.once("spawn", () => resolve()));
    socket.destroy();
    return { child, ended, log: () => log };
  }

  start(where: "laptop" | "lan", command: readonly string[], stdio: StdioOptions): ChildProcess {
    const [file = "", ...args] = this.#inside(where === "laptop" ? this.name : this.lan, command);
    const child = spawn(file, args, { stdio, cwd: root });
    this.#children.add(child);
    child.once("exit", () => this.#children.delete(child));
    return child;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(
      [...this.#children].map(async (child) => {
        const ended = new Promise((resolve) => child.once("exit", resolve));
        child.kill("SIGKILL");
        await ended;
      }),
    );
    for (const namespace of [this.name, this.lan]) ip(["netns", "del", namespace]);
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** Only the network is another one, and in a mount namespace of its own the resolver's file; it execs throughout. */
  #inside(namespace: string, command: readonly string[]): readonly string[] {
    const bind = `mount --bind "$0" /etc/resolv.conf && ${this.prepare} && exec "$@"`;
    const inNetwork = ["nsenter", `--net=/run/netns/${namespace}`];
    return [...inNetwork, "unshare", "-m", "sh", "-c", bind, join(this.directory, "resolv.conf"), ...command];
  }
}

export interface Fixture {
  readonly child: ChildProcess;
  /** The first line it printed. */
  readonly line: string;
}

export interface HelperProcess {
  readonly child: ChildProcess;
  /** Exit code, or the signal's name. */
  readonly ended: Promise<number | string>;
  readonly log: () => string;
}

function ip(args: readonly string[]): string {
  return execFileSync("ip", [...args], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}
