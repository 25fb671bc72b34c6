// What the machine must have: root, a TUN device, Go, and Debian packages, which are installed when their program is
// missing. Each thing that cannot be mended here is one sentence with the next step.
import { accessSync, constants, globSync, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import { AppError } from "#base/error.ts";
import { lastLines, run, systemEnv } from "./exec.ts";
import type { Say } from "./progress.ts";

/** Files that show that a Debian package is there; a program that came otherwise serves as well. */
type PackageProofs = Readonly<Record<string, readonly string[]>>;

const packageProofs: PackageProofs = {
  containerd: ["containerd", "ctr"],
  runc: ["runc"],
  "containernetworking-plugins": ["/usr/lib/cni/ptp", "/usr/lib/cni/host-local", "/usr/lib/cni/portmap"],
  iproute2: ["ip", "ss"],
  iptables: ["iptables"],
  nftables: ["nft"],
  "busybox-static": ["/usr/bin/busybox"],
  openssl: ["openssl"],
  sudo: ["sudo"],
  python3: ["/usr/bin/python3", "/usr/lib/python3.*/http/server.py"],
  iperf3: ["iperf3"],
  curl: ["curl"],
  "ca-certificates": ["/etc/ssl/certs/ca-certificates.crt"],
};

const goHint = "install Go from https://go.dev/dl/ into /usr/local/go";

export function requireRoot(uid = process.getuid?.()): void {
  if (uid === 0) return;
  throw new AppError("denied", "the test cluster needs root and this is an ordinary user", {
    hint: "run the same command with sudo or in a root shell",
  });
}

export function requireTun(path = "/dev/net/tun"): void {
  if (statSync(path, { throwIfNoEntry: false })?.isCharacterDevice() === true) return;
  throw new AppError("tun_unavailable", "the machine has no /dev/net/tun, which connect needs to make its device", {
    hint: "load the module with: modprobe tun (in a container, start it with --device /dev/net/tun)",
  });
}

/** A program on PATH, or the first file that matches an absolute path with wildcards. */
export function findProgram(name: string): string | undefined {
  if (name.startsWith("/")) return globSync(name)[0];
  const folders = (systemEnv()["PATH"] ?? "").split(delimiter);
  return folders.map((folder) => join(folder, name)).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** Debian packages one of whose files is missing. */
export function missingPackages(
  find: (name: string) => string | undefined = findProgram,
  proofs: PackageProofs = packageProofs,
): readonly string[] {
  return Object.entries(proofs)
    .filter(([, files]) => files.some((file) => find(file) === undefined))
    .map(([name]) => name);
}

export async function installPackages(say: Say, proofs: PackageProofs = packageProofs): Promise<void> {
  const missing = missingPackages(findProgram, proofs);
  if (missing.length === 0) return;
  requireRoot();
  if (findProgram("apt-get") === undefined) {
    throw new AppError("unsupported", `the machine lacks ${missing.join(", ")} and has no apt-get to install them`, {
      hint: "use Debian 12 or later, or install these programs by hand",
    });
  }
  say(`installing Debian packages ${missing.join(", ")} (usually 10 to 90 s)`);
  const env = { DEBIAN_FRONTEND: "noninteractive" };
  const wait = ["-o", "DPkg::Lock::Timeout=300"];
  const install = [...wait, "install", "-y", "-qq", "--no-install-recommends", ...missing];
  const first = await run("apt-get", install, { env, timeoutMs: 600_000, allowFailure: true });
  if (first.code !== 0) {
    await run("apt-get", ["update", "-qq"], { env, timeoutMs: 300_000, allowFailure: true });
    const second = await run("apt-get", install, { env, timeoutMs: 600_000, allowFailure: true });
    if (second.code !== 0) throw packageFailure(missing, second.stderr);
  }
  const still = missingPackages(findProgram, proofs);
  if (still.length > 0) throw packageFailure(still, "apt-get ended well, but their files are not there");
}

function packageFailure(missing: readonly string[], said: string): AppError {
  return new AppError(
    "environment_incomplete",
    `the Debian packages ${missing.join(", ")} could not be installed: ${lastLines(said, 3)}`,
    { hint: "check the network and /etc/apt/sources.list, then run the command again" },
  );
}

/** `1.24.0` and `go1.26.8` as numbers that compare. */
export function parseGoVersion(text: string): readonly number[] | undefined {
  const match = /(?:^|go)(\d+)\.(\d+)(?:\.(\d+))?/.exec(text);
  return match === null ? undefined : [Number(match[1]), Number(match[2]), Number(match[3] ?? 0)];
}

export function isAtLeast(version: readonly number[], wanted: readonly number[]): boolean {
  for (const [index, part] of wanted.entries()) {
    const have = version[index] ?? 0;
    if (have !== part) return have > part;
  }
  return true;
}

/** The Go tool, at least as new as `wanted`. */
export async function requireGo(wanted: string, find = findProgram): Promise<string> {
  const go = find("go") ?? find("/usr/local/go/bin/go");
  if (go === undefined) {
    throw new AppError(
      "environment_incomplete",
      `Go ${wanted} or later is needed to build Kubernetes and is not here`,
      {
        hint: goHint,
      },
    );
  }
  const { stdout } = await run(go, ["env", "GOVERSION"], { env: { GOTOOLCHAIN: "local" }, cwd: "/" });
  const version = parseGoVersion(stdout);
  if (version === undefined || !isAtLeast(version, parseGoVersion(wanted) ?? [])) {
    throw new AppError("environment_incomplete", `Go ${wanted} or later is needed and ${go} is ${stdout.trim()}`, {
      hint: goHint,
    });
  }
  return go;
}
